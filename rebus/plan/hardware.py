"""Accelerators: what they multiply, hold and cost. Peaks are of dense products that sum in float32.

Prices are round numbers for an hour on demand. They differ threefold between offers and change by the month: give
your own. Those of H100, H200 and A100 80 GB lie within the offers that comparisons listed in May 2026; the others are
estimates.
"""

import re
from dataclasses import dataclass

from rebus.core.errors import UsageError, unknown

_MOST = 1_000_000  # accelerators


@dataclass(frozen=True)
class Accelerator:
    """`half` and `full`: TFLOP/s in bfloat16 (float16 where there is none) and in plain float32."""

    name: str
    title: str
    memory: float  # GB, 10⁹ bytes
    half: float
    full: float | None  # None: not told
    bandwidth: float  # GB/s of its memory
    price: float  # dollars an hour
    source: str

    def peak(self, bf16: bool) -> float:
        """FLOP/s. Raises `UsageError` for a float32 peak that nobody published."""
        if not bf16 and self.full is None:
            raise UsageError(f"{self.title} has no published float32 peak; plan it with --precision bf16")
        return (self.half if bf16 else self.full or 0.0) * 1e12


_ADA = "NVIDIA's specifications; bfloat16 is twice float32, as for the RTX 4090"
_AMPERE = "NVIDIA's specifications; bfloat16 is twice float32, as for the RTX 3090"
_MAKERS = re.compile(r"\b(nvidia|amd|google|geforce|rtx|tesla)[ -]*")  # before a kind: "rtx 3060" is a 3060

GPUS = {
    gpu.name: gpu
    for gpu in (
        Accelerator("b200", "NVIDIA B200", 180, 2250, 75, 8000, 5.00, "NVIDIA DGX B200 data sheet"),
        Accelerator("h200", "NVIDIA H200 SXM", 141, 989.4, 66.9, 4800, 3.50, "NVIDIA H200 data sheet"),
        Accelerator("h100", "NVIDIA H100 SXM", 80, 989.4, 66.9, 3350, 2.50, "NVIDIA H100 data sheet"),
        Accelerator("h100-pcie", "NVIDIA H100 PCIe", 80, 756, 51, 2000, 2.20, "NVIDIA H100 data sheet"),
        Accelerator("a100-80", "NVIDIA A100 80 GB SXM", 80, 312, 19.5, 2039, 1.50, "NVIDIA A100 data sheet"),
        Accelerator("a100-40", "NVIDIA A100 40 GB SXM", 40, 312, 19.5, 1555, 1.20, "NVIDIA A100 data sheet"),
        Accelerator("l40s", "NVIDIA L40S", 48, 362, 91.6, 864, 1.00, "NVIDIA L40S data sheet"),
        Accelerator("l4", "NVIDIA L4", 24, 121, 30.3, 300, 0.50, "NVIDIA L4 data sheet"),
        Accelerator("a10", "NVIDIA A10", 24, 125, 31.2, 600, 0.75, "NVIDIA A10 data sheet"),
        Accelerator("4090", "NVIDIA RTX 4090", 24, 165.2, 82.6, 1008, 0.40, "NVIDIA Ada architecture paper"),
        Accelerator("3090", "NVIDIA RTX 3090", 24, 71, 35.6, 936, 0.25, "NVIDIA GA102 architecture paper"),
        Accelerator("4080", "NVIDIA RTX 4080", 16, 97.5, 48.7, 717, 0.30, _ADA),
        Accelerator("4070", "NVIDIA RTX 4070", 12, 58.3, 29.1, 504, 0.20, _ADA),
        Accelerator("4060", "NVIDIA RTX 4060", 8, 30.2, 15.1, 272, 0.12, _ADA),
        Accelerator("3080", "NVIDIA RTX 3080", 10, 59.5, 29.8, 760, 0.20, "NVIDIA GA102 architecture paper"),
        Accelerator("3060", "NVIDIA RTX 3060", 12, 25.5, 12.7, 360, 0.10, _AMPERE),
        Accelerator("v100-32", "NVIDIA V100 32 GB SXM2", 32, 125, 15.7, 900, 0.60, "NVIDIA V100 data sheet; float16"),
        Accelerator("v100", "NVIDIA V100 16 GB SXM2", 16, 125, 15.7, 900, 0.50, "NVIDIA V100 data sheet; float16"),
        Accelerator("t4", "NVIDIA T4", 16, 65, 8.1, 320, 0.30, "NVIDIA T4 data sheet; float16"),
        Accelerator("mi300x", "AMD MI300X", 192, 1307.4, 163.4, 5300, 3.00, "AMD MI300X data sheet"),
        Accelerator("tpu-v5e", "Google TPU v5e", 16, 197, None, 819, 1.20, "Cloud TPU documentation"),
        Accelerator("tpu-v4", "Google TPU v4", 32, 275, None, 1228, 3.20, "Cloud TPU documentation"),
        Accelerator("tpu-v3", "Google TPU v3, a chip", 32, 123, None, 900, 2.20, "Cloud TPU documentation"),
    )
}


def read_gpus(text: str) -> tuple[int, Accelerator]:
    """`64xh100` → 64 of that kind; `h100` is one, `4x rtx 3060` are four. Raises `UnknownName` or `UsageError`."""
    kind = re.sub(r"(?<=[a-z0-9])[ _]+(?=[a-z0-9])", "-", _MAKERS.sub("", text.strip().lower()))
    found = re.fullmatch(r"(?:(\d+)\s*[x×*][\s-]*)?([a-z0-9][a-z0-9-]*)", kind)
    if found is None:
        raise UsageError(f"--gpus expects a number and a kind, like 64xh100; got {text!r}")
    number, name = int(found[1] or 1), found[2]
    if not 1 <= number <= _MOST:
        raise UsageError(f"--gpus {text}: the number must be from 1 to {_MOST:,}")
    if name not in GPUS:
        raise unknown("GPU", name, GPUS, see=f"Kinds: {', '.join(GPUS)}.")
    return number, GPUS[name]


def accelerator_here() -> Accelerator | None:
    """The GPU of this machine by its name, where it is one of the table."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower()
    likely = sorted((gpu for gpu in GPUS.values() if gpu.name.partition("-")[0] in name), key=lambda gpu: len(gpu.name))
    return likely[0] if likely else None
