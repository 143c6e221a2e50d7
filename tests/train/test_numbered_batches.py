"""Batches that workers make, and what they raise."""

from typing import Any, cast

import pytest
import torch

from rebus.core.errors import RebusError, UsageError
from rebus.data.record_batches import Batches
from rebus.train.numbered_batches import NumberedBatches


class Counting:
    """Batch n holds n; the third cannot be made."""

    def batch(self, seed: int, index: int, batch_size: int, split: str, share: tuple[int, int]) -> dict[str, Any]:
        if index == 2:
            raise UsageError("photo 7 is damaged")
        return {"number": torch.tensor([index])}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_of_a_worker_is_one_line_in_its_place(workers: int) -> None:
    batches = NumberedBatches(cast(Batches, Counting()), 0, 4, "train", (0, 1)).of(range(5), workers, False)
    assert int(next(batches)["number"]) == 0
    assert int(next(batches)["number"]) == 1
    with pytest.raises(RebusError) as caught:
        next(batches)
    assert (type(caught.value), str(caught.value)) == (UsageError, "photo 7 is damaged")
