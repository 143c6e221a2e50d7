import json
import math

import pytest

from rebus.train import forgetting


def test_losses_that_are_not_finite_are_said_and_the_json_is_strict(tmp_path):
    forgetting.write_before(tmp_path, {"new": {"loss": 1.5, "spread": math.inf}})
    found = forgetting.write_report(tmp_path, {"new": {"loss": math.nan, "spread": 2.0}})
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == found
    assert found == {"new": {"before": {"loss": 1.5, "spread": None}, "after": {"loss": None, "spread": 2.0}}}
    page = (tmp_path / "report.md").read_text()
    assert "| new | loss | 1.5000 | not finite |" in page
    assert "| new | spread | not finite | 2.0000 |" in page
