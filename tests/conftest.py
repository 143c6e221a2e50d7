"""Shared by all tests: shape annotations are checked, the network is off, and development data may be absent."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

if not os.environ.get("REBUS_NO_SHAPE_CHECKS"):
    install_import_hook(["rebus.nn", "rebus.backbones", "rebus.models"], "beartype.beartype")


# Processes that tests start share one that has imported what is slow.
multiprocessing.set_forkserver_preload(
    ["tests.train.settings", "torch.distributed.fsdp", "rebus.data.downloading", "rebus.data.resize_images"]
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data beside the checkout; tests that need it are skipped without it."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("development data (../shared/data) is not there")
    return path


@pytest.fixture(autouse=True)
def _few_threads():
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """A runner that was started in the background inherits ignored interrupts; tests of Ctrl-C need them heard."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
