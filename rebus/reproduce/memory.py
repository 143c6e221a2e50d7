"""`python -m rebus.reproduce.memory softmax 4096 512 0`: peak megabytes of a loss and its gradients, as JSON.

What features and gradients take themselves is taken off. Watched from a thread, by the memory that the system counts.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import RebusError
from rebus.core.outputs import Embeddings
from rebus.core.strict_json import to_json
from rebus.objectives import sigmoid_contrastive, softmax_contrastive

LOSSES: dict[str, Callable[[Embeddings], Tensor]] = {
    "sigmoid": lambda embeddings: sigmoid_contrastive(embeddings).loss,
    "softmax": lambda embeddings: softmax_contrastive(embeddings).loss,
}
_STATUS = Path("/proc/self/statm")


def megabytes(loss: str, number: int, width: int, seed: int) -> float:
    """Of one batch. Raises `RebusError` where the system does not report the memory of a process."""
    if not _STATUS.exists():
        raise RebusError("memory is measured through /proc/self/statm, which this system has not: use Linux")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    LOSSES[loss](_features(64, width)).backward()  # what is loaded at the first call is not the loss's
    batch = _features(number, width)
    before = _resident()
    with _watched() as most:
        LOSSES[loss](batch).backward()
    return round((max(most) - before) / 2**20, 1)


def _features(number: int, width: int) -> Embeddings:
    image, text = (F.normalize(torch.randn(number, width), dim=1).requires_grad_() for _ in range(2))
    image.grad, text.grad = torch.zeros_like(image), torch.zeros_like(text)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (10.0, -10.0))
    return Embeddings(image, text, scale, bias)


def _resident() -> int:
    return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _watched() -> Iterator[list[int]]:
    """A list that grows with what the process takes, some hundred times a second."""
    seen, over = [_resident()], threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(_resident())
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        seen.append(_resident())
        over.set()
        thread.join()


if __name__ == "__main__":
    print(to_json(megabytes(sys.argv[1], *(int(word) for word in sys.argv[2:5]))))
