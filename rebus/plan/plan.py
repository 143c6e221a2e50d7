"""Time, memory and money of a training, from its sizes alone."""

import math
from dataclasses import dataclass, field, replace

from rebus.core.errors import UsageError
from rebus.plan.datasets import Collection
from rebus.plan.hardware import Accelerator
from rebus.plan.memory import Division, MemoryUse, Sharding, memory, most_at_a_time, usable
from rebus.plan.step import Learning, Part, Step, Trace
from rebus.plan.trace_cache import trace_by_name

UTILISATION = 0.4
CONTRASTIVE_BATCH, GENERATIVE_BATCH, SMALL_BATCH = 32_768, 8_192, 256
_SMALL = 10_000_000  # examples, below which a generative model is fine-tuned rather than trained
_STEPS, _SMALLEST_BATCH = 200, 32  # of a run on little data, which learns nothing in a handful of steps
_OPTIMISER_TRAFFIC = 28  # bytes of a number: weight, gradient and two moments read, weight and moments written


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked. None: the default, which the plan says."""

    name: str
    data: Collection
    number: int  # GPUs
    gpu: Accelerator
    epochs: float | None = None
    examples: int | None = None
    batch: int | None = None
    sharding: Sharding | None = None
    tensor_parallel: int = 1
    bf16: bool = True
    checkpointing: bool = False
    learning: Learning = field(default_factory=Learning)
    utilisation: float = UTILISATION
    utilisation_from: str = "assumed"
    prompt: int | None = None  # tokens
    answer: int | None = None
    image_size: int | None = None  # pixels
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer. FLOPs are of one example, bytes of one GPU, times in seconds, money in dollars."""

    settings: Settings
    trace: Trace  # of the whole network
    loss_flops: int
    division: Division
    memory: MemoryUse
    available: int
    most: int  # examples at a time that fit on a GPU
    batch: int
    at_a_time: int
    rounds: int  # parts of a batch that go one after another
    examples: int
    epochs: float
    step_flops: int  # all that a step multiplies, on all GPUs
    model_flops: int  # without what is computed twice
    step_seconds: float
    price: float
    assumptions: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.trace.parts

    @property
    def fits(self) -> bool:
        return self.most > 0

    @property
    def steps(self) -> int:
        return max(1, math.ceil(self.examples / self.batch))

    @property
    def seconds(self) -> float:
        return self.steps * self.step_seconds

    @property
    def gpu_hours(self) -> float:
        return self.seconds / 3600 * self.settings.number

    @property
    def cost(self) -> float:
        return self.gpu_hours * self.price

    @property
    def model_utilisation(self) -> float:
        """The share of the peak that is left when neither recomputation nor the optimiser counts as work."""
        peak = self.settings.gpu.peak(self.settings.bf16) * self.settings.number
        return self.model_flops / self.step_seconds / peak

    @property
    def exchanged(self) -> int:
        """Bytes that a GPU sends in a step: gradients, and with sharding the weights twice for each part of it."""
        if self.division.shards == 1:
            return 0
        trained, params = self.trace.trained, self.trace.params
        share = (self.division.shards - 1) / self.division.shards / self.division.within
        if self.division.sharding == "ddp":
            return int(2 * 4 * trained * share)
        return int(4 * (trained + 2 * params) * share) * self.rounds


