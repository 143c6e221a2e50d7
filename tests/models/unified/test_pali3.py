"""PaLI-3: the sizes of its parts, rows of several images, frames of a video, and what it is asked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import rebus
from rebus import catalog
from rebus.api import Model
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import UsageError
from rebus.generation import generate
from rebus.nn.quantized import quantize_linears

SYSTEM = catalog.system("pali3")
MASK = torch.tensor([[True, False], [False, False], [True, True]])


@pytest.fixture
def network() -> Any:
    torch.manual_seed(0)
    network = SYSTEM.network(SYSTEM.presets["tiny"]).eval()
    for parameter in network.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def batch_of(network: Any) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 90, (3, 5), generator=random)
    mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    return {
        "tokens": tokens.masked_fill(~mask, 0),
        "mask": mask,
        "targets": torch.randint(2, 90, (3, 4), generator=random),
    }


def pixels_of(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 24, 24, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("preset", "image", "text"),
    [
        ("5b_224", 1_842_772_352, 3_230_390_272),
        ("5b_812", 1_847_944_064, 3_230_390_272),
        ("5b_1064", 1_851_957_632, 3_230_390_272),
        ("study_b16", 85_797_120, 3_230_390_272),
        ("study_l16", 303_299_584, 3_230_390_272),
        ("so400m_t5_xl", 412_442_352, 2_849_757_184),
    ],
)
def test_parts_have_the_known_numbers_of_parameters(preset: str, image: int, text: int) -> None:
    with torch.device("meta"):
        network = SYSTEM.network(SYSTEM.presets[preset])
    counted = [sum(p.numel() for p in part.parameters()) for part in (network.image, network.text)]
    assert counted == [image, text]


@torch.no_grad()
def test_rows_with_no_one_and_two_images_equal_each_row_alone(network: Any) -> None:
    batch, pixels = batch_of(network), pixels_of(3, 2)
    together = network(pixels=pixels, image_mask=MASK, **batch).logits
    written = generate(
        network,
        {"pixels": pixels, "image_mask": MASK, "tokens": batch["tokens"], "mask": batch["mask"]},
        eos_id=None,
        pad_id=0,
        max_new_tokens=4,
        strategy="beam",
        num_beams=3,
    )
    for row, images in enumerate(MASK.sum(dim=1).tolist()):
        tokens = batch["tokens"][row, batch["mask"][row]][None]
        seen = {"pixels": pixels[row : row + 1, :images]} if images else {}
        alone = network(tokens=tokens, targets=batch["targets"][row : row + 1], **seen).logits
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)
        options = {"strategy": "beam", "num_beams": 3, "max_new_tokens": 4}
        single = generate(network, {"tokens": tokens, **seen}, eos_id=None, pad_id=0, **options)
        assert written[row].tolist() == single[0].tolist()


@torch.no_grad()
def test_frames_of_a_video_come_one_after_another(network: Any) -> None:
    batch, pixels = batch_of(network), pixels_of(3, 1, 4)
    as_video = network(pixels=pixels, image_mask=torch.ones(3, 1, dtype=torch.bool), **batch).logits
    torch.testing.assert_close(as_video, network(pixels=pixels[:, 0], **batch).logits, atol=1e-5, rtol=0)
    backwards = network(pixels=pixels.flip(2), **batch).logits
    assert (as_video - backwards).abs().max() > 1e-4


@torch.no_grad()
def test_images_are_encoded_once_for_several_prompts(network: Any) -> None:
    batch, pixels = batch_of(network), pixels_of(2)
    owners = torch.tensor([1, 0, 1])
    wanted = network(pixels=pixels[owners], **batch).logits
    torch.testing.assert_close(network(pixels=pixels, owners=owners, **batch).logits, wanted, atol=1e-5, rtol=0)
    seen = network.see(pixels)
    torch.testing.assert_close(network(seen=seen, owners=owners, **batch).logits, wanted, atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="images need pixels"):
        network(pixels=pixels, image_mask=MASK, **batch)


@torch.no_grad()
def test_a_fresh_network_answers_as_its_text_part_and_sees_nothing() -> None:
    """The projection is zero, so that images are tokens that say nothing: of all images the same."""
    torch.manual_seed(0)
    network = SYSTEM.network(SYSTEM.presets["tiny"]).eval()
    batch, pixels = batch_of(network), pixels_of(3)
    torch.testing.assert_close(network(pixels=pixels, **batch).logits, network(pixels=-pixels, **batch).logits)


@torch.no_grad()
def test_int8_stays_close(network: Any) -> None:
    batch, pixels = batch_of(network), pixels_of(3)
    wanted = network(pixels=pixels, **batch).logits
    quantized: Any = quantize_linears(network)
    assert (quantized(pixels=pixels, **batch).logits - wanted).abs().mean() < 0.1 * wanted.std()
    prompt = {"pixels": pixels, "tokens": batch["tokens"], "mask": batch["mask"]}
    assert generate(quantized, prompt, eos_id=None, pad_id=0, max_new_tokens=3).shape == (3, 3)


@pytest.fixture
def model(network: Any) -> Model:
    words = "a red circle generate answer detect in en at alt _ text : 0 what is ? object ;".split()
    model = rebus.create("pali3/5b-224", image=SYSTEM.presets["tiny"].image, text=SYSTEM.presets["tiny"].text)
    model.network.load_state_dict(network.state_dict())
    spec = SYSTEM.text_spec(model.config)
    text = TextPipeline(word_level_tokenizer(words, ("<pad>", "<eos>", "<unk>", *(f"<{i}>" for i in range(73)))), spec)
    model.processor = Processor(model.processor.image, text)
    return model


def test_its_tasks_answer_in_kind(model: Model) -> None:
    assert model.tasks == {"caption", "ask", "classify", "detect", "stream"}
    image, other = Image.new("RGB", (31, 20), "red"), Image.new("RGB", (20, 31), "blue")
    one = model.caption(image, max_new_tokens=3)
    assert isinstance(one, str)
    assert model.caption([image, other], max_new_tokens=3)[0] == one
    assert isinstance(model.ask(image, "what is a circle?", max_new_tokens=3), str)
    assert isinstance(model.detect(image, ["circle"], max_new_tokens=3), list)
    frames, one_image = model.ask([[image, other, image], [image]], "what is it?", max_new_tokens=3)
    assert one_image == model.ask(image, "what is it?", max_new_tokens=3)
    assert frames == model.ask([[image, other, image]], "what is it?", max_new_tokens=3)[0]


def test_a_video_is_asked_about_by_its_frames(model: Model, tmp_path: Path) -> None:
    video_frames = pytest.importorskip("tests.data.test_video_frames")
    shown = video_frames.frames(video_frames.film(tmp_path / "film.mp4"), 16)
    question, labels = "what is it?", ["red", "circle", "object"]
    (ranking,) = model.classify([shown], labels)
    assert set(ranking.labels) == set(labels)
    assert ranking.probabilities != model.classify([shown[::-1]], labels)[0].probabilities
    (said,) = model.ask([shown], question, max_new_tokens=4)
    batch = model.processor(images=[shown], texts=["answer in en: what is it?"])
    video = {
        "pixels": batch["pixels"][:, None],
        "image_mask": torch.ones(1, 1, dtype=torch.bool),
    }  # (1, 1, 16, 3, Y, X)
    assert video["pixels"].shape == (1, 1, 16, 3, 24, 24)
    tokens = model.generate(**video, tokens=batch["tokens"], mask=batch["mask"], max_new_tokens=4)
    assert model.processor.decode(tokens)[0].strip() == said


def test_its_card_says_that_nothing_was_released_and_what_to_use() -> None:
    card = rebus.info("pali3/5b-224")
    assert not card.released
    assert card.instead is not None
    assert "paligemma/3b-mix-224" in card.instead
    assert "pali3_siglip_t5" in card.instead
