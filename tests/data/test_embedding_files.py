"""Embeddings in a file: three formats, names beside them, resumed after a kill, damaged items named."""

import json
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.embedding_files import PARTIAL, EmbeddingFile, EmbeddingFileSettings

NAMES = [f"item {i}" for i in range(10)]
SMALL = EmbeddingFileSettings(unit=3, most_failed=0.5)
SOURCE = {"model": "toy"}


class Toy:
    """Items → vectors of their numbers. `bad` ones fail; `stop` is what happens at the item of that number."""

    def __init__(self, bad=(), stop=None):
        self.bad, self.stop, self.calls = set(bad), stop, 0

    def __call__(self, items):
        self.calls += 1
        if self.stop is not None and any(self.stop[0] == name for name in items):
            self.stop[1]()
        failures = {i: f"{name} is damaged" for i, name in enumerate(items) if name in self.bad}
        kept = [name for name in items if name not in self.bad]
        return np.array([[float(name.split()[1]), 1] for name in kept], np.float32).reshape(-1, 2), failures


def read(path):
    """(names, vectors), whatever the format."""
    if path.suffix == ".npy":
        lines = [json.loads(line) for line in path.with_name(path.name + ".jsonl").read_text().splitlines()]
        assert [line["row"] for line in lines] == list(range(len(lines)))
        return [line["name"] for line in lines], np.load(path)
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            assert file.metadata()["model"] == "toy"
            return json.loads(file.metadata()["names"]), file.get_tensor("vectors")
    from pyarrow import parquet

    table = parquet.read_table(path)
    assert table.schema.metadata[b"model"] == b"toy"
    return table["name"].to_pylist(), np.stack(table["vector"].to_pylist()).astype(np.float32)


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".safetensors"])
@pytest.mark.parametrize("bad", [[], ["item 4"], ["item 3", "item 4", "item 5"]], ids=["whole", "one", "a unit"])
def test_names_lie_beside_the_vectors(tmp_path, ending, bad):
    out = tmp_path / f"v{ending}"
    heard = []
    written = EmbeddingFile(NAMES, out, Toy(bad), SOURCE, SMALL).run(heard.append)
    kept = [name for name in NAMES if name not in bad]
    assert written == (len(kept), {name: f"{name} is damaged" for name in bad})
    names, vectors = read(out)
    assert names == kept
    assert vectors.tolist() == [[float(name.split()[1]), 1] for name in kept]
    assert sum(heard) == len(NAMES)
    assert {path.name for path in tmp_path.iterdir()} <= {out.name, f"{out.name}.jsonl"}


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".safetensors"])
def test_an_interrupted_run_goes_on(tmp_path, ending):
    out, whole = tmp_path / f"v{ending}", tmp_path / f"whole{ending}"
    EmbeddingFile(NAMES, whole, Toy(["item 1"]), SOURCE, SMALL).run()

    def interrupt():
        raise KeyboardInterrupt

    work = EmbeddingFile(NAMES, out, Toy(["item 1"], ("item 7", interrupt)), SOURCE, SMALL)
    with pytest.raises(KeyboardInterrupt):
        work.run()
    assert not out.exists()
    assert work.done == 6
    again = Toy(["item 1"])
    assert EmbeddingFile(NAMES, out, again, SOURCE, SMALL).run().failures == {"item 1": "item 1 is damaged"}
    assert again.calls == 2
    assert out.read_bytes() == whole.read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.test_embedding_files import *
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
EmbeddingFile(NAMES, Path(sys.argv[1]), Toy([], ("item 7", die)), SOURCE, SMALL).run()
"""


def test_a_killed_run_goes_on(tmp_path):
    out, whole = tmp_path / "v.npy", tmp_path / "whole.npy"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    again = Toy()
    EmbeddingFile(NAMES, out, again, SOURCE, SMALL).run()
    assert again.calls == 2
    EmbeddingFile(NAMES, whole, Toy(), SOURCE, SMALL).run()
    assert out.read_bytes() == whole.read_bytes()


def test_too_many_failures_stop_it_and_are_tried_again(tmp_path):
    work = EmbeddingFile(NAMES, tmp_path / "v.npy", Toy(NAMES[2:9]), SOURCE, SMALL)
    with pytest.raises(RebusError, match=r"4 of 6 items could not be embedded.*: item 2 is damaged.*--max-bad"):
        work.run()
    assert work.done == 0
    assert EmbeddingFile(NAMES, tmp_path / "v.npy", Toy(), SOURCE, SMALL).run() == (10, {})


def test_nothing_at_all_is_an_error_and_no_file(tmp_path):
    settings = EmbeddingFileSettings(unit=3, most_failed=1)
    with pytest.raises(RebusError, match="not one of 10 items could be embedded: item 0 is damaged"):
        EmbeddingFile(NAMES, tmp_path / "v.npy", Toy(NAMES), SOURCE, settings).run()
    assert not (tmp_path / "v.npy").exists()


def test_other_work_is_not_gone_on_with(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EmbeddingFile(NAMES, tmp_path / "v.npy", Toy([], ("item 7", interrupt)), SOURCE, SMALL).run()
    assert (tmp_path / f"v.npy{PARTIAL}").is_dir()
    with pytest.raises(UsageError, match='was started with model "toy", and now it is "other"'):
        EmbeddingFile(NAMES, tmp_path / "v.npy", Toy(), {"model": "other"}, SMALL).run()
    with pytest.raises(UsageError, match="was started with items 10, and now it is 9"):
        EmbeddingFile(NAMES[1:], tmp_path / "v.npy", Toy(), SOURCE, SMALL).run()


def test_a_changed_image_is_noticed(tmp_path):
    image = tmp_path / "item 1"
    image.write_bytes(b"a")
    before = EmbeddingFile([str(image)], tmp_path / "v.npy", Toy(), SOURCE).units.plan
    image.write_bytes(b"ab")
    assert EmbeddingFile([str(image)], tmp_path / "v.npy", Toy(), SOURCE).units.plan != before


@pytest.mark.parametrize("name", ["v.txt", "v"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.npy, \.parquet, \.safetensors"):
        EmbeddingFile(NAMES, tmp_path / name, Toy(), SOURCE)


def test_odd_names(tmp_path):
    names = ["a\udcff 1", "b\n 2", 'c" 3']
    for ending in (".npy", ".safetensors", ".parquet"):
        EmbeddingFile(names, tmp_path / f"v{ending}", Toy(), SOURCE).run()
    assert read(tmp_path / "v.npy")[0] == read(tmp_path / "v.safetensors")[0] == names
    assert read(tmp_path / "v.parquet")[0][1:] == names[1:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context")  # Ray about its own settings
def test_over_ray_the_bytes_are_the_same(tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    out, whole = tmp_path / "v.npy", tmp_path / "whole.npy"
    EmbeddingFile(NAMES, whole, Toy(["item 1"]), SOURCE, SMALL).run()
    spread = EmbeddingFileSettings(unit=3, engine="ray")
    with tempfile.TemporaryDirectory(prefix="r") as short:  # the names of Ray's sockets may not be long
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=short, log_to_driver=False, logging_level="error")
        try:
            assert EmbeddingFile(NAMES, out, Toy(["item 1"]), SOURCE, spread).run().rows == 9
        finally:
            ray.shutdown()
    assert out.read_bytes() == whole.read_bytes()
