"""Tables in files: mapped, edited, written anew without a trace."""

import json

import pytest
import torch

from rebus.core.errors import BadConfig, MissingFile, UnknownName
from rebus.models.training_free.pairs import Pairs
from rebus.models.training_free.stored import open_pairs, save_pairs
from tests.models.training_free.test_pairs import world


@pytest.fixture
def pairs():
    image, text, *_ = world(120)
    names = [f"p{i}" for i in range(120)]
    return Pairs.of(image.half(), text.half(), k=40, p=4, ids=names, captions=[f"«{n}»" for n in names])


@pytest.mark.parametrize("screens", [True, False])
def test_the_same_bits_from_files(pairs, tmp_path, screens):
    queries_i, queries_t, *_ = world(9, seed=1)
    save_pairs(tmp_path / "table", pairs, shard_rows=50, screens=screens)
    opened = open_pairs(tmp_path / "table")
    assert torch.equal(opened(queries_i, queries_t), pairs(queries_i, queries_t))
    assert opened.ids == pairs.ids
    assert opened.name(77) == ("p77", "«p77»")
    assert len(opened.state_dict()["image"]) == 0  # nothing was copied into the network
    assert json.loads((tmp_path / "table" / "config.json").read_text())["model_type"] == "asif_pairs"


def test_removed_from_files_equals_never_added_and_leaves_no_trace_when_written(pairs, tmp_path):
    queries_i, queries_t, *_ = world(9, seed=1)
    save_pairs(tmp_path / "table", pairs, shard_rows=50)
    opened = open_pairs(tmp_path / "table")
    image, text, *_ = world(10, seed=5)
    opened.add(image, text, [f"new{i}" for i in range(10)])
    gone = ["p0", "p49", "p50", "p119", "new3"]
    opened.remove(gone)
    pairs.add(image, text, [f"new{i}" for i in range(10)])
    assert len(opened) == 125
    stay = [i for i, name in enumerate(pairs.ids) if name not in gone]
    rows = pairs.state_dict()
    never = Pairs.of(rows["image"][stay], rows["text"][stay], k=40, p=4)
    assert torch.equal(opened(queries_i, queries_t), never(queries_i, queries_t))
    with pytest.raises(UnknownName):
        opened.remove(["p49"])
    save_pairs(tmp_path / "again", opened)
    assert open_pairs(tmp_path / "again").ids == opened.ids
    assert b"p119" not in b"".join(f.read_bytes() for f in (tmp_path / "again").iterdir())


def test_ids_are_row_numbers_where_none_were_given(tmp_path):
    image, text, *_ = world(30)
    save_pairs(tmp_path / "table", Pairs.of(image, text))
    opened = open_pairs(tmp_path / "table").with_settings(k=3)
    assert opened.ids[:2] == ["0", "1"]
    assert opened.cfg.k == 3
    opened.remove(["7"])
    assert len(opened) == 29


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(MissingFile):
        open_pairs(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(BadConfig, match="asif_pairs"):
        open_pairs(tmp_path)
