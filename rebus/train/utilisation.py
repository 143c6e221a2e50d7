"""The share of a GPU's arithmetic that training uses: model FLOPs, which leave out what is computed twice, over the
peak of its data sheet (Chowdhery et al., "PaLM", 2022, appendix B)."""

import torch

from rebus import catalog
from rebus.core.errors import RebusError
from rebus.plan.hardware import accelerator_here
from rebus.plan.step import Learning, Step
from rebus.plan.trace_cache import trace_of
from rebus.train.config import TrainConfig
from rebus.train.distributed import Ranks

_PROMPT, _ANSWER = 8, 24  # tokens of a generative model's texts, which differ from batch to batch


class Utilisation:
    """`of(examples a second)` → `{"mfu": share}`; nothing on processors, unknown GPUs and systems without a plan."""

    def __init__(self, config: TrainConfig, place: Ranks):
        self.example, self.peak = 0.0, 0.0
        gpu = accelerator_here() if place.device.type == "cuda" else None
        if gpu is None:
            return
        lora = config.lora
        learning = Learning(frozen=config.freeze, rank=lora.rank if lora else 0, lora=lora.parts if lora else ())
        step = Step(prompt=_PROMPT, answer=_ANSWER, bf16=config.bf16, learning=learning)
        try:
            found = trace_of(catalog.system(str(config.system)), config.model, step)
            self.example = float(found.forward + found.backward)
            self.peak = gpu.peak(config.bf16) * place.ranks
        except RebusError:  # no plan of this system
            self.example = 0.0

    def of(self, examples_per_second: float) -> dict[str, float]:
        """The share, where it is known."""
        return {"mfu": round(self.example * examples_per_second / self.peak, 4)} if self.example else {}


def memory_used(device: torch.device) -> dict[str, float]:
    """The most that a GPU held, as a part of a line of the metrics; nothing elsewhere."""
    if device.type != "cuda":
        return {}
    return {"memory_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 3)}
