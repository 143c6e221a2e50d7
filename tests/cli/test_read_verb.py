"""read: lines of writing with their corners."""

import json
from types import SimpleNamespace

import pytest

from rebus import catalog
from rebus.cli.verbs import read
from rebus.core.answers import TextLine


@pytest.fixture
def reader(monkeypatch):
    """No model in the package reads yet, so what one would read is given."""
    line = TextLine("NO EXIT", ((1.0, 2.0), (30.0, 2.5), (30.0, 9.0), (1.0, 8.0)), 0.875)

    def open_model(args, task):
        assert task == "read"
        return SimpleNamespace(
            card=catalog.info("florence2/base-ft"), read=lambda images, **_: [[line] for _ in images]
        )

    monkeypatch.setattr(read, "open_model", open_model)


def test_lines_and_their_corners(reader, pictures, run):
    assert run("read", pictures / "a.png")[:2] == (0, "NO EXIT  1 2  30 2  30 9  1 8  0.88\n")
    code, out, _ = run("read", pictures, pictures / "nowhere.png", "--json")
    document = json.loads(out)
    assert (code, document["model"], document["failed"]) == (1, "florence2/base-ft", 1)
    lines = document["results"][0]["lines"]
    assert lines == [{"text": "NO EXIT", "corners": [[1.0, 2.0], [30.0, 2.5], [30.0, 9.0], [1.0, 8.0]], "score": 0.875}]


def test_a_model_that_cannot_read_and_none_at_all(bundled, pictures, run):
    code, out, err = run("read", pictures / "a.png", "--model", "paligemma/scenes")
    assert (code, out) == (2, "")
    assert "paligemma/scenes cannot read; models that can: florence2/" in err
    code, out, err = run("read", pictures / "a.png")
    assert (code, out) == (1, "")
    assert "no model on this machine can read photos" in err
    assert "florence2/base" in err