def plan(settings: Settings) -> Plan:
    """Raises `UsageError` for settings that cannot be, `UnknownName` for parts that are not there."""
    s = settings
    within = s.tensor_parallel
    shards = _shards(s)
    step = Step(prompt=s.prompt, answer=s.answer, bf16=s.bf16, checkpointing=s.checkpointing, learning=s.learning)
    whole = trace_by_name(s.name, s.image_size, step)
    here = whole if within == 1 else trace_by_name(s.name, s.image_size, replace(step, ranks=within))
    available = usable(s.gpu.memory)
    examples, epochs = _examples(s)
    batch = _batch(s, whole, shards, examples)
    division = _division(s, here, shards, batch, available)
    rows = batch // shards
    held = memory(here, division, batch=batch, at_a_time=rows)
    most = most_at_a_time(here, held, available)
    rounds = _rounds(rows, max(1, most))
    held = memory(here, division, batch=batch, at_a_time=rows // rounds)
    loss = _loss_flops(whole, batch)
    vectors = here.forward if rounds > 1 and here.contrast else 0  # first without gradients, then for them
    work = (here.forward + here.backward + here.again + vectors + loss) * batch * within
    update = _OPTIMISER_TRAFFIC / 8 * held.optimiser / (s.gpu.bandwidth * 1e9)
    seconds = work / (s.number * s.gpu.peak(s.bf16) * s.utilisation) + update
    return Plan(
        settings=s,
        trace=whole,
        loss_flops=loss,
        division=division,
        memory=held,
        available=available,
        most=most,
        batch=batch,
        at_a_time=rows // rounds,
        rounds=rounds,
        examples=examples,
        epochs=epochs,
        step_flops=work,
        model_flops=(whole.forward + whole.backward + loss) * batch,
        step_seconds=seconds,
        price=s.gpu.price if s.price is None else s.price,
        assumptions=tuple(_assumptions(s, whole, division, rounds)),
    )


def _shards(s: Settings) -> int:
    within = s.tensor_parallel
    if within > 1 and s.sharding not in (None, "fsdp+tp"):
        raise UsageError(f"--tensor-parallel goes with --sharding fsdp+tp, not {s.sharding}")
    if s.number % within:
        raise UsageError(f"{s.number} GPUs do not divide into groups of {within} (--tensor-parallel)")
    return s.number // within


def _examples(s: Settings) -> tuple[int, float]:
    if s.examples is not None:
        return s.examples, s.examples / s.data.examples
    epochs = 1.0 if s.epochs is None else s.epochs
    return max(1, round(epochs * s.data.examples)), epochs


def _batch(s: Settings, trace: Trace, shards: int, examples: int) -> int:
    """As asked; else what is usual, or the power of two at which a small run still takes `_STEPS` steps."""
    if s.batch is not None:
        if s.batch % shards:
            below, above = s.batch // shards * shards, -(-s.batch // shards) * shards
            near = f"{below:,} or {above:,}" if below else f"{above:,}"
            raise UsageError(f"--batch {s.batch:,} does not divide among {shards:,} GPUs; try {near}")
        return s.batch
    usual = CONTRASTIVE_BATCH if trace.contrast else GENERATIVE_BATCH if examples >= _SMALL else SMALL_BATCH
    small = max(_SMALLEST_BATCH, 2 ** int(math.log2(max(1.0, examples / _STEPS))))
    return -(-min(usual, small, examples) // shards) * shards


def _division(s: Settings, here: Trace, shards: int, batch: int, available: int) -> Division:
    """As asked; else the plainest that leaves half of the memory to the examples."""
    if s.sharding is not None or s.tensor_parallel > 1:
        return Division(sharding=s.sharding or "fsdp+tp", shards=shards, within=s.tensor_parallel)
    plain = Division(sharding="ddp", shards=shards)
    held = memory(here, plain, batch=batch, at_a_time=1)
    roomy = shards == 1 or held.fixed - held.loss <= available / 2
    return plain if roomy else Division(sharding="fsdp", shards=shards)


def _rounds(rows: int, most: int) -> int:
    """The fewest equal parts of a GPU's rows, none above `most`."""
    small = [k for k in range(1, math.isqrt(rows) + 1) if rows % k == 0]
    return min(k for k in {*small, *(rows // k for k in small)} if rows // k <= most)


def _loss_flops(trace: Trace, batch: int) -> int:
    """Of an example: its scores with the batch, both ways for softmax, forward and back."""
    if trace.contrast is None:
        return 0
    one_way = 2 * batch * trace.contrast.width
    return 3 * one_way * (2 if trace.contrast.kind == "softmax" else 1)


def _assumptions(s: Settings, trace: Trace, division: Division, rounds: int) -> list[str]:
    peak = s.gpu.peak(s.bf16) / 1e12
    kind = "bfloat16 products (autocast); weights, gradients, moments in float32" if s.bf16 else "float32 throughout"
    said = [
        _of_example(trace),
        f"{kind}; AdamW with two moments per parameter",
        f"the GPUs reach {s.utilisation:.0%} of {peak:,.4g} TFLOP/s each in all matrix products ({s.utilisation_from})",
        "attention never writes its scores (fused kernels), no dropout, nothing compiled",
        _of_data(s),
    ]
    if s.bf16 and trace.trained < trace.params:
        said.append("frozen matrices are stored in bfloat16, as autocast rounds them")
    if division.shards > 1:
        precision = "bfloat16" if s.bf16 else "float32"
        said.append(f"FSDP2 gathers {precision} weights, one block ahead; communication overlaps with computation")
        if s.bf16:
            said.append("activations are counted as under autocast; FSDP2's own casts need fewer")
    if division.within > 1:
        said.append(
            f"groups of {division.within} share the matrices of attention blocks; everything else is replicated"
        )
    if s.checkpointing:
        said.append("blocks keep only their inputs and are recomputed in the backward pass")
    if rounds > 1 and trace.contrast:
        said.append(f"{rounds} micro-batches: all embeddings first, then each micro-batch again for its gradients")
    if trace.contrast and trace.contrast.kind == "softmax":
        said.append("each GPU compares its own rows with the gathered rows of all")
    if trace.contrast and trace.contrast.kind == "sigmoid":
        said.append("texts are passed around the GPUs, logits are computed in chunks")
    said.append("data loading is no bottleneck; no evaluation, no checkpoints, no failures")
    price = "given" if s.price is not None else "a round number for an hour on demand, differs widely: give --price"
    said.append(f"${s.gpu.price if s.price is None else s.price:,.2f} a GPU hour ({price})")
    said.append(f"the GPU's numbers are from: {s.gpu.source}")
    return said


def _of_example(trace: Trace) -> str:
    height, width = trace.image_size or (0, 0)
    size = f" of {height} × {width}" if height else ""
    patches = f" is {trace.patches:,} patches" if trace.patches else ""
    read = f", with {trace.text} tokens of text, padded" if trace.text else ""
    if trace.prompt is not None:
        read = f", with {trace.prompt} token{'s' * (trace.prompt > 1)} of prompt and {trace.answer} of answer"
    return f"an image{size}{patches}{read}"


def _of_data(s: Settings) -> str:
    if not s.data.what:
        return f"an epoch is {s.data.name}"
    return f"{s.data.name}: {s.data.examples:,} {s.data.what} ({s.data.source}), all of them still available"
