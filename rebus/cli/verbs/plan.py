"""Estimate time, memory and cost of pretraining or fine-tuning, before renting GPUs.

Nothing is downloaded, and nothing computed except with --utilisation measured: a training step runs on meta tensors,
and its FLOPs and bytes are counted. The plan ends with its assumptions.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rebus import catalog
from rebus.cli.arguments import positive
from rebus.cli.output import bold, emit, note, say, short_count, table
from rebus.core.errors import UsageError

if TYPE_CHECKING:
    from rebus.plan import Learning, Plan, Settings

_WANTED = {"data": "coyo-700m", "gpus": "8xh100"}
EXAMPLE = "rebus plan siglip/b16-224 --data coyo-700m --gpus 64xh100 --epochs 10"


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="a name from `rebus models`")
    add("--data", metavar="DATA", help="coyo-700m, coco, …, a number of examples like 10M, or a folder")
    add("--gpus", metavar="NxKIND", help="64xh100, 8xa100-80, 'rtx 3060', t4, …")
    add("--epochs", metavar="N", type=_above_zero, help="passes over the data (1)")
    add("--examples", metavar="N", help="total number of examples, like 12.8B, instead of --epochs")
    add("--batch", metavar="N", type=positive, help="global batch size, over all GPUs")
    add("--image-size", metavar="PX", type=positive, help="image size, if not the model's")
    add("--prompt-tokens", metavar="N", type=positive, help="generative models: prompt tokens (16; captioners 1)")
    add(
        "--answer-tokens",
        metavar="N",
        type=positive,
        help="generative models: answer tokens (the rest of 128 or 512, or of the longest text)",
    )
    add("--freeze", metavar="A,B", help="frozen parts: image, text.tokens, …")
    add("--train", metavar="A,B", help="the only trained parts, instead of --freeze")
    add("--lora", metavar="RANK", type=positive, help="LoRA adapters on --train's parts (text), everything else frozen")
    add("--precision", choices=("bf16", "fp32"), default="bf16", help="compute precision (%(default)s)")
    add("--checkpointing", action="store_true", help="activation checkpointing: recompute blocks in the backward pass")
    add("--sharding", choices=("ddp", "fsdp", "fsdp+tp"), help="(default: ddp if it fits, otherwise fsdp)")
    add("--tensor-parallel", metavar="N", type=positive, default=1, help="GPUs per tensor-parallel group (1)")
    add("--utilisation", metavar="FRACTION", help="fraction of the GPU's peak, or: measured (0.4)")
    add("--price", metavar="DOLLARS", type=_above_zero, help="price of a GPU hour")


def run(args: argparse.Namespace) -> int:
    missing = [f"--{name} {example}" for name, example in _WANTED.items() if getattr(args, name) is None]
    if missing:
        raise UsageError(f"plan needs {' and '.join(missing)}, for example")
    from rebus.plan import plan

    found = plan(_settings(args))
    if args.json:
        emit(_document(found))
        return 0
    for line in _lines(found):
        say(line)
    if not found.fits:
        note(f"one example does not fit on this GPU: try {_help(found)}")
    return 0


def _settings(args: argparse.Namespace) -> "Settings":
    from rebus.plan import Settings, read_count, read_data, read_gpus

    number, gpu = read_gpus(args.gpus)
    data = read_data(args.data)
    if args.epochs is not None and args.examples is not None:
        raise UsageError("give --epochs or --examples, not both")
    utilisation, source = _utilisation(args.utilisation)
    return Settings(
        name=args.name,
        data=data,
        number=number,
        gpu=gpu,
        epochs=args.epochs,
        examples=None if args.examples is None else read_count(args.examples, "--examples"),
        batch=args.batch,
        sharding=args.sharding,
        tensor_parallel=args.tensor_parallel,
        bf16=args.precision == "bf16",
        checkpointing=args.checkpointing,
        learning=_learning(args),
        utilisation=utilisation,
        utilisation_from=source,
        prompt=args.prompt_tokens,
        answer=args.answer_tokens,
        image_size=args.image_size,
        price=args.price,
    )


def _learning(args: argparse.Namespace) -> "Learning":
    from rebus.plan import Learning

    frozen, wanted = _listed(args.freeze), _listed(args.train)
    if frozen and wanted:
        raise UsageError("give --freeze or --train, not both")
    if args.lora is None:
        return Learning(frozen=frozen, only=wanted)
    if frozen:
        raise UsageError("--lora freezes everything else automatically: name the parts with adapters with --train")
    return Learning(rank=args.lora, lora=wanted or ("text",))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _utilisation(text: str | None) -> tuple[float, str]:
    from rebus.plan.plan import UTILISATION

    if text is None:
        return UTILISATION, "assumed; give --utilisation"
    if text == "measured":
        return _measured()
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(f"--utilisation: expected a fraction above 0 and up to 1, or: measured; got {text!r}")
    return value, "given"


def _measured() -> tuple[float, str]:
    """Of a few steps of a small model on this machine, which stands for the one that is planned."""
    from rebus.api import create
    from rebus.cli.training_speed import training_speed

    note(f"measuring a few training steps of {catalog.SMALL} on this machine")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = create(catalog.SMALL)
    size = 64 if device == "cuda" else 2
    found = training_speed(
        model.network,
        model.system,
        model.config,
        batch_size=size,
        accumulate=1,
        steps=2,
        compile=False,
        bf16=device == "cuda",
    )
    said = f"measured here with {catalog.SMALL} in its place, batches of {size} on {device}, of {found['peak_from']}"
    if device == "cpu":
        said += "; the utilisation of a CPU is often higher than that of a GPU"
    return min(1.0, found["utilisation"]), said


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0; got {text!r}")
    return value


def _lines(found: "Plan") -> Iterator[str]:
    s = found.settings
    yield bold(f"{s.name} on {s.data.name}, {s.number:,} × {s.gpu.title}")
    yield ""
    yield from _run_lines(found)
    yield ""
    yield from _part_lines(found)
    yield ""
    yield from _memory_lines(found)
    yield ""
    yield bold("assumptions")
    yield from (f"  · {text}" for text in found.assumptions)


def _run_lines(found: "Plan") -> Iterator[str]:
    s = found.settings
    rows = found.batch // found.division.shards
    each = f" = {found.division.shards:,} × {rows:,}" if found.division.shards > 1 else ""
    parts = f", in {found.rounds:,} micro-batches of {found.at_a_time:,}" if found.rounds > 1 else ""
    speed = found.batch / found.step_seconds
    epochs = f"{found.epochs:,.4g} epoch{'' if found.epochs == 1 else 's'}"
    yield f"  {'time':<12}{bold(_duration(found.seconds))}"
    yield f"  {'GPU hours':<12}{_round(found.gpu_hours)}"
    yield f"  {'cost':<12}{bold('$' + _round(found.cost))} at ${found.price:,.2f} a GPU hour"
    yield f"  {'examples':<12}{short_count(found.examples)}, {epochs}"
    yield f"  {'batch':<12}{found.batch:,}{each}{parts}"
    yield f"  {'steps':<12}{found.steps:,} of {_duration(found.step_seconds)}"
    yield f"  {'speed':<12}{_round(speed)} examples/s, {_round(speed / s.number)} per GPU"
    yield f"  {'compute':<12}{_flops(found.step_flops * found.steps)}, {found.model_utilisation:.0%} of the peak" + (
        " without recomputed work" if found.step_flops > found.model_flops else ""
    )


def _part_lines(found: "Plan") -> Iterator[str]:
    head = ("part", "parameters", "trained", "forward", "backward", "recompute")
    rows = [
        (
            p.title,
            f"{p.params:,}",
            f"{p.trained:,}" if p.trained != p.params else "all" if p.params else "",
            _giga(p.forward),
            _giga(p.backward),
            _giga(p.again),
        )
        for p in found.parts
    ]
    loss, trace = found.loss_flops, found.trace
    if loss:  # of a contrastive one, which is not in the trace
        title, params, trained, *_ = rows[-1]
        rows[-1] = (title, params, trained, _giga(loss // 3), _giga(loss - loss // 3), "")
    total, learns, forward, backward, again = (trace.params, trace.trained, trace.forward, trace.backward, trace.again)
    sums = (_giga(forward + loss // 3), _giga(backward + loss - loss // 3), _giga(again))
    rows.append(("total", f"{total:,}", "all" if learns == total else f"{learns:,}", *sums))
    for number, line in enumerate(table(head, rows, right=(1, 2, 3, 4, 5))):
        yield line if number else line + bold("   GFLOP per example")
    step, again_step = found.step_flops / 1e9, (found.step_flops - found.model_flops) / 1e9
    twice = f", of which {_flops(again_step * 1e9)} recomputed" if again_step > 0.5 else ""
    yield f"a step of {found.batch:,}: {_flops(step * 1e9)}{twice}"


def _memory_lines(found: "Plan") -> Iterator[str]:
    m, s = found.memory, found.settings
    room, spare = found.available, found.settings.gpu.memory * 1e9 - found.available
    yield bold(f"memory per GPU, {found.division.sharding}")
    frozen = s.bf16 and found.trace.trained < found.trace.params
    weights = "float32, frozen matrices bfloat16" if frozen else "float32"
    gathered = found.division.shards > 1 and found.division.sharding != "ddp"
    kinds = " and ".join(["bfloat16"] * s.bf16 + ["gathered float32"] * gathered)
    contrast = found.trace.contrast
    loss = "in chunks" if contrast and contrast.chunk else "all pairs"
    activations = f"{found.at_a_time:,} × {_bytes(m.an_example)}" + (", recomputed" if s.checkpointing else "")
    for title, size, comment in (
        ("weights", m.weights, weights),
        ("copies", m.copies, kinds),
        ("gradients", m.gradients, "float32"),
        ("optimiser", m.optimiser, "optimizer moments"),
        ("loss", m.loss, loss),
        ("activations", m.activations, activations),
        ("reserve", int(spare), f"{spare / s.gpu.memory / 1e9:.0%}"),
    ):
        if size:
            yield f"  {title:<12}{_bytes(size):>10}  {_gauge(size / s.gpu.memory / 1e9)}{comment}"
    total = m.total + spare
    verdict = "fits" if m.total <= room else "DOES NOT FIT"
    yield f"  {'total':<12}{_bytes(int(total)):>10}  of {s.gpu.memory:,.4g} GB: {verdict}"
    yield f"  {'max batch':<12}" + (f"{found.most:,} examples per GPU" if found.most else "not even one example")
    if found.exchanged:
        need = found.exchanged / found.step_seconds
        bandwidth = f"{_bytes(int(need))}/s to overlap with computation"
        yield f"  {'network':<12}{_bytes(found.exchanged)} per step and GPU: {bandwidth}"


def _gauge(share: float, width: int = 20) -> str:
    full = min(width, round(width * share))
    bar = "█" * full or "▏"
    return bar.ljust(width, "·") + "  "


def _help(found: "Plan") -> str:
    s = found.settings
    ways = [
        "" if s.checkpointing else "--checkpointing",
        "" if found.division.sharding != "ddp" or s.number == 1 else "--sharding fsdp",
        "" if s.learning.rank else "--lora 16",
        "" if found.memory.loss < found.available / 2 else "a smaller --batch",
        "a GPU with more memory",
    ]
    return ", ".join(way for way in ways if way)


def _document(found: "Plan") -> dict[str, Any]:
    s, m = found.settings, found.memory
    return {
        "model": s.name,
        "data": dataclasses.asdict(s.data),
        "gpus": {"number": s.number, **dataclasses.asdict(s.gpu)},
        "parts": [dataclasses.asdict(p) for p in found.parts],
        "loss_flops": found.loss_flops,
        "flops_per_step": found.step_flops,
        "model_flops_per_step": found.model_flops,
        "memory": {**dataclasses.asdict(m), "total": m.total, "available": found.available, "fits": found.fits},
        "division": dataclasses.asdict(found.division),
        "precision": "bf16" if s.bf16 else "fp32",
        "checkpointing": s.checkpointing,
        "learning": dataclasses.asdict(s.learning),
        "image_size": max(found.trace.image_size) if found.trace.image_size else None,
        "patches": found.trace.patches,
        "text_tokens": found.trace.text,
        "largest_batch_per_gpu": found.most,
        "batch": found.batch,
        "examples_at_a_time": found.at_a_time,
        "accumulate": found.rounds,
        "examples": found.examples,
        "epochs": found.epochs,
        "steps": found.steps,
        "seconds_per_step": found.step_seconds,
        "examples_per_second": found.batch / found.step_seconds,
        "exchanged_bytes_per_step": found.exchanged,
        "utilisation": s.utilisation,
        "model_utilisation": found.model_utilisation,
        "days": found.seconds / 86400,
        "gpu_hours": found.gpu_hours,
        "price": found.price,
        "cost": found.cost,
        "assumptions": list(found.assumptions),
    }


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.1f}" if flops >= 5e7 else f"{flops / 1e9:.3f}" if flops else ""


def _round(value: float) -> str:
    """Three digits: more would be a pretence."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"


def _flops(value: float) -> str:
    for unit, size in (("ZFLOP", 1e21), ("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if value >= size:
            return f"{_round(value / size)} {unit}"
    return f"{_round(value / 1e9)} GFLOP"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{_round(seconds / size)} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
