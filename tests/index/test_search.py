"""Questions to an index: exact nearest images, conditions, sums of terms, labels."""

import os
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

import rebus
from rebus.core.errors import RebusError, UnknownName, UsageError
from rebus.data.scenes import scene
from rebus.index import snapshot as snapshots
from rebus.index.conditions import Conditions, read_date, read_label, read_size
from rebus.index.search import Term, open_index
from tests.index.conftest import MODEL, draw


@pytest.fixture
def found(photos, index, tmp_path):
    """An index of 24 images of three formats and two sizes, a year apart."""
    for number in range(12, 24):
        path = photos / "more" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        taken = Image.Exif()
        taken[0x0132] = f"{2000 + number}:06:15 12:00:00"
        scene(number, "test").image.resize((96, 60)).save(path, quality=95, exif=taken)
    index(photos, labels=("a red circle", "a blue square", "a green triangle"))
    return open_index(photos, str(tmp_path / "index"))


def test_words_find_what_the_model_finds(found, photos):
    model = rebus.load(MODEL)
    files = [str(photos / os.fsdecode(path)) for path in found.snapshot.paths]
    expected = model.match(files, ["a red circle"])[:, 0].numpy()
    hits = found.search("a red circle", number=None)
    assert [hit.path for hit in hits] == [files[i] for i in np.argsort(-expected, kind="stable")]
    assert np.abs(np.array([hit.score for hit in hits]) - np.sort(expected)[::-1]).max() < 1e-5


def test_an_image_finds_itself(found, photos, tmp_path):
    hit = found.search([Term(image=str(photos / "04.png"))], number=1)[0]
    assert hit.path == str(photos / "04.png")
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert "whole" not in found._models  # its vector is in the index
    draw(tmp_path / "other.png", 4)
    hit = found.search([Term(image=str(tmp_path / "other.png"))], number=1)[0]
    assert hit.path == str(photos / "04.png")


def test_terms_are_balanced_and_weighted(found, photos):
    """Both parts count, however far apart similarities to images and to words are; what is subtracted falls."""
    image, words = Term(image=str(photos / "04.png")), Term(text="a blue square")
    of_image, of_words = (found.snapshot.scores(found.question([one])) for one in (image, words))
    both = found.snapshot.scores(found.question([image, words]))
    apart = np.corrcoef([of_image, of_words, both])[2]
    assert min(apart[:2]) > 0.4
    mostly = found.snapshot.scores(found.question([Term(image=image.image, weight=10), words]))
    assert np.corrcoef(mostly, of_image)[0, 1] > 0.98
    minus = found.snapshot.scores(found.question([image, Term(text=words.text, weight=-1)]))
    assert np.corrcoef(minus, of_words)[0, 1] < apart[1] - 0.3


@pytest.mark.parametrize(
    "conditions, names",
    [
        (Conditions(kinds=("jpg",)), {f"{n}.jpg" for n in range(12, 24)}),
        (Conditions(under="deep"), {f"{n:02d}.png" for n in range(1, 12, 2)}),
        (Conditions(larger=(60, 96)), {f"{n}.jpg" for n in range(12, 24)}),
        (Conditions(larger=(97, 1)), set()),
        (Conditions(since=read_date("2015"), until=read_date("2017-06", end=True)), {"15.jpg", "16.jpg", "17.jpg"}),
        (Conditions(under="more/", until=read_date("2013")), {"12.jpg"}),
    ],
)
def test_conditions_leave_as_many_as_meet_them(found, conditions, names):
    """Also where all of them are far down the list of the similar."""
    hits = found.search("a red circle", conditions=conditions, number=12)
    assert {os.path.basename(hit.path) for hit in hits} == names
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    dated = found.search("a red circle", conditions=conditions, number=12, by_date=True)
    assert {hit.path for hit in dated} == {hit.path for hit in hits}
    assert [hit.taken for hit in dated] == sorted((hit.taken for hit in dated), reverse=True)


def test_labels_are_those_of_classify(found, photos):
    model = rebus.load(MODEL)
    files = [str(photos / os.fsdecode(path)) for path in found.snapshot.paths]
    ranked = model.classify(files, list(found.manifest.labels))
    expected = {file for file, one in zip(files, ranked, strict=True) if dict(one)["a red circle"] > 0.5}
    assert 0 < len(expected) < 24
    conditions = Conditions(labels=(read_label("a red circle > 0.5"),))
    assert {hit.path for hit in found.search((), conditions=conditions, number=None)} == expected
    with pytest.raises(UnknownName, match="a red circle"):
        found.search((), conditions=Conditions(labels=(("a red circel", ">", 0.5),)))


def test_without_words_the_newest_come_first(found):
    hits = found.search((), conditions=Conditions(kinds=("jpeg",)), number=3)
    assert [os.path.basename(hit.path) for hit in hits] == ["23.jpg", "22.jpg", "21.jpg"]
    assert datetime.fromtimestamp(hits[0].taken) == datetime(2023, 6, 15, 12)


