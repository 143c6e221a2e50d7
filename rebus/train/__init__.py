"""The training loop: settings → batches → losses → checkpoints → a directory that `rebus.load` opens."""

from rebus.train.config import LoRA, Optim, Start, TrainConfig
from rebus.train.loop import Stopped, train
from rebus.train.overrides import override

__all__ = ["LoRA", "Optim", "Start", "Stopped", "TrainConfig", "override", "train"]
