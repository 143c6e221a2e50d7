"""PaLI-3 joined of released files: SigLIP's image encoder and T5, each of the reference library, and one projection."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rebus import catalog
from rebus.core.errors import BadCheckpoint
from rebus.data.file_records import Files
from rebus.generation import generate
from rebus.objectives import NextTokenLoss
from rebus.train.config import Start, TrainConfig
from rebus.train.warm_start import build

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

PALI3, SIGLIP, T5 = (catalog.system(name) for name in ("pali3", "siglip", "t5"))
IMAGE = replace(PALI3.presets["tiny"].image, image_size=32)
# The reference's cache has as many layers as the encoder.
TEXT = replace(PALI3.presets["tiny"].text, num_decoder_layers=2)
TINY = replace(PALI3.presets["tiny"], image=IMAGE, text=TEXT)
PAD, END = 0, 1


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(SigLIP, T5, the folder with both, as the reference library saves them)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parts")
    config = replace(SIGLIP.presets["tiny"], image=IMAGE)
    siglip = transformers.SiglipModel(
        transformers.SiglipConfig(**SIGLIP.layouts["transformers"].write_config(config))
    ).eval()
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**T5.layouts["transformers"].write_config(TINY.text))
    ).eval()
    t5.lm_head.weight = torch.nn.Parameter(torch.randn_like(t5.lm_head.weight))
    for name, part in (("siglip", siglip), ("t5", t5)):
        for parameter in part.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        part.save_pretrained(folder / name)
    return siglip, t5, folder


def settings(folder: Path, **more: Any) -> TrainConfig:
    starts = (
        Start(source=str(folder / "siglip"), take="image", into="image"),
        Start(source=str(folder / "t5"), into="text"),
    )
    options = {"model": TINY, "starts": starts, "freeze": ("image",)} | more
    return TrainConfig(system="pali3", objective=NextTokenLoss(), data=Files(), **options)


@pytest.fixture(scope="module")
def network(reference: Any) -> Any:
    """Ours, from both files in one run, with a projection that is no longer zero."""
    built = build(settings(reference[2]))
    network: Any = built.network.eval()
    assert {name.split(".")[0] for name in built.copied} == {"image", "text"}
    assert not any(parameter.requires_grad for parameter in network.image.parameters())
    torch.nn.init.normal_(network.image_proj.weight, std=0.2)
    torch.nn.init.normal_(network.image_proj.bias, std=0.2)
    return network


def batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    mask = torch.arange(7) < torch.tensor([[7], [2], [5]])
    tokens = torch.randint(2, 96, (3, 7), generator=random).masked_fill(~mask, PAD)
    return {"pixels": torch.randn(3, 3, 32, 32, generator=random), "tokens": tokens, "mask": mask}


def embedded(reference: Any, network: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference's T5 is fed with: images by its SigLIP, then tokens."""
    siglip, t5, _ = reference
    seen = network.image_proj(siglip.vision_model(given["pixels"]).last_hidden_state)
    mask = torch.cat([torch.ones(seen.shape[:2], dtype=torch.bool), given["mask"]], dim=1)
    return {"inputs_embeds": torch.cat([seen, t5.shared(given["tokens"])], dim=1), "attention_mask": mask.long()}


@torch.no_grad()
def test_scores_equal_those_of_the_parts(reference: Any, network: Any) -> None:
    given, targets = batch(), torch.randint(2, 96, (3, 5))
    wanted = reference[1](**embedded(reference, network, given), labels=targets).logits
    torch.testing.assert_close(network(**given, targets=targets).logits, wanted, atol=1e-4, rtol=0)
    blind = network(**(given | {"pixels": -given["pixels"]}), targets=targets).logits
    assert (blind - wanted).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_equals_that_of_the_parts_token_for_token(reference: Any, network: Any, beams: int) -> None:
    given = batch()
    options: dict[str, Any] = {"strategy": "beam", "num_beams": beams} if beams > 1 else {}
    found = generate(network, given, eos_id=END, pad_id=PAD, max_new_tokens=6, **options)
    wanted = reference[1].generate(
        **embedded(reference, network, given), max_new_tokens=6, num_beams=beams, do_sample=False, length_penalty=1.0
    )
    assert found.tolist() == wanted[:, 1:].tolist()


def test_training_at_a_higher_resolution_begins_with_resized_positions(reference: Any) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    larger = replace(TINY, image=replace(IMAGE, image_size=56))
    network: Any = build(settings(reference[2], model=larger)).network
    table = reference[0].vision_model.embeddings.position_embedding.weight.detach().unflatten(0, (4, 4))
    wanted = torch.from_numpy(ndimage.zoom(table.numpy(), (7 / 4, 7 / 4, 1), order=1))
    torch.testing.assert_close(network.image.positions.data.unflatten(0, (7, 7)), wanted, atol=1e-5, rtol=0)


def test_parts_of_another_width_are_refused(reference: Any) -> None:
    wider = replace(TINY, image=replace(IMAGE, width=36))
    with pytest.raises(BadCheckpoint, match="image"):
        build(settings(reference[2], model=wider))
