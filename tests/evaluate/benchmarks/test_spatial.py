import json

import numpy as np
import pytest

from rebus.core.answers import Ranking
from rebus.core.errors import RebusError, UsageError
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import Told, png, write_json, write_lines

PAIR = ["a cup on the left", "a cup on the right"]
FOUR = ["under", "over", "left of", "right of"]


def liking(liked):
    """Scores the texts in `liked` above all others."""

    def match(images, texts):
        return np.array([[float(text in liked) for text in texts] for _ in images])

    def classify(image, labels):
        order = sorted(labels, key=lambda label: label not in liked)
        return Ranking(tuple(order), tuple(np.linspace(0.6, 0.1, len(order)).tolist()))

    return match, classify


@pytest.fixture
def table(tmp_path):
    rows = [
        {"image": png(tmp_path, 0).name, "captions": PAIR, "label": 0, "relation": "side"},
        {"image": png(tmp_path, 1).name, "captions": PAIR, "label": "a cup on the right", "relation": "side"},
        {"image": png(tmp_path, 2).name, "captions": FOUR, "label": 3, "relation": "place"},
    ]
    return write_lines(tmp_path / "pairs.jsonl", rows)


@pytest.mark.parametrize("task", ["match", "classify"])
def test_by_match_or_by_likelihood(table, task):
    match, classify = liking({PAIR[0], "right of"})
    model = Told(match=match) if task == "match" else Told(classify=classify)
    result = measure(model, "spatial", table, batch_size=2)
    scores = result.document["scores"]
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["chance"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert scores["by_relation"] == {"side": 0.5, "place": 1.0}
    (mistake,) = result.outcome.worst
    assert (mistake.said, mistake.truth) == (PAIR[0], PAIR[1])


def test_whatsup_as_released(tmp_path):
    name = png(tmp_path / "data" / "images", 0).name
    rows = [{"image_path": f"data/images/{name}", "caption_options": FOUR}]
    write_json(tmp_path / "data" / "controlled.json", rows)
    match, _ = liking({"under"})
    assert measure(Told(match=match), "spatial", tmp_path / "data").document["scores"]["accuracy"] == 1.0


def test_captions_in_a_cell_of_csv(tmp_path):
    text = json.dumps(PAIR).replace('"', '""')
    (tmp_path / "t.csv").write_text(f'file,captions,label\n{png(tmp_path, 0).name},"{text}",1\n')
    match, _ = liking({PAIR[1]})
    assert measure(Told(match=match), "spatial", tmp_path / "t.csv").document["scores"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": 2}, "a place from 0 to 1; got 2"),
        ({"captions": ["a"]}, "two texts or more"),
        ({"captions": ["a", "a"]}, "the same"),
        ({"image": "none.png"}, "none.png is missing"),
    ],
)
def test_damaged_rows(tmp_path, changes, reason):
    row = {"image": png(tmp_path, 0).name, "captions": PAIR, "label": 0, **changes}
    match, _ = liking(set())
    with pytest.raises(RebusError, match=reason):
        measure(Told(match=match), "spatial", write_lines(tmp_path / "t.jsonl", [row]))


def test_tables_that_are_none(tmp_path):
    match, _ = liking(set())
    write_lines(tmp_path / "a.jsonl", [{"image": "x.png", "captions": PAIR}])
    with pytest.raises(RebusError, match="no column label"):
        measure(Told(match=match), "spatial", tmp_path)
    write_lines(tmp_path / "b.jsonl", [{"image": "x.png"}])
    with pytest.raises(UsageError, match=r"2 tables; give one of a\.jsonl, b\.jsonl"):
        measure(Told(match=match), "spatial", tmp_path)


@pytest.mark.parametrize(
    "name, image", [("coco_qa_two_obj.json", "val2017/000000000139.jpg"), ("vg_qa_one_obj.json", "vg_images/139.jpg")]
)
def test_whatsup_lists_of_number_true_and_false_caption(tmp_path, name, image):
    where = tmp_path / image
    where.parent.mkdir()
    where.write_bytes(png(tmp_path / "drawn", 0).read_bytes())
    write_json(tmp_path / name, [[139, PAIR[0], PAIR[1]], ["139", PAIR[1], PAIR[0]]])
    match, _ = liking({PAIR[0]})
    assert measure(Told(match=match), "spatial", tmp_path / name).document["scores"]["accuracy"] == 0.5


def test_a_damaged_line_of_whatsup_lists_is_left_out(tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "000000000139.jpg").write_bytes(png(tmp_path / "drawn", 0).read_bytes())
    write_json(tmp_path / "coco_qa_one_obj.json", [[139, *PAIR]] * 20 + [["x", *PAIR]])
    match, _ = liking({PAIR[0]})
    document = measure(Told(match=match), "spatial", tmp_path / "coco_qa_one_obj.json").document
    assert document["scores"]["accuracy"] == 1.0
    assert document["data"]["damaged"]["first"] == [
        "coco_qa_one_obj.json[20]: the image's number should be a whole number; got 'x'"
    ]
