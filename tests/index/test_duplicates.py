"""Copies that were re-encoded, resized or turned are one image, shots of a burst are alike, others are neither."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from rebus.codec.decode_image import decode
from rebus.core.errors import UsageError
from rebus.data.scenes import scene
from rebus.index.clusters import clusters
from rebus.index.duplicates import SAME, duplicates
from rebus.index.look import look_of, turned, unit_looks
from rebus.index.read_image import hash_of


def look(image: Image.Image) -> np.ndarray:
    with decode(image) as decoded:
        return np.frombuffer(look_of(decoded), dtype=np.uint8)


def snapshot_of(images: list, vectors: np.ndarray | None = None, contents: list[bytes] | None = None):
    """What duplicates and clusters read of a snapshot."""
    number = len(images) if vectors is None else len(vectors)
    hashes = [hash_of(one) for one in contents] if contents else [hash_of(b"%d" % i) for i in range(number)]
    columns = {
        "width": np.array([one.width for one in images] or [1] * number),
        "height": np.array([one.height for one in images] or [1] * number),
        "size": np.arange(number),
    }
    return SimpleNamespace(
        missing=np.zeros(number, dtype=bool),
        vectors=vectors,
        column=columns.__getitem__,
        looks=lambda: np.stack([look(one) for one in images]),
        rows={"hash": SimpleNamespace(to_pylist=lambda: hashes)},
    )


def reencoded(image: Image.Image, quality: int) -> Image.Image:
    import io

    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def copies(image: Image.Image) -> list[Image.Image]:
    smaller = image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BICUBIC)
    return [
        image,
        reencoded(image, 40),
        smaller,
        image.transpose(Image.Transpose.ROTATE_90),
        smaller.transpose(Image.Transpose.ROTATE_180),
        reencoded(image.transpose(Image.Transpose.ROTATE_270), 60),
    ]


def test_turned_looks_are_looks_of_turned_images():
    image = scene(3, "test").image.resize((90, 60))
    own = unit_looks(look(image)[None])
    for degrees, found in turned(own):
        expected = unit_looks(look(image.rotate(degrees, expand=True))[None])
        assert (found @ expected.T).item() > 0.999, degrees


def test_same_images_are_found_and_no_others():
    """Images in six forms each: pairs by `same`, counted against the truth."""
    originals = [scene(number, "test").image.resize((120, 90)) for number in range(25)]
    images = [copy for one in originals for copy in copies(one)]
    groups = duplicates(snapshot_of(images), "same")
    pairs = [(a, b) for group in groups for i, a in enumerate(group) for b in group[i + 1 :]]
    right = sum(a // 6 == b // 6 for a, b in pairs)
    assert right >= 0.99 * len(pairs)
    assert right >= 0.95 * 25 * 15
    assert all(images[group[0]].width * images[group[0]].height == 120 * 90 for group in groups)


def test_mirrored_and_edited_images_are_not_the_same():
    image = scene(5, "test").image.resize((120, 90))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    stretched = image.resize((200, 60))
    plain = [Image.new("RGB", (60, 60), colour) for colour in ("red", "blue")]
    assert duplicates(snapshot_of([image, mirrored, *plain]), "same") == []
    assert duplicates(snapshot_of([image, stretched]), "same") == []
    brighter = ImageEnhance.Brightness(image).enhance(0.8)
    assert [sorted(group) for group in duplicates(snapshot_of([image, brighter]), "same")] == [[0, 1]]


def test_exact_ones_share_their_bytes():
    images = [scene(1, "test").image] * 4
    snapshot = snapshot_of(images, contents=[b"a", b"b", b"a", b"c"])
    assert duplicates(snapshot, "exact") == [[2, 0]]
    snapshot.missing[2] = True
    assert duplicates(snapshot, "exact") == []


def test_similar_ones_by_their_vectors(monkeypatch):
    from rebus.index import duplicates as module

    monkeypatch.setattr(module, "_BLOCK", 7)  # pairs cross blocks
    random = np.random.default_rng(0)
    vectors = random.standard_normal((30, 64))
    vectors[25] = vectors[3] + 0.1 * random.standard_normal(64)
    vectors[11] = vectors[3] + 0.1 * random.standard_normal(64)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    done = []
    groups = duplicates(snapshot_of([], vectors), "similar", progress=lambda *now: done.append(now))
    assert [sorted(group) for group in groups] == [[3, 11, 25]]
    assert done[-1] == (5, 5)
    assert duplicates(snapshot_of([], vectors), "similar", least=0.9999) == []


def test_what_cannot_be_meant():
    snapshot = snapshot_of([scene(1, "test").image])
    for kind, least in (("alike", None), ("exact", 0.5), ("same", 0.0), ("same", 1.5)):
        with pytest.raises(UsageError):
            duplicates(snapshot, kind, least)
    assert SAME < 1


def test_clusters_are_those_that_were_made():
    random = np.random.default_rng(0)
    centres = random.standard_normal((5, 32))
    of = np.repeat(np.arange(5), [50, 40, 30, 20, 10])
    vectors = centres[of] + 0.1 * random.standard_normal((150, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    snapshot = snapshot_of([], vectors)
    found = clusters(snapshot, 5)
    assert [len(one.rows) for one in found] == [50, 40, 30, 20, 10]
    assert all(len(set(of[one.rows])) == 1 for one in found)
    assert all((np.diff(one.cosines) <= 0).all() for one in found)
    assert [one.rows.tolist() for one in clusters(snapshot, 5)] == [one.rows.tolist() for one in found]
    assert sum(len(one.rows) for one in clusters(snapshot, 150)) == 150
    snapshot.missing[:50] = True
    assert sum(len(one.rows) for one in clusters(snapshot, 3)) == 100
    with pytest.raises(UsageError, match="from 1 to"):
        clusters(snapshot, 151)
