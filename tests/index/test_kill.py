"""`kill -9` at random moments of runs over a changing folder: nothing twice, nothing lost, the same vectors.

REBUS_KILL_IMAGES=20000 makes the folder as large as a real one, for several minutes.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rebus.index.manifest import FILE, NEXT, WRITING, read_manifest
from rebus.index.search import Index, open_index
from rebus.index.store import Store
from tests.index.conftest import MODEL, draw

IMAGES, KILLS = int(os.environ.get("REBUS_KILL_IMAGES", "300")), 20
# Imports once, then forks a process for each run and kills it: starting Python twenty times would take a minute.
RUNNER = """
import json, os, signal, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import lancedb, torch
import rebus.api, rebus.index.engine, rebus.index.text_encoder
from rebus.index import writer
from rebus.index.report import Options
from rebus.index.update import update_index
torch.set_num_threads(1)
writer._ROWS = int(sys.argv[1])
for line in sys.stdin:
    root, where, model, delay, prune = json.loads(line)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            update_index(Path(root), Options(model=model, batch=8, threads=1, prune=prune), where)
            code = 0
        finally:
            os._exit(code)
    if delay is not None:
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
    print(os.waitpid(process, 0)[1], flush=True)
"""


@pytest.fixture
def run():
    """`run(root, index, delay, prune)`: one run in a process of its own, killed after `delay` seconds; its exit
    status."""
    command = [sys.executable, "-c", RUNNER, str(max(16, IMAGES // 40))]  # rows of a commit
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:

        def one(root: Path, where: Path, delay: float | None = None, prune: bool = False) -> int:
            print(json.dumps([str(root), str(where), MODEL, delay, prune]), file=runner.stdin, flush=True)
            return int(runner.stdout.readline())

        yield one
        runner.stdin.close()


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path, run):
    photos, random_ = tmp_path / "photos", random.Random(0)
    for number in range(IMAGES):
        draw(photos / f"{number % 7}" / f"{number}.png", number)
    assert run(photos, tmp_path / "first") == 0  # what is imported on first use is there
    assert run(photos, tmp_path / "whole") == 0
    change(photos, KILLS)
    began = time.perf_counter()
    assert run(photos, tmp_path / "whole") == 0
    taken = time.perf_counter() - began
    killed = 0
    for turn in range(KILLS):
        killed += run(photos, tmp_path / "index", random_.uniform(0, taken)) != 0
        if (tmp_path / "index" / FILE).exists():  # what a search would read is whole
            assert open_index(photos, str(tmp_path / "index")).snapshot.verify() == []
        change(photos, turn)  # as much work for the next one
    assert killed > KILLS // 2
    # A file that changed and moved between two whole runs is a new one, and the row of the old one stays till --prune.
    assert run(photos, tmp_path / "index", prune=True) == 0
    assert run(photos, tmp_path / "whole", prune=True) == 0
    found, whole = (open_index(photos, str(tmp_path / name)) for name in ("index", "whole"))
    check_equal(found, whole)
    assert len(found) == IMAGES
    for name in (NEXT, WRITING):
        assert not (tmp_path / "index" / name).exists()
    assert not [path for path in (tmp_path / "index").iterdir() if path.name.startswith(".snap")]


def change(photos: Path, turn: int) -> None:
    """Other pixels in every sixth image, and a folder that goes by another name every other turn."""
    first, second = photos / "6", photos / "moved"
    if first.exists():
        first.rename(second)
    else:
        second.rename(first)
    for number in range(turn % 6, IMAGES, 6):
        file = photos / f"{number % 7}" / f"{number}.png"
        if file.exists():
            with Image.open(file) as image:
                other = image.convert("RGB")
            other.putpixel((turn % 48, number % 48), (turn * 10 % 256, 7, number % 256))
            other.save(file)


def check_equal(found: Index, whole: Index) -> None:
    manifest = read_manifest(found.place.folder / FILE)
    store = Store(manifest.uri, manifest.table)
    assert store.count() == len(found.snapshot.paths) == len(set(found.snapshot.paths))
    assert found.snapshot.paths == whole.snapshot.paths
    assert len(set(found.snapshot.rows["id"].to_pylist())) == store.count()
    one, other = np.array(found.snapshot.vectors), np.array(whole.snapshot.vectors)
    assert (one * other).sum(axis=1).min() >= 1 - 1e-6
    for words in ("a red circle", "a blue square", "a green triangle"):
        first, second = (index.search(words, number=10) for index in (found, whole))
        assert [os.fsencode(hit.path) for hit in first] == [os.fsencode(hit.path) for hit in second]
