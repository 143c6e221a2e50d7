"""A detector is trained on scenes with a teacher, goes on where it was stopped, and learns boxes of one's own."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import rebus
from rebus.backbones.text.encoder import TextConfig
from rebus.core.errors import UsageError
from rebus.data.detection_batches import Detection
from rebus.data.region_embedding import EmbeddingSettings, RegionEmbedding
from rebus.data.scene_records import SceneReader
from rebus.data.scene_tokenizer import EOS, scenes_tokenizer
from rebus.data.scenes import NOVEL_LABELS
from rebus.models.distillation.vild import PRESETS
from rebus.objectives import DistilledDetectionLoss
from rebus.recipes import recipe
from rebus.train import Optim, TrainConfig, train

WIDTH = PRESETS["tiny"].embed


class ByPlace:
    """Embeds a region by where it lies, a label by its number."""

    def embed(self, image, boxes):
        return np.cos(boxes.sum(axis=1, keepdims=True) * np.arange(1, WIDTH + 1) / 50)

    def embed_labels(self, labels):
        found = np.cos(np.arange(len(labels))[:, None] * np.arange(1, WIDTH + 1))
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "taught"
    RegionEmbedding(SceneReader(8), folder, {}, ByPlace(), EmbeddingSettings(truth=True)).run()
    words = scenes_tokenizer().vocab_size
    text = TextConfig(width=24, num_layers=1, num_heads=2, mlp_width=48, vocab_size=words, context=16)
    tiny = PRESETS["tiny"]
    return TrainConfig(
        system="vild",
        model=replace(tiny, image=replace(tiny.image, image_size=96), text=text, end_id=EOS),
        objective=DistilledDetectionLoss(num_anchors=16, num_regions=8),
        data=Detection(
            path="scenes",
            taught=str(folder),
            novel=NOVEL_LABELS,
            scales=(0.8, 1.25),
            most_objects=5,
            most_taught=10,
            mask_cells=28,
            num_scenes=8,
        ),
        optim=Optim(lr=1e-3, warmup=2),
        steps=4,
        batch_size=4,
        save_every=2,
        eval_every=2,
        eval_batches=1,
        workers=0,
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "whole"
    train(config, out)
    return out


def lines_of(out):
    timed = ("seconds", "waited", "examples_per_second", "memory_gb")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def test_every_part_is_learned_and_the_model_finds_regions(trained):
    lines = lines_of(trained)
    parts = {"proposal_score", "proposal_box", "text", "box", "mask", "image", "accuracy"}
    assert all(parts <= set(line) and np.isfinite(line["loss"]) for line in lines)
    assert "val_text" in lines[1]
    assert "val_image" not in lines[1], "scenes that are held out have no teacher"
    model = rebus.load(trained / "final")
    boxes = model.detect(Image.new("RGB", (120, 80), "green"), ["red circle", "blue heart"])
    assert {box.label for box in boxes} <= {"red circle", "blue heart"}


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(config, trained, tmp_path):
    out = tmp_path / "stopped"
    shutil.copytree(trained, out)
    shutil.rmtree(out / "final")
    (newest,) = [folder for folder in (out / "checkpoints").iterdir() if "4" in folder.name]
    shutil.rmtree(newest)
    train(config, out)
    assert lines_of(out) == lines_of(trained)


def test_boxes_of_one_s_own_without_a_teacher(trained, tmp_path):
    """The text encoder of the detector reads the labels: no teacher is needed, and none is copied."""
    images, objects = [], []
    for number in range(4):
        Image.new("RGB", (60, 40), (60 * number, 90, 30)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
        objects.append({"id": number, "image_id": number, "category_id": 7, "bbox": [5, 5, 30, 20], "area": 600})
    file = {"images": images, "annotations": objects, "categories": [{"id": 7, "name": "red star"}]}
    (tmp_path / "instances.json").write_text(json.dumps(file))
    own = recipe("vild_boxes")
    own = replace(
        own,
        start_from=str(trained / "final"),
        data=replace(own.data, path=str(tmp_path), split=None, val_split=None, most_objects=4, mask_cells=28),
        steps=2,
        batch_size=2,
        eval_every=0,
        workers=0,
    )
    train(own, tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    assert all("image" not in line and line["text"] > 0 for line in lines)
    assert all(line["mask"] == 0 for line in lines), "there are no outlines"
    before, after = (rebus.load(folder / "final").network.state_dict() for folder in (trained, tmp_path / "out"))
    moved = {name for name in before if not before[name].equal(after[name])}
    assert "project.weight" in moved
    assert not any(name.startswith("text") for name in moved), "the text encoder stays as it was"


def test_a_teacher_of_another_space_is_refused(config, tmp_path):
    other = replace(config, model=replace(config.model, embed=WIDTH + 1))
    with pytest.raises(UsageError, match=f"have {WIDTH} numbers, the detector's {WIDTH + 1}"):
        train(other, tmp_path / "out")
    with pytest.raises(UsageError, match="cannot learn boxes"):
        train(replace(recipe("mask_vqvae_scenes"), data=config.data), tmp_path / "out")
