"""Rows with no, one and several images in one batch, and several prompts to one row of images."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rebus import catalog
from rebus.core.errors import BadText, UsageError
from rebus.generation import generate
from rebus.nn.image_rows import ImageRows, real_images
from rebus.objectives import Learner, NextTokenLoss, backward, split

MASK = torch.tensor([[True, False], [False, False], [True, True]])


@pytest.fixture
def network() -> Any:
    system = catalog.system("paligemma")
    torch.manual_seed(0)
    network = system.network(system.presets["tiny"]).eval()
    for parameter in network.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def batch_of(network: Any, counts: list[int], lengths: list[int]) -> dict[str, Tensor]:
    """Prompts of `lengths` words after `counts` images, padded on the right; rows of the answer of other lengths."""
    random = torch.Generator().manual_seed(1)
    images = network.cfg.num_image_tokens
    rows = [
        [network.cfg.image_id] * (images * count) + torch.randint(2, 60, (n,), generator=random).tolist()
        for count, n in zip(counts, lengths, strict=True)
    ]
    width = max(map(len, rows))
    targets = torch.randint(2, 60, (len(rows), 4), generator=random)
    targets[0, 2:] = -100
    return {
        "tokens": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "mask": torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows]),
        "targets": targets,
    }


def pixels_of(network: Any) -> Tensor:
    size = network.cfg.image.image_size
    return torch.randn(3, 2, 3, size, size, generator=torch.Generator().manual_seed(2))


def alone(batch: dict[str, Tensor], pixels: Tensor, row: int, images: int) -> dict[str, Tensor]:
    real = batch["mask"][row]
    single = {"tokens": batch["tokens"][row : row + 1, real]}
    return single | ({"pixels": pixels[row : row + 1, :images]} if images else {})


@torch.no_grad()
def test_rows_with_no_one_and_two_images_equal_each_row_alone(network: Any) -> None:
    counts = MASK.sum(dim=1).tolist()
    pixels, batch = pixels_of(network), batch_of(network, counts, [4, 2, 3])
    inputs = batch | {"pixels": pixels, "image_mask": MASK}
    together = network(**inputs).logits
    prompts = {name: value for name, value in inputs.items() if name != "targets"}
    step = network.start(room=3, **prompts)
    said = generate(network, prompts, max_new_tokens=3, eos_id=None, pad_id=0)
    for row, images in enumerate(counts):
        single = alone(batch, pixels, row, images)
        real = batch["targets"][row] >= 0
        logits = network(**single, targets=batch["targets"][row : row + 1, real]).logits
        torch.testing.assert_close(together[row, real], logits[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(step.logits[row], logits[0, 0], atol=1e-4, rtol=0)
        assert torch.equal(said[row], generate(network, single, max_new_tokens=3, eos_id=None, pad_id=0)[0])
    changed = pixels.clone()
    changed[~MASK] = 9.0  # what is not there is not seen
    assert torch.equal(network(**inputs | {"pixels": changed}).logits, together)
    changed[2, 1] = 0.0
    assert not torch.equal(network(**inputs | {"pixels": changed}).logits[2], together[2])


@torch.no_grad()
def test_prompts_of_one_row_see_its_images_once(network: Any) -> None:
    owners = torch.tensor([2, 0, 2, 1])
    counts = MASK.sum(dim=1)[owners].tolist()
    pixels, batch = pixels_of(network), batch_of(network, counts, [4, 2, 3, 2])
    encoded: list[int] = []
    network.image.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
    together = network(**batch, pixels=pixels, image_mask=MASK, owners=owners).logits
    assert encoded == [3]
    repeated = network(**batch, pixels=pixels[owners], image_mask=MASK[owners]).logits
    torch.testing.assert_close(together, repeated, atol=1e-5, rtol=0)
    prompts = {name: batch[name] for name in ("tokens", "mask")}
    given = {"pixels": pixels, "image_mask": MASK, "owners": owners}
    said = generate(network, prompts | given, max_new_tokens=3, eos_id=None, pad_id=0)
    given = {"pixels": pixels[owners], "image_mask": MASK[owners]}
    assert torch.equal(said, generate(network, prompts | given, max_new_tokens=3, eos_id=None, pad_id=0))


@torch.no_grad()
def test_short_forms_and_frames(network: Any) -> None:
    pixels, batch = pixels_of(network), batch_of(network, [2, 2, 2], [4, 2, 3])
    every = torch.ones(3, 2, dtype=torch.bool)
    expected = network(**batch, pixels=pixels, image_mask=every).logits
    assert torch.equal(network(**batch, pixels=pixels).logits, expected)
    frames = pixels[:, None]  # one video of two frames
    assert torch.equal(network(**batch, pixels=frames, image_mask=every[:, :1]).logits, expected)
    single = batch_of(network, [1, 1, 1], [4, 2, 3])
    assert torch.equal(
        network(**single, pixels=pixels[:, 0]).logits,
        network(**single, pixels=pixels, image_mask=torch.tensor([[True, False]] * 3)).logits,
    )
    none = batch_of(network, [0, 0], [4, 2])
    empty = {"pixels": pixels[:2, :0], "image_mask": torch.zeros(2, 0, dtype=torch.bool)}
    assert torch.equal(network(**none, **empty).logits, network(**none).logits)


def test_a_row_and_its_placeholders_must_agree(network: Any) -> None:
    pixels = pixels_of(network)[:2, 0]
    wrong = batch_of(network, [2, 0], [2, 2])
    with pytest.raises(BadText, match="row 0: 18 image placeholders in the tokens, but 1 images of 9 each: 9 wanted"):
        network(**wrong, pixels=pixels)
    with pytest.raises(BadText, match="row 1: 0 image placeholders in the tokens, but 1 images of 9 each"):
        network(**batch_of(network, [1, 0], [2, 2]), pixels=pixels)
    right = batch_of(network, [1, 1, 1, 1], [2, 2, 2, 2])
    with pytest.raises(BadText, match="4 prompts for 2 rows of images: `owners` says"):
        network(**right, pixels=pixels)
    for owner in (-1, 2):
        with pytest.raises(BadText, match=r"owners\[2\]: there is no such row"):
            network(**right, pixels=pixels, owners=torch.tensor([0, 1, owner, 0]))
    with pytest.raises(UsageError, match=r"image_mask \(2, 2\)"):
        network(**right, pixels=pixels, image_mask=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match=r"pixels \(3, 24, 24\)"):
        real_images(pixels[0])


def test_split_equals_whole(network: Any) -> None:
    network = network.double()
    mask = torch.cat([MASK, torch.tensor([[True, True]])])
    owners = torch.tensor([3, 0, 2, 1, 2, 2, 0])
    counts = mask.sum(dim=1)[owners].tolist()
    pixels = torch.cat([pixels_of(network), pixels_of(network)[:1]]).double()
    batch = batch_of(network, counts, [4, 2, 3, 2, 5, 1, 2]) | {"pixels": pixels, "image_mask": mask, "owners": owners}

    def gradients(parts: int) -> list[Tensor]:
        network.zero_grad()
        backward(Learner(NextTokenLoss(), network), split(batch, parts))
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    whole = gradients(1)
    for parts in (2, 4):
        for a, b in zip(gradients(parts), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # Gemma's norms are in float32
    assert any(gradient.abs().max() > 1e-3 for gradient in whole)


def test_images_go_to_the_texts_that_see_them_in_reading_order() -> None:
    rows = ImageRows(torch.tensor([1, 0, 2]), torch.tensor([2, 1, 0, 2]))
    assert rows.of_texts().tolist() == [2, 0, 1, 2]
    assert rows.spread(torch.tensor([10, 30, 31])).tolist() == [30, 31, 10, 30, 31]
    assert ImageRows(torch.tensor([1, 2])).spread(torch.tensor([5, 6, 7])).tolist() == [5, 6, 7]
