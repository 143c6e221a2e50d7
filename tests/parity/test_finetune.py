"""A directory that transformers wrote is fine-tuned, and transformers reads what came out."""

import json
from pathlib import Path

import pytest

import rebus
from rebus.data.scenes import scene
from rebus.recipes import recipe
from rebus.train import override, train
from tests.parity.finetuning import reference_captions, write_directory

pytestmark = pytest.mark.parity
LORA = [
    "lora.rank=24",
    "lora.alpha=24",
    'lora.parts=["image", "image_proj", "text.blocks"]',
    'lora.whole=["text.tokens", "text.norm"]',
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [("paligemma_captions", ["optim.lr=3e-3"]), ("paligemma_lora", ["optim.lr=1e-2", *LORA])],
    ids=["whole", "lora"],
)
def test_four_pictures_are_learned_by_heart(name: str, settings: list[str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for i in range(4):
        s = scene(100 + i, "train", count=1 + i % 2)
        s.image.save(photos / f"{i}.png")
        rows.append({"file": f"{i}.png", "caption": s.captions[0].replace(",", "").replace(".", "")})
    (photos / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    captions = [" ".join(row["caption"].split()) for row in rows]
    write_directory(tmp_path / "base", captions, width=64, layers=2)
    base = [f"start_from={tmp_path / 'base'}", f"data.path={photos}", "data.split=none", "workers=0", "eval_every=0"]
    config = override(recipe(name), [*base, "steps=120", "batch_size=4", "optim.warmup=5", *settings])
    final = train(config, tmp_path / "run")
    model = rebus.load(final)
    batch = model.processor(images=[photos / row["file"] for row in rows], texts=["caption en"] * 4)
    assert model.processor.decode(reference_captions(final, batch)) == captions
    assert model.caption([photos / row["file"] for row in rows]) == captions
