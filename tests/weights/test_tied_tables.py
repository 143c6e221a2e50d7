"""A table under any of its names, once or several times."""

import pytest
import torch

from rebus.core.errors import BadCheckpoint
from rebus.weights.tied_tables import one_table

NAMES = ("shared.weight", "encoder.weight", "head.weight")


@pytest.mark.parametrize("there", [NAMES, NAMES[1:], NAMES[2:], NAMES[:1], ()])
def test_any_of_the_names(there):
    table, other = torch.randn(3, 2), torch.randn(2)
    found = one_table({"norm.weight": other, **{name: table.clone() for name in there}}, NAMES)
    assert set(found) == {"norm.weight", *NAMES[: bool(there)]}
    assert torch.equal(found["norm.weight"].load(), other)
    if there:
        assert torch.equal(found[NAMES[0]].load(), table)


@pytest.mark.parametrize("other", [torch.zeros(3, 2), torch.ones(2, 2)])
def test_tables_that_differ_are_refused(other):
    with pytest.raises(BadCheckpoint, match=r"shared\.weight and head\.weight"):
        one_table({"shared.weight": torch.ones(3, 2), "head.weight": other}, NAMES)
