"""What "detect" teaches of crowds and of images without boxes."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rebus
from rebus.codec.boxes import LOC_1024
from rebus.core.errors import RebusError, UsageError
from rebus.core.specs import Prompts
from rebus.data.file_records import Files, file_batches
from rebus.data.record_batches import RecordBatches

DOG = {"label": "dog", "xyxy": [10, 10, 20, 20]}
CROWD = {"label": "person", "xyxy": [0, 0, 60, 40], "crowd": True}


def batches(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> RecordBatches:
    for n in range(len(rows)):
        Image.new("RGB", (64, 48), (n, 90, 30)).save(folder / f"{n}.png")
    lines = [json.dumps({"file": f"{n}.png", **row}) for n, row in enumerate(rows)]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    files = Files(path=str(folder), split=None, form="detect", **settings)
    return file_batches(files, rebus.load("paligemma/scenes").processor, Prompts(detect="detect {labels}"), LOC_1024)


def taught(data: RecordBatches, count: int) -> tuple[set[tuple[str, str]], list[str]]:
    """Prompts with their answers, and what was called damaged, of `count` batches of two."""
    made, damaged = set(), []
    make = data.source.make

    def keep(record: Any, rng: Any) -> Any:
        example = make(record, rng)
        made.add(example.texts[0])
        return example

    data.source.make = keep  # type: ignore[attr-defined]
    for index in range(count):
        damaged += data.batch(0, index, 2).get("damaged", [])
    return {(row.prompt, row.text) for row in made}, damaged


def test_crowds_are_neither_asked_for_nor_answered(tmp_path: Path) -> None:
    made, damaged = taught(batches(tmp_path, [{"boxes": [DOG, CROWD]}, {"boxes": [CROWD]}]), 3)
    assert made == {("detect dog", LOC_1024.box_tokens((10, 10, 20, 20), (64, 48)) + " dog")}
    assert damaged == []


def test_images_without_boxes_are_left_out_and_no_damage(tmp_path: Path) -> None:
    rows = [{"boxes": [DOG]}, *({"boxes": []} for _ in range(40))]
    made, damaged = taught(batches(tmp_path, rows), 10)
    assert ({prompt for prompt, _ in made}, damaged) == ({"detect dog"}, [])


def test_images_that_nobody_looked_at_are_no_negatives(tmp_path: Path) -> None:
    rows = [{"boxes": [DOG]}] * 4 + [{"boxes": None, "caption": "nobody looked"}] * 4  # one or two are held out
    made, damaged = taught(batches(tmp_path, rows, negatives=True), 10)
    assert made == {("detect dog", LOC_1024.box_tokens((10, 10, 20, 20), (64, 48)) + " dog")}
    assert damaged == []


def test_images_without_boxes_are_negatives_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [{"boxes": [DOG]}, {"boxes": []}, {"boxes": [CROWD]}, {"boxes": None, "caption": "nobody looked"}]
    made, damaged = taught(batches(tmp_path, rows, negatives=True), 40)
    assert {(prompt, text) for prompt, text in made if not text} == {("detect dog", ""), ("detect person", "")}
    assert damaged == []
    crowd_only, _ = taught(batches(tmp_path, [{"boxes": [CROWD]}, {"boxes": [DOG]}], negatives=True), 20)
    assert ("detect person", "") not in crowd_only


def test_labels_known_to_be_absent_are_the_negatives(tmp_path: Path) -> None:
    rows = [{"boxes": [DOG]}, {"boxes": [{**DOG, "label": "ant"}]}, {"boxes": [], "absent": ["ant"]}]
    made, _ = taught(batches(tmp_path, rows * 2, negatives=True), 30)  # one is held out
    assert [prompt for prompt, text in made if not text] == ["detect ant"]


def test_nothing_to_learn_is_said(tmp_path: Path) -> None:
    with pytest.raises(RebusError, match=r"1,000 records have no target, the last: captions\.jsonl.*no boxes"):
        batches(tmp_path, [{"boxes": []}]).batch(0, 0, 1)
    with pytest.raises(UsageError, match=r"has no labels for data\.negatives"):
        batches(tmp_path, [{"boxes": []}], negatives=True)
