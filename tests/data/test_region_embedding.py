"""Regions embedded by a teacher: whole or resumed the folder has the same bytes, and training finds every one."""

import hashlib
import shutil
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from rebus.core.errors import MissingExtra, MissingFile, RebusError, UnknownName, UsageError
from rebus.data.record import BadRecord, Record
from rebus.data.region_embedding import EmbeddingSettings, RegionEmbedding, near_truth
from rebus.data.scene_records import SceneReader
from rebus.data.taught_regions import TaughtRegions
from tests.data.dying import Dead, killed_at

SETTINGS = EmbeddingSettings(truth=True, unit=3)
NUMBER = 8


class ByColour:
    """A teacher who tells the mean colour of a box, and proposes two boxes of the image."""

    def propose(self, image, most):
        return np.array([[0, 0, 20, 20], [10, 10, 40, 30.5]])[:most]

    def embed(self, image, boxes):
        pixels = np.asarray(image, dtype=np.float64)
        means = [pixels[int(b[1]) : int(b[3]) + 1, int(b[0]) : int(b[2]) + 1].mean(axis=(0, 1)) for b in boxes]
        return np.array(means).reshape(-1, 3) / 255

    def embed_labels(self, labels):
        return np.arange(3 * len(labels)).reshape(-1, 3) / 7


def embedding(folder, settings=SETTINGS, reader=None, **source):
    return RegionEmbedding(reader or SceneReader(NUMBER), folder, source, ByColour(), settings)


def bytes_of(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "taught"
    assert embedding(folder).run() == {"embedded": NUMBER}
    return folder


def test_killed_at_every_step_of_writing(whole, tmp_path, monkeypatch):
    wanted, step = bytes_of(whole), 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        try:
            with killed_at(step, monkeypatch):
                embedding(folder).run()
            break
        except Dead:
            missing = pytest.raises(MissingFile, match="resumes an interrupted run")
            with nullcontext() if _finished(folder) else missing:
                TaughtRegions(folder)
        embedding(folder).run()
        assert bytes_of(folder) == wanted, f"killed at step {step}"
    assert step > 15


def _finished(folder):
    return (folder / "regions.jsonl").exists()


def test_what_is_done_is_not_done_again(whole, tmp_path, monkeypatch):
    folder, calls = tmp_path / "taught", []
    see = ByColour.embed
    monkeypatch.setattr(ByColour, "embed", lambda self, image, boxes: calls.append(1) or see(self, image, boxes))

    def interrupted(outcome):
        if len(calls) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedding(folder).run(interrupted)
    assert embedding(folder).done == 6
    calls.clear()
    embedding(folder).run()
    assert len(calls) == NUMBER - 6
    assert bytes_of(folder) == bytes_of(whole)


def test_training_finds_the_regions_of_each_record(whole):
    taught, reader = TaughtRegions(whole), SceneReader(NUMBER)
    assert taught.width == 3
    for row in range(NUMBER):
        record = reader.read(0, row)
        boxes, vectors = taught.of(record.key)
        assert boxes.dtype == np.float32
        assert vectors.dtype == np.float16
        np.testing.assert_array_equal(boxes[: len(record.things)], [thing.box for thing in record.things])
        assert len(boxes) == len(vectors) == 2 * len(record.things)
    assert taught.of("scene train:99") is None
    last = reader.labels[-1]
    np.testing.assert_allclose(
        taught.labels([last, "red circle"]), np.array([[165, 166, 167], [0, 1, 2]]) / 7, rtol=1e-6
    )
    with pytest.raises(UnknownName, match="red circle"):
        taught.labels(["red circel"])
    with pytest.raises(UsageError, match="3 numbers, the detector's 64"):
        taught.check_width(64)


def test_proposals_in_place_of_the_truth(tmp_path):
    embedding(tmp_path / "t", replace(SETTINGS, truth=False, most=1)).run()
    boxes, _ = TaughtRegions(tmp_path / "t").of(SceneReader(1).read(0, 0).key)
    assert boxes.tolist() == [[0, 0, 20, 20]]


def test_boxes_near_the_truth_are_always_the_same_and_within_the_image():
    record = SceneReader(3).read(0, 2)
    found = near_truth(record, (96, 96))
    assert found.tolist() == near_truth(record, (96, 96)).tolist()
    assert found.min() >= 0
    assert found.max() <= 96
    assert near_truth(Record(key="x"), (10, 10)).shape == (0, 4)


class Damaged(SceneReader):
    def read(self, block, row):
        if row in (1, 2):
            raise BadRecord(f"row {row}", "cut off")
        return super().read(block, row)


def test_damaged_records_are_left_out_by_name_up_to_a_share(tmp_path):
    with pytest.raises(RebusError, match=r"2 of 3 records are damaged.*row 1: cut off.*--max-bad"):
        embedding(tmp_path / "strict", reader=Damaged(NUMBER)).run()
    counts = embedding(tmp_path / "mild", replace(SETTINGS, most_damaged=0.7), Damaged(NUMBER)).run()
    assert counts == {"embedded": NUMBER - 2, "damaged": 2}
    assert TaughtRegions(tmp_path / "mild").of(SceneReader(NUMBER).read(0, 1).key) is None


def test_another_teacher_does_not_go_on_in_the_folder(tmp_path):
    embedding(tmp_path / "t", teacher="a").run()
    with pytest.raises(UsageError, match="teacher"):
        embedding(tmp_path / "t", teacher="b").run()


def test_a_damaged_folder_is_named(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "t")
    (tmp_path / "t" / "labels.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(RebusError, match="damaged"):
        TaughtRegions(tmp_path / "t")
    with pytest.raises(MissingFile, match="rebus data regions"):
        TaughtRegions(tmp_path / "nowhere")


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"rebus-vlm\[ray\]"):
        embedding(tmp_path / "t", replace(SETTINGS, over="ray")).run()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context")  # Ray about its own settings
def test_over_ray_the_bytes_are_the_same(whole, tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    with tempfile.TemporaryDirectory(prefix="r") as short:  # the names of Ray's sockets may not be long
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=short, log_to_driver=False, logging_level="error")
        try:
            assert embedding(tmp_path / "t", replace(SETTINGS, over="ray")).run() == {"embedded": NUMBER}
        finally:
            ray.shutdown()
    assert bytes_of(tmp_path / "t") == bytes_of(whole)
