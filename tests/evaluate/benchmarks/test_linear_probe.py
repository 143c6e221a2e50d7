import numpy as np
import pytest
import torch

import rebus
from rebus.core.errors import RebusError, UnsupportedTask, UsageError
from rebus.data.record import Record, Thing
from rebus.data.scenes import scene
from rebus.evaluate.benchmarks.linear_probe import Options, _seen, _sets, run
from rebus.evaluate.benchmarks.walk import Records
from rebus.evaluate.measure import measure
from rebus.tasks.image_features import image_features
from tests.evaluate.benchmarks.samples import ByteLRU, Told, coloured, png, write_lines


@pytest.fixture(scope="module")
def virtex():
    return rebus.load("virtex/scenes", device="cpu")


def test_one_label_each(virtex, tmp_path):
    coloured(tmp_path / "train", "train", 5)
    coloured(tmp_path / "test", "test", 4)
    result = measure(virtex, "linear_probe", tmp_path, split="test")
    scores = result.document["scores"]
    assert scores["top1"] > 0.8
    assert scores["mean_per_class"] == pytest.approx(scores["top1"])  # as many of each colour
    assert set(scores["by_class"]) == {"red", "green", "blue"}
    assert "learned from 15 images, 3 labels" in result.document["notes"]
    assert len(result.document["data"]["fingerprint"]) == 2


def test_sets_of_labels(virtex, tmp_path):
    rows = []
    for split, number in (("train", 30), ("test", 20)):
        for seed in range(number):
            one = scene(seed, split)
            boxes = [{"label": thing.shape, "xyxy": thing.box} for thing in one.objects]
            rows.append({"file": png(tmp_path, seed, split).name, "split": split, "boxes": boxes})
    write_lines(tmp_path / "metadata.jsonl", rows)
    scores = measure(virtex, "linear_probe", tmp_path, split="test").document["scores"]
    wanted = sum(len({box["label"] for box in row["boxes"]}) for row in rows[30:]) / (20 * len(scores["by_class"]))
    assert scores["map"] > wanted + 0.15, "the share of images with a label is what guessing gives"


def test_what_is_marked_as_a_crowd_alone_is_neither_learned_nor_tested(virtex):
    box = (0.0, 0.0, 9.0, 9.0)
    images = [scene(seed, "test").image for seed in range(3)]
    things = [(Thing(label="a", box=box),), (Thing(label="a", box=box, crowd=True),), ()]
    records = [
        Record(key=str(i), image=np.asarray(image), things=some) for i, (image, some) in enumerate(zip(images, things))
    ]
    seen = _seen(virtex, Records(ByteLRU(records, ["a"])), ["a"], single=False)
    assert seen.wanted[:, 0].tolist() == [True, False, False]
    assert seen.unsure[:, 0].tolist() == [False, True, False]
    outcome = _sets(seen, seen, ["a"], seen.wanted.any(dim=0), [])
    assert outcome.scores["map"] == 1.0


@pytest.mark.parametrize("name", ["clip", "paligemma", "visualbert", "asif"])
def test_every_image_encoder_gives_features(name):
    found = image_features(rebus.load(f"{name}/scenes", device="cpu"), [scene(0, "test").image, scene(1, "test").image])
    assert len(found) == 2
    assert found.isfinite().all()
    assert not found[0].allclose(found[1])


def test_models_and_data_that_will_not_do():
    image = scene(0, "test").image
    with torch.device("meta"):
        writer = rebus.create("chameleon/7b", text={"num_layers": 1})
    with pytest.raises(UnsupportedTask, match="chameleon has no image encoder"):
        image_features(writer, image)
    unlabelled = ByteLRU([Record(key="0", image=np.asarray(image))])
    with pytest.raises(UsageError, match="no labels"):
        measure(Told(), "linear_probe", unlabelled)
    source = type("Split", (), {"records": lambda _: Records(reader), "others": lambda _, split: Records(reader)})()
    reader = ByteLRU([Record(key="0", image=np.asarray(image), label="b")], ["a"])
    with pytest.raises(RebusError, match='its label "b" is not among the 1 to learn from'):
        run(Told(), source, Options())
