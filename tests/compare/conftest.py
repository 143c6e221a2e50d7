"""Stand-ins for the processes of models, which start at once, and images with known labels."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from rebus.compare import process

WORKER = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.read())
name = job["model"]
def tell(**message):
    print(json.dumps(message), flush=True)
if name == "absent":
    print("Traceback (most recent call last):", file=sys.stderr)
    sys.exit("absent: no such model")
tell(ready={"load_seconds": 0.1, "parameters": 7, "device": "cpu", "dtype": "float32", "domain": "photos"})
print("a library says hello", flush=True)
for number, image in enumerate(job["images"]):
    if name == "dies" and number == 3:
        print('{"image": 3, "answ', end="", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        time.sleep(60)
    stem = os.path.basename(image).split(".")[0]
    if stem == "bad":
        tell(image=number, error="bad.png: not an image")
        continue
    true = "cat" if "cat" in stem else "dog"
    wrong = {"good": 0, "twin": 0, "poor": 2, "dies": 0}[name]
    said = true if not wrong or int(stem[3:]) % wrong else {"cat": "dog", "dog": "cat"}[true]
    other = {"cat": "dog", "dog": "cat"}[said]
    answer = [{"label": said, "probability": 0.8}, {"label": other, "probability": 0.2}]
    tell(image=number, answer=answer, seconds=0.25 if name == "twin" else 0.5, peak=1000 * (number + 1))
tell(done=True)
"""


@pytest.fixture
def stand_ins(tmp_path, monkeypatch) -> None:
    """Models: good and twin are always right, poor on every other image; dies, hangs, absent."""
    file = tmp_path / "worker.py"
    file.write_text(WORKER)
    monkeypatch.setattr(process, "WORKER", (sys.executable, "-S", str(file)))


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """Forty images in the folders cat and dog."""
    found = []
    for label in ("cat", "dog"):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(20):
            found.append(str(folder / f"{label}{number:02}.png"))
            Image.new("RGB", (8, 8), (number * 9, 80, 120)).save(found[-1])
    return found


@pytest.fixture
def truth(tmp_path, photos) -> Path:
    """The same labels as a table beside the images, and a row of an image that is not there."""
    rows = [f"{Path(path).parent.name}/{Path(path).name},{Path(path).parent.name}" for path in photos]
    table = tmp_path / "photos" / "truth.csv"
    table.write_text("\n".join(["image,label", *rows, "cat/absent.png,cat"]) + "\n")
    return table
