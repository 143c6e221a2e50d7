"""The settings of a run: one frozen dataclass, saved beside every checkpoint."""

from dataclasses import dataclass, field
from typing import Any, Literal

from rebus.data.detection_batches import Detection
from rebus.data.file_records import Files, Mixture
from rebus.data.scene_kinds import SceneData
from rebus.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Optim:
    """What moves the weights, with weight decay on matrices and convolutions (no gains, biases, scalars).

    "adamw": Adam with decoupled decay; "lamb": its steps at lengths in proportion to each matrix, for batches of many
    thousands (You et al., 2020); "sgd": with `momentum`, where decay is part of the gradient.

    The rate rises over the first `warmup` steps and then falls to `final` times the peak: along half a cosine, a
    straight line, with 1 / √step ("rsqrt"), or not at all ("constant"), and in any case over the last `cooldown`
    steps. What comes before the cooldown of "rsqrt" and "constant" does not depend on `steps`.
    """

    kind: Literal["adamw", "lamb", "sgd"] = "adamw"
    lr: float = 1e-3
    rates: tuple[tuple[str, float], ...] = ()  # part and factor: (("image", 0.1),) lets the image encoder learn at a
    # tenth of the rate. Of several that hold a parameter the longest name counts
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.1
    warmup: int = 200
    final: float = 0.01
    schedule: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    cooldown: int = 0
    again: int = 0  # after this step the rate rises once more, for parts that begin to learn there
    clip_norm: float = 1.0
    momentum: float = 0.9  # of sgd
    nesterov: bool = False  # of sgd
    matrices: Literal["adam", "muon"] = "adam"  # muon: the blocks' matrices follow their orthogonalised momentum
    # (Jordan et al., "Muon", 2024), scaled to Adam's usual step, which takes fewer steps on a small budget


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Train LoRA adapters on the linear layers of some parts; they are merged at the end.

    `whole`: parts that are trained as they are besides, such as norms, or embeddings of new words.
    """

    parts: tuple[str, ...] = ("text",)
    rank: int = 8
    alpha: float = 16.0
    whole: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a run computes. Under torchrun every rank learns from its share of each batch, with the same result.

    `shard`: over how many ranks weights and optimizer state are sharded (FSDP2); 0: all, 1: replicated.
    `tensor_parallel`: over how many ranks each matrix of a decoder is split; those ranks see the same examples.
    """

    device: str = "auto"  # the GPU where there is one
    compile: bool = False  # the blocks of all encoders, one by one
    recompute: bool = False  # activation checkpointing: a block's inside is worked out again on the way back
    shard: int = 0
    tensor_parallel: int = 1


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is written down beside `metrics.jsonl`."""

    gallery: int = 0  # held-out images, to an even number, with what the model says of them, drawn at each evaluation
    tensorboard: bool = False  # DIR/tensorboard; extra "train"
    wandb: str | None = None  # the project at Weights & Biases that the numbers are sent to


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights that are there before the first step: the part `take` of a checkpoint goes into the part `into` of the
    network; empty: all of it. Parts go by our names: "image", "text", "text.blocks"."""

    source: str  # a catalogue name, a directory, a file of weights, or a Hub id
    take: str = ""
    into: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run. Everything that changes a number is here; the same settings give the same losses.

    `system` and `model` may be left to `start_from`: a fine-tuning takes both from the checkpoint that it begins with.
    """

    system: str | None = None  # "clip"
    model: Any = None  # the configuration of that system
    objective: Objective
    data: SceneData | Files | Mixture | Detection
    optim: Optim = field(default_factory=Optim)
    steps: int = 1000
    batch_size: int = 128  # images, over all ranks
    accumulate: int = 1  # parts of a batch that go through the network one after another, for less memory; the
    # gradients are those of the whole batch, for contrastive losses too
    batch_norm: Literal["synchronised", "ghost", "frozen"] = "synchronised"  # what BatchNorm normalises by: the whole
    # batch over all ranks; each rank's and each part's own share of it, with other numbers; or running statistics
    seed: int = 0
    start_from: str | None = None  # a checkpoint, by its bundled name or directory: all of it where it is of the same
    # system, its image encoder where it is not
    starts: tuple[Start, ...] = ()  # more of them, part by part: a ResNet's weights and a BERT's; later ones win
    processor: str | None = None  # whose tokenizer and preprocessor files are used, for data on disk; by default
    # those of `start_from`
    freeze: tuple[str, ...] = ()  # parts that stay as they are: "image", "text.tokens"
    lora: LoRA | None = None
    wise_ft: float = 1.0  # share of the new weights in what is kept; the rest is what the run started from
    # (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022)
    retention: Files | SceneData | None = None  # what must not be forgotten: measured before and after
    position_waves: float = 0.0  # length of the sine waves over rows and columns that are added to the image encoder's
    # positions before the first step; a small encoder otherwise forgets where things are
    ema: float = 0.0  # above 0: what is measured and kept at the end is the average of the weights, in which each step
    # leaves this share of what was there
    bf16: bool = False  # autocast; weights and optimiser stay float32, but for frozen matrices, which are only read;
    # ignored, with a warning, on a processor without bfloat16 products
    final_dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of the weights in `final/`; by default that
    # of `start_from`, or float32
    spike: float = 0.0  # above 0: steps whose loss lies further above the usual than this many usual distances are
    # left out
    eval_every: int = 500  # steps between losses on held-out batches; 0: never
    eval_batches: int = 4
    save_every: int = 500
    keep: int = 2  # checkpoints kept
    threads: int | None = None  # of the processor, for the network; by default all cores, or OMP_NUM_THREADS
    workers: int = 1  # processes that make batches ahead; 0: made in line
    devices: Devices = field(default_factory=Devices)
    watch: Watch = field(default_factory=Watch)
