"""Time, memory and money of a training, from its sizes alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rebus.backbones.text.gemma import GemmaConfig
from rebus.core.errors import UsageError
from rebus.plan.anatomy import Anatomy, anatomy
from rebus.plan.cost import Learning, PartCost, costs
from rebus.plan.datasets import Collection
from rebus.plan.hardware import Accelerator
from rebus.plan.memory import Division, Memory, Sharding, memory, most_at_a_time, usable

UTILISATION = 0.4
CONTRASTIVE_BATCH, WRITER_BATCH, SMALL_BATCH = 32_768, 8_192, 256
_SMALL = 10_000_000  # examples, below which a writer is fine-tuned rather than trained
_OPTIMISER_TRAFFIC = 28  # bytes of a number: weight, gradient and two moments read, weight and moments written


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked. None: the default, which the plan says."""

    name: str
    config: Any
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
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer. FLOPs are of one example, bytes of one GPU, times in seconds, money in dollars."""

    settings: Settings
    body: Anatomy
    parts: tuple[PartCost, ...]
    loss_flops: int
    division: Division
    memory: Memory
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
        trained = sum(part.trained for part in self.parts)
        params = sum(part.params for part in self.parts)
        share = (self.division.shards - 1) / self.division.shards / self.division.within
        if self.division.sharding == "ddp":
            return int(2 * 4 * trained * share)
        return int(4 * (trained + 2 * params) * share) * self.rounds


def plan(settings: Settings) -> Plan:
    """Raises `UsageError` for settings that cannot be, `UnknownName` for parts that are not there."""
    s = settings
    prompt, answer = _lengths(s)
    body = anatomy(s.config, prompt=prompt, answer=answer, bf16=s.bf16)
    parts = costs(body, s.learning, checkpointing=s.checkpointing)
    available = usable(s.gpu.memory)
    shards = _shards(s)
    examples, epochs = _examples(s)
    batch = _batch(s, body, shards, examples)
    division = _division(s, body, parts, shards, batch, available)
    rows = batch // shards
    held = memory(body, parts, division, bf16=s.bf16, batch=batch, at_a_time=rows)
    most = most_at_a_time(held, available)
    rounds = _rounds(rows, max(1, most))
    held = replace(held, activations=held.an_example * (rows // rounds))
    loss = _loss_flops(body, batch)
    forward = sum(p.forward for p in parts)
    model = (forward + sum(p.backward for p in parts) + loss) * batch
    again = sum(p.again for p in parts) + (forward if rounds > 1 and body.contrast else 0)
    work = (model + again * batch) * division.within  # what a group has whole, each of its GPUs computes
    work -= sum(p.split_flops for p in parts) * batch * (division.within - 1)
    update = _OPTIMISER_TRAFFIC / 8 * held.optimiser / (s.gpu.bandwidth * 1e9)
    seconds = work / (s.number * s.gpu.peak(s.bf16) * s.utilisation) + update
    return Plan(
        settings=s,
        body=body,
        parts=tuple(parts),
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
        model_flops=model,
        step_seconds=seconds,
        price=s.gpu.price if s.price is None else s.price,
        assumptions=tuple(_assumptions(s, body, division, prompt, answer, rounds)),
    )


def _lengths(s: Settings) -> tuple[int, int]:
    """Tokens before and after a writer begins: 128 together at 224 px and 512 above, as PaliGemma was trained."""
    together = 128 if s.config.image.image_size <= 224 else 512
    prompt = 16 if s.prompt is None else s.prompt
    return prompt, max(1, together - prompt) if s.answer is None else s.answer


def _shards(s: Settings) -> int:
    within = s.tensor_parallel
    if within > 1 and s.sharding not in (None, "fsdp+tp"):
        raise UsageError(f"--tensor-parallel goes with --sharding fsdp+tp, not {s.sharding}")
    if within > 1:
        _can_split(s)
    if s.number % within:
        raise UsageError(f"{s.number} GPUs do not divide into groups of {within} (--tensor-parallel)")
    return s.number // within


def _can_split(s: Settings) -> None:
    """What the training asks of tensor parallelism, before it begins."""
    text, within = s.config.text, s.tensor_parallel
    if not isinstance(text, GemmaConfig):
        raise UsageError(f"--tensor-parallel splits decoders; {s.name} has none: leave it at 1")
    if text.num_heads % within or (text.num_kv_heads > 1 and text.num_kv_heads % within):
        heads = f"{text.num_heads} heads ({text.num_kv_heads} for keys)"
        raise UsageError(f"{heads} do not divide by --tensor-parallel {within}")


def _examples(s: Settings) -> tuple[int, float]:
    if s.examples is not None:
        return s.examples, s.examples / s.data.examples
    epochs = 1.0 if s.epochs is None else s.epochs
    return max(1, round(epochs * s.data.examples)), epochs


def _batch(s: Settings, body: Anatomy, shards: int, examples: int) -> int:
    if s.batch is not None:
        if s.batch % shards:
            below, above = s.batch // shards * shards, -(-s.batch // shards) * shards
            near = f"{below:,} or {above:,}" if below else f"{above:,}"
            raise UsageError(f"--batch {s.batch:,} does not divide among {shards:,} GPUs; try {near}")
        return s.batch
    usual = CONTRASTIVE_BATCH if body.contrast else WRITER_BATCH if examples >= _SMALL else SMALL_BATCH
    return -(-min(usual, examples) // shards) * shards


def _division(
    s: Settings, body: Anatomy, parts: Sequence[PartCost], shards: int, batch: int, available: int
) -> Division:
    """As asked; else the plainest that leaves half of the memory to the examples."""
    if s.sharding is not None or s.tensor_parallel > 1:
        return Division(sharding=s.sharding or "fsdp+tp", shards=shards, within=s.tensor_parallel)
    plain = Division(sharding="ddp", shards=shards)
    held = memory(body, parts, plain, bf16=s.bf16, batch=batch, at_a_time=1)
    roomy = shards == 1 or held.fixed - held.loss <= available / 2
    return plain if roomy else Division(sharding="fsdp", shards=shards)


def _rounds(rows: int, most: int) -> int:
    """The fewest equal parts of a GPU's rows, none above `most`."""
    small = [k for k in range(1, math.isqrt(rows) + 1) if rows % k == 0]
    return min(k for k in {*small, *(rows // k for k in small)} if rows // k <= most)


def _loss_flops(body: Anatomy, batch: int) -> int:
    """Of an example: its scores with the batch, both ways for softmax, forward and back."""
    if body.contrast is None:
        return 0
    one_way = 2 * batch * body.embed
    return 3 * one_way * (2 if body.contrast == "softmax" else 1)


def _assumptions(s: Settings, body: Anatomy, division: Division, prompt: int, answer: int, rounds: int) -> list[str]:
    size = s.config.image.image_size
    peak = s.gpu.peak(s.bf16) / 1e12
    writer = body.contrast is None
    text = f"{prompt} tokens of prompt and {answer} of answer" if writer else f"{body.text} tokens of text, padded"
    kind = "bfloat16 products (autocast); weights, gradients, moments in float32" if s.bf16 else "float32 throughout"
    said = [
        f"an image of {size} × {size} is {body.patches:,} patches, with {text}",
        f"{kind}; AdamW keeps two moments",
        f"the GPUs reach {s.utilisation:.0%} of {peak:,.4g} TFLOP/s each in all their products ({s.utilisation_from})",
        "attention never writes its scores (fused kernels), no dropout, nothing compiled",
        _of_data(s),
    ]
    if division.sharding == "ddp" and division.shards > 1:
        said.append("gradients are views of the buckets that are exchanged; the exchange hides behind the way back")
    if division.sharding != "ddp":
        said.append("FSDP2 gathers float32 weights, one block ahead; the exchange hides behind the products")
        if s.bf16:
            said.append("autocast's bfloat16 copies of the weights lie whole on each GPU until the way back")
    if division.within > 1:
        said.append(f"groups of {division.within} share the decoder's matrices; image tower and norms are on each GPU")
    if s.checkpointing:
        said.append("blocks keep their input alone and are computed twice")
    if rounds > 1 and not writer:
        said.append(f"a batch in {rounds} parts: vectors first, then each part again for its gradients")
    if body.contrast == "softmax":
        said.append("each GPU compares its own rows with everybody's, gathered")
    if body.contrast == "sigmoid":
        said.append("texts go round the GPUs, scores are worked out in chunks")
    said.append("images are read and decoded fast enough; no evaluation, no checkpoints, no failures")
    price = "given" if s.price is not None else "a round number for an hour on demand, differs widely: give --price"
    said.append(f"${s.gpu.price if s.price is None else s.price:,.2f} a GPU hour ({price})")
    said.append(f"the GPU's numbers are from: {s.gpu.source}")
    return said


def _of_data(s: Settings) -> str:
    if not s.data.what:
        return f"an epoch is {s.data.name}"
    return f"{s.data.name}: {s.data.examples:,} {s.data.what} ({s.data.source}), every one of them still there"
