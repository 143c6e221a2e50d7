"""Small folders of drawn images, and the bundled CLIP of the scenes world to index them."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lancedb")

from rebus import catalog
from rebus.data.scenes import scene
from rebus.index.report import Options, Report
from rebus.index.update import update_index

MODEL = "clip/scenes"


@pytest.fixture(autouse=True)
def _bundled():
    if MODEL not in catalog.bundled():
        pytest.skip(f"{MODEL} is not in this copy of the package")


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(number, "test").image.resize((48, 48)).save(path, format="PNG")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve different images in a folder and one below it."""
    folder = tmp_path / "photos"
    for number in range(12):
        draw(folder / ("deep" if number % 2 else "") / f"{number:02d}.png", number)
    return folder


Run = Callable[..., Report]


@pytest.fixture
def index(tmp_path) -> Run:
    """`index(folder, prune=True)`: one run into `tmp_path/index`."""

    def run(folder: Path, where: Path | str | None = None, **options) -> Report:
        settings = {"model": MODEL, "batch": 4, "threads": 1, **options}
        return update_index(folder, Options(**settings), str(where or tmp_path / "index"))

    return run