def test_words_load_the_text_encoder_alone(found, photos, tmp_path):
    code = (
        "import sys; from rebus.cli import main\n"
        f"where = {str(tmp_path / 'index')!r}\n"
        f"code = main(['search', {str(photos)!r}, 'a red circle', '--index', where, '--top', '2'])\n"
        "bad = {'timm', 'torchvision', 'lancedb', 'transformers'} & set(sys.modules)\n"
        "print(sorted(bad)); sys.exit(bool(bad) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(".png") + done.stdout.count(".jpg") == 2


@pytest.mark.parametrize("width", [64, 50])
def test_screened_search_is_exact(tmp_path, monkeypatch, width):
    """Over bytes first, by a bound: the same rows and scores as a product in float32, ties and all."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((20, width))
    vectors = centres[random.integers(20, size=5000)] + 0.3 * random.standard_normal((5000, width))
    vectors[1000:1010] = vectors[0]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = made_index(tmp_path, vectors, monkeypatch)
    for number in range(20):
        query = vectors[number * 7] if number % 2 else random.standard_normal(width).astype(np.float32)
        query /= np.linalg.norm(query)
        kept = random.random(5000) < (1 if number < 10 else 0.01)
        expected = np.flatnonzero(kept)
        scores = vectors @ query
        expected = expected[np.lexsort((expected, -scores[expected]))][:10]
        rows, found = index._nearest(query, kept, 10)
        assert np.abs(found[rows] - scores[expected]).max() < 1e-6
        assert set(rows[found[rows] > scores[expected].min() + 1e-6]) <= set(expected)
    screened, slack = index.snapshot.screened(query)
    assert np.abs(screened - scores).max() <= slack


def made_index(tmp_path, vectors, monkeypatch):
    """An index of vectors without images."""
    import pyarrow as pa

    from rebus.index.manifest import FILE, Manifest
    from rebus.index.store import Store, arrow_schema

    monkeypatch.setattr(snapshots, "SCREENED", 1000)
    number, width = vectors.shape
    store = Store(str(tmp_path / "index" / "tables"), "made")
    store.create(width)
    zeros = [0] * number
    columns = {
        "id": range(number), "path": [b"%06d.jpg" % i for i in range(number)], "size": zeros, "mtime": zeros,
        "hash": [i.to_bytes(16, "big") for i in range(number)], "missing": [False] * number, "error": [None] * number,
        "width": zeros, "height": zeros, "format": ["JPEG"] * number, "taken": zeros, "look": [bytes(64)] * number,
        "caption": [None] * number, "vector": list(vectors),
    }  # fmt: skip
    schema = arrow_schema(width)
    store.add(pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}))
    name = snapshots.write_snapshot(store, tmp_path / "index", width)
    manifest = Manifest(
        root=str(tmp_path), model=MODEL, text_print="", image_print="", width=width, dtype="float32", table="made",
        uri=store.uri, snapshot=name,
    )  # fmt: skip
    manifest.write(tmp_path / "index" / FILE)
    return open_index(tmp_path, str(tmp_path / "index"))


def test_approximate_search_over_partitions(tmp_path, monkeypatch):
    """With its index in place the table answers; the true nearest are among them, and conditions hold."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((50, 32))
    vectors = centres[random.integers(50, size=4000)] + 0.2 * random.standard_normal((4000, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = made_index(tmp_path, vectors, monkeypatch)
    from rebus.index.store import Store

    store = Store(index.manifest.uri, "made")
    index.exact = False
    everything = np.ones(4000, dtype=bool)
    assert index._approximate(vectors[0], everything, 10) is None  # there are no partitions yet
    store.partition(32)
    assert store.partitioned
    index._models.clear()
    assert index._approximate(vectors[0], np.arange(4000) < 40, 10) is None  # too few are left
    hit = 0
    for number in range(20):
        query = vectors[number * 11]
        kept = np.ones(4000, dtype=bool) if number % 2 else np.arange(4000) % 2 == 0
        rows, scores = index._nearest(query, kept, 10)
        exact = vectors @ query
        assert kept[rows].all()
        assert len(rows) == 10
        assert np.abs(scores[rows] - exact[rows]).max() < 1e-5
        expected = np.flatnonzero(kept)[np.argsort(-exact[kept], kind="stable")][:10]
        hit += len(set(rows) & set(expected))
    assert hit >= 0.95 * 200
    assert "store" in index._models


def test_conditions_in_words():
    assert read_label("a dog>0.5") == ("a dog", ">", 0.5)
    assert read_label("x > y < .25") == ("x > y", "<", 0.25)
    assert read_size("1920x1080") == (1920, 1080)
    assert datetime.fromtimestamp(read_date("2024-02", end=True)) == datetime(2024, 3, 1)
    assert datetime.fromtimestamp(read_date("2024-12-31", end=True)) == datetime(2025, 1, 1)
    for read, text in (
        (read_label, "dog"), (read_label, "dog>7"), (read_size, "big"), (read_date, "soon"), (read_date, "9999-12-99"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"expects|a date is"):
            read(text)
    with pytest.raises(UsageError, match="a date is"):
        read_date("9999", end=True)


def test_other_weights_are_refused(found):
    object.__setattr__(found.manifest, "text_print", "0" * 32)
    with pytest.raises(RebusError, match="other weights"):
        found.search("a red circle")
