"""PaLI-3's stages, small: from a SigLIP and a T5 of their own files to images and text, and on to larger images."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rebus
from rebus import catalog
from rebus.backbones.text.t5 import T5Config
from rebus.codec.tokenizers import Tokenizer, word_level_tokenizer
from rebus.data.file_records import Mixture
from rebus.data.scenes import scene, vocabulary
from rebus.objectives import SpanCorruptionLoss
from rebus.recipes import recipe
from rebus.save_checkpoint import save_checkpoint
from rebus.train import Optim, TrainConfig, train
from rebus.weights.checkpoint_files import open_weights

PALI3 = catalog.system("pali3")
MORE = "generate alt text ocr question for list objects present detect answer in en at _ : " + " ".join(
    map(str, range(1000))
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = sorted({*vocabulary(), *MORE.split()})
    return word_level_tokenizer([*words, *(f"extra{i}" for i in range(10))], ("<pad>", "<eos>", "<bos>", "<unk>"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """`photos`, and the released parts: `siglip` and `t5`, the second with its tokenizer."""
    torch.manual_seed(0)
    where = tmp_path_factory.mktemp("stages")
    photos = where / "photos"
    photos.mkdir()
    rows = []
    for i in range(12):
        s = scene(i, "train")
        s.image.save(photos / f"{i}.png")
        boxes = [{"label": label, "xyxy": list(box)} for label, box in zip(s.labels, s.boxes, strict=True)]
        (question, answer), split = s.questions[0], "val" if i >= 10 else "train"
        row = {"file": f"{i}.png", "captions": s.captions[:2], "boxes": boxes, "split": split}
        rows.append(row | {"question": question, "answer": answer})
    (photos / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for name in ("siglip", "t5"):
        system = catalog.system(name)
        config = system.presets["tiny" if name == "siglip" else "tiny_gated"]
        if isinstance(config, T5Config):
            config = replace(config, vocab_size=tokenizer.vocab_size)
        network = system.network(config)
        save_checkpoint(where / name, system.layouts["transformers"], config, network.state_dict())
    for name, data in tokenizer.files.items():
        (where / "t5" / name).write_bytes(data)
    return where


def small(name: str, folder: Path, tokenizer: Tokenizer, size: int) -> TrainConfig:
    """The recipe with a tiny model, and every part of its mixture out of the same folder."""
    config = recipe(name)
    assert isinstance(config.data, Mixture)
    parts = tuple(
        replace(part, path=str(folder / "photos"), layout="auto", most_damaged=0.5) for part in config.data.parts
    )
    siglip, tiny = catalog.system("siglip").presets["tiny"], PALI3.presets["tiny"]
    text = replace(tiny.text, vocab_size=tokenizer.vocab_size)
    return replace(
        config,
        model=replace(tiny, image=replace(siglip.image, image_size=size), text=text),
        objective=SpanCorruptionLoss(sentinel=tokenizer.vocab_size - 1, num_sentinels=10),
        data=replace(config.data, parts=parts, weights=(1.0,) * len(parts)),
        optim=Optim(lr=1e-2, warmup=1),
        starts=tuple(replace(start, source=str(folder / start.source)) for start in config.starts),
        processor=str(folder / "t5"),
        steps=8,
        batch_size=4,
        workers=0,
        eval_every=0,
        bf16=False,
        devices=replace(config.devices, device="cpu", compile=False),
    )


def test_stages_go_on_from_each_other(folder: Path, tokenizer: Tokenizer) -> None:
    side = catalog.system("siglip").presets["tiny"].image.image_size
    first = small("pali3_224", folder, tokenizer, side)
    starts = tuple(
        replace(start, source=str(folder / name)) for start, name in zip(first.starts, ("siglip", "t5"), strict=True)
    )
    train(replace(first, starts=starts), folder / "224")
    weights = {name: open_weights(folder / name) for name in ("siglip", "t5")}
    learned = open_weights(folder / "224" / "final")
    image = {name: tensor.load() for name, tensor in learned.items() if name.startswith("image.")}
    siglip: Any = catalog.system("siglip")
    given = siglip.layouts["transformers"].keys(siglip.presets["tiny"]).to_ours(weights["siglip"])
    assert image
    assert all(torch.equal(tensor, given[name].load()) for name, tensor in image.items())  # frozen
    assert learned["image_proj.weight"].load().abs().max() > 0  # it began at zero
    assert not torch.equal(learned["text.tokens.weight"].load(), weights["t5"]["shared.weight"].load())

    train(replace(small("pali3_812", folder, tokenizer, 2 * side), steps=2), folder / "812")
    model: Any = rebus.load(folder / "812" / "final")
    assert model.config.image.image_size == 2 * side
    assert len(model.network.image.positions) == 4 * len(image["image.positions"])
    assert not torch.equal(model.network.image.patch.weight, image["image.patch.weight"])
    picture = scene(0, "test").image
    assert isinstance(model.caption(picture, max_new_tokens=4), str)
    assert isinstance(model.caption(picture, prompt="Generate the ocr_text in EN:", max_new_tokens=4), str)
    assert isinstance(model.detect(picture, max_new_tokens=4), list)
