"""Training speed on this machine, and its utilisation."""

from typing import Any


def training_speed(
    network: Any, system: Any, config: Any, *, batch_size: int, accumulate: int, steps: int, compile: bool, bf16: bool
) -> dict[str, Any]:
    """What `rebus.train.bench` measures, next to the prediction of `rebus.plan`: FLOPs, utilisation, memory.

    The peak is that of the GPU's data sheet where it is known; elsewhere a large matrix product is timed.
    """
    import torch

    from rebus.plan.memory import Division, memory
    from rebus.plan.step import Step
    from rebus.plan.trace_cache import trace_of
    from rebus.train.bench import bench_train

    found = bench_train(
        network,
        system,
        config,
        batch_size=batch_size,
        accumulate=accumulate,
        steps=steps,
        compile=compile,
        dtype=torch.bfloat16 if bf16 else torch.float32,
    )
    trace = trace_of(system, config, Step(prompt=16, answer=16, bf16=bf16))
    alone = Division(sharding="ddp", shards=1)
    held = memory(trace, alone, batch=batch_size, at_a_time=batch_size // accumulate)
    twice = trace.forward if accumulate > 1 and trace.contrast else 0  # vectors first, then gradients
    example = trace.forward + trace.backward + twice
    peak, source = _peak(found, bf16)
    speed = example * batch_size / found["seconds_per_step"]
    cuda = found["device"].startswith("cuda")
    return {
        **found,
        "trained": trace.trained,
        "flops_per_example": example,
        "flops_per_second": speed,
        "peak_flops": peak,
        "peak_from": source,
        "utilisation": speed / peak,
        "memory_of": "the GPU's" if cuda else "the whole process",
        "planned_memory_bytes": held.total,
    }


def _peak(found: dict[str, Any], bf16: bool) -> tuple[float, str]:
    from rebus.plan.hardware import accelerator_here

    gpu = accelerator_here() if found["device"].startswith("cuda") else None
    if gpu is not None:
        return gpu.peak(bf16), gpu.source
    return found["measured_peak_flops"], f"a large product in {found['dtype']}, timed here"
