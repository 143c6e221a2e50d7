"""No JSON of ours has NaN or infinities, which other readers refuse."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from rebus.core.answers import Box, Mask, Ranking
from rebus.core.strict_json import to_json

ROOT = Path(__file__).parents[2] / "rebus"
NAN, INF = float("nan"), float("inf")


def strictly(text: str):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_numbers_that_are_not_finite_are_null():
    assert strictly(to_json({"a": NAN, "b": [1.5, (INF, -INF)], "c": {"d": "NaN"}})) == {
        "a": None,
        "b": [1.5, [None, None]],
        "c": {"d": "NaN"},
    }
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_finite_values_are_written_as_python_does():
    value = {"é": [1, 2.5, None, True], "a": {}}
    assert to_json(value, indent=1, ensure_ascii=False) == json.dumps(value, indent=1, ensure_ascii=False)


def test_answers_are_strict():
    answers = [Box((NAN, 0, INF, 1), "a", NAN), Mask(np.ones((1, 1), bool), (0, 0, NAN, 1), "a", NAN)]
    box, mask, ranking = [one.to_json() for one in (*answers, Ranking(("a", "b"), (NAN, 0.25)))]
    assert json.dumps([box, mask, ranking], allow_nan=False)
    assert box == {"xyxy": [None, 0, None, 1], "label": "a", "score": None}
    assert (mask["box"], mask["score"]) == ([0, 0, None, 1], None)
    assert ranking == [{"label": "a", "probability": None}, {"label": "b", "probability": 0.25}]


def test_everything_is_written_by_this_one_function():
    other = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and ast.unparse(node.value) == "json":
                other.append(str(path.relative_to(ROOT)))
    assert set(other) == {"core/strict_json.py"}
