"""The Cauldron: images with conversations; its columns have the names of OBELICS'."""

import pickle
from pathlib import Path

import pytest

from rebus.data.layouts import open_layout
from rebus.data.layouts.cauldron import Cauldron
from rebus.data.record import BadRecord, LeftOut, Question

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_turns_are_questions_about_the_image(tmp_path: Path) -> None:
    turns = [
        {"user": "What?", "assistant": "A cat", "source": "vqa"},
        {"user": "Who?", "assistant": "", "source": "vqa"},
    ]
    rows = [
        {"images": [{"bytes": b"x", "path": None}], "texts": turns},
        {"images": [{"bytes": b"x", "path": None}] * 2, "texts": turns},
        {"images": [{"bytes": b"x", "path": None}], "texts": [{"user": None, "assistant": "A cat", "source": "vqa"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000.parquet")
    reader = pickle.loads(pickle.dumps(open_layout(tmp_path, split="train")))
    assert isinstance(reader, Cauldron)
    assert reader.sizes == (3,)
    record = reader.read(0, 0)
    assert (record.key, record.image, record.facts) == ("train-00000.parquet:0:0", b"x", {"sources": ["vqa"]})
    assert record.questions == (Question(text="What?", answers=("A cat",)), Question(text="Who?", answers=("",)))
    with pytest.raises(LeftOut, match="2 images; a question is about one"):
        reader.read(0, 1)
    with pytest.raises(BadRecord, match="parquet:0:2: turn 0 of its conversation is no text"):
        reader.read(0, 2)
