"""Clocks that wait for the device, rounds in turns, and what the device can do at most."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.gpu.setting import Setting, free
from rebus.plan.hardware import accelerator_here


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Of one call, from an idle device to an idle device."""
    wait(device)
    began = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - began


def in_turns(contestants: Mapping[str, Callable[[], Any]], setting: Setting, calls: int) -> dict[str, dict[str, float]]:
    """Seconds of one call by name: median, fastest and slowest of the rounds, each of `calls` calls."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(setting.rounds):
        for name, run in contestants.items():
            run()  # clocks, caches and allocations are those of this contestant again

            def all_calls(run: Callable[[], Any] = run) -> None:
                for _ in range(calls):
                    run()

            found[name].append(seconds_of(all_calls, setting.device) / calls)
    return {name: spread(values) for name, values in found.items()}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "fastest": min(values), "slowest": max(values)}


def peaks(setting: Setting) -> dict[str, Any]:
    """Of the data sheet and as measured here: FLOP/s of a bfloat16 product, bytes/s of a copy, read and written."""
    device = setting.device
    sheet = accelerator_here() if device.type == "cuda" else None
    return {
        "sheet_flops": None if sheet is None else sheet.peak(True),
        "sheet_bandwidth": None if sheet is None else sheet.bandwidth * 1e9,
        "sheet": None if sheet is None else sheet.source,
        "measured_flops": _product(device, 64 if setting.tiny else 8192),
        "measured_bandwidth": _copy(device, 2**16 if setting.tiny else 2**32),
    }


def shares(rate: float, known: Mapping[str, Any], what: str) -> dict[str, float | None]:
    """`rate` over both peaks; None where there is no data sheet. `what`: "flops" or "bandwidth"."""
    sheet = known[f"sheet_{what}"]
    return {
        "share_of_sheet": None if sheet is None else rate / sheet,
        "share_of_measured": rate / known[f"measured_{what}"],
    }


def _product(device: torch.device, side: int) -> float:
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    tries = [seconds_of(lambda: a @ b, device) for _ in range(12)][2:]
    del a, b
    free()
    return 2 * side**3 / statistics.median(tries)


def _copy(device: torch.device, size: int) -> float:
    source = torch.randint(0, 255, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    tries = [seconds_of(lambda: target.copy_(source), device) for _ in range(12)][2:]
    del source, target
    free()
    return 2 * size / statistics.median(tries)


def busiest_kernels(run: Callable[[], Any], device: torch.device, most: int = 10) -> list[dict[str, Any]]:
    """The kernels in which the device spends its time during `run`, with their shares of it."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    where = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiler:
        run()
        wait(device)
    which = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = [
        (float(getattr(row, which)), row.key, row.count) for row in profiler.key_averages() if row.device_type == where
    ]
    total = sum(row[0] for row in rows) or 1.0
    return [
        {"kernel": name[:120], "calls": count, "share": round(time / total, 4), "microseconds": round(time, 1)}
        for time, name, count in sorted(rows, reverse=True)[:most]
    ]
