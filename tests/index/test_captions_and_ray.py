"""Captions beside vectors, and the same vectors from Ray's workers."""

import tempfile

import numpy as np
import pytest

import rebus
from rebus.core.errors import UnsupportedTask
from rebus.index.search import open_index
from tests.index.conftest import MODEL, draw


def test_captions_are_written_once_and_for_new_images(photos, index, tmp_path):
    captioner = "virtex/scenes"
    (photos / "damaged.png").write_bytes(b"no image")
    for number in range(3, 12):
        (photos / ("deep" if number % 2 else "") / f"{number:02d}.png").unlink()
    report = index(photos, captions=captioner)
    assert report.captioned == 3
    found = open_index(photos, str(tmp_path / "index"))
    hits = {hit.path: hit.caption for hit in found.search((), number=None)}
    model = rebus.load(captioner)
    assert list(hits.values()) == model.caption(list(hits))
    draw(photos / "new.png", 30)
    draw(photos / "00.png", 31)
    report = index(photos, captions=captioner)
    assert (report.captioned, report.embedded) == (2, 2)


def test_captions_want_a_model_that_writes(photos, index):
    with pytest.raises(UnsupportedTask, match="does not caption images"):
        index(photos, captions=MODEL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_gives_the_same_vectors(photos, index, tmp_path):
    ray = pytest.importorskip("ray")
    (photos / "damaged.png").write_bytes(b"no image")
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # sockets want short names
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=short, log_to_driver=False, logging_level="error")
        try:
            report = index(photos, engine="ray")
        finally:
            ray.shutdown()
    assert (report.embedded, report.rows, set(report.damaged)) == (12, 12, {"damaged.png"})
    index(photos, where=tmp_path / "local")
    ours, theirs = (open_index(photos, str(tmp_path / name)).snapshot for name in ("local", "index"))
    assert ours.paths == theirs.paths
    assert np.abs(np.array(ours.vectors) - np.array(theirs.vectors)).max() < 1e-5
