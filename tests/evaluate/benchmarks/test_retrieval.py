import numpy as np
import pytest

from rebus.core.errors import UsageError
from rebus.data.record import Record
from rebus.data.scenes import scene
from rebus.evaluate import evaluate
from rebus.evaluate.benchmarks.retrieval import _rank
from rebus.evaluate.measure import measure
from rebus.evaluate.metrics import recall_at_1
from tests.evaluate.benchmarks.samples import ByteLRU, Told, coco, png

TABLE = np.array(
    [  # own captions: 0 1 | 2 | 3 4
        [0.1, 0.8, 0.9, 0.0, 0.2],  # its best comes second
        [0.0, 0.0, 0.5, 0.5, 0.1],  # equal to another that lies behind: first
        [0.9, 0.7, 0.6, 0.5, 0.4],  # its best comes fourth
    ]
)


def three(folder):
    captions = [("a0", "a1"), ("b0",), ("c0", "c1")]
    return ByteLRU([Record(key=str(n), image=png(folder, n), captions=own) for n, own in enumerate(captions)])


def match_of(table):
    def match(images, texts):
        rows = [next(n for n in range(3) if scene(n, "test").image.tobytes() == image.tobytes()) for image in images]
        assert texts == ["a0", "a1", "b0", "c0", "c1"]
        return table[rows]

    return Told(match=match)


def test_counted_by_hand(tmp_path):
    result = measure(match_of(TABLE), "retrieval", three(tmp_path), batch_size=2)
    found = result.document["scores"]
    assert found["image_to_text"] == pytest.approx({"r1": 1 / 3, "r5": 1.0, "r10": 1.0, "median_rank": 2.0})
    # caption → images: a0 .1 .0 .9 second; a1 .8 first; b0 .9 .5 .6 third; c0 0 .5 .5 second; c1 .2 .1 .4 first
    assert found["text_to_image"] == pytest.approx({"r1": 2 / 5, "r5": 1.0, "r10": 1.0, "median_rank": 2.0})
    assert [(m.key, m.said) for m in result.outcome.worst] == [("2", "a0"), ("0", "b0")]


def test_equal_scores_rank_as_they_come():
    table = np.array([[1.0, 1.0, 1.0]] * 3)
    assert _rank(table, np.array([0, 1, 2])).tolist() == [1, 2, 3]


def test_pair_by_pair_has_a_limit(tmp_path):
    reader = ByteLRU([Record(key=str(n), image=b"", captions=("x",)) for n in range(2000)])
    with pytest.raises(UsageError, match=r"pair by pair.*--number 447"):
        measure(match_of(TABLE), "retrieval", reader)


def test_two_towers_and_pairs_agree_and_equal_the_scenes_benchmark(tmp_path, clip):
    some = [scene(n, "test") for n in range(100)]
    captions = [one.captions[0] for one in some]
    assert len(set(captions)) == 100
    table = np.asarray(clip.match([one.image for one in some], captions))
    path = coco(tmp_path, some)
    embedded = measure(clip, "retrieval", path).document
    assert embedded["data"]["layout"] == "coco"
    # as rebus.evaluate.scenes counts these hundred
    assert embedded["scores"]["image_to_text"]["r1"] == pytest.approx(recall_at_1(table, captions))
    assert embedded["scores"]["text_to_image"]["r1"] == pytest.approx(recall_at_1(table.T, captions))
    rows = {one.image.tobytes(): row for row, one in zip(table, some, strict=True)}
    pairs = Told(match=lambda images, texts: np.stack([rows[image.tobytes()] for image in images]))
    assert evaluate(pairs, "retrieval", data=path, captions=1) == embedded["scores"]


def test_pictures_without_captions(tmp_path):
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0))])
    with pytest.raises(ValueError, match="a: has no caption"):
        measure(match_of(TABLE), "retrieval", reader)
