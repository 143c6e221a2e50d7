"""A training step that is planned, and what its trace found. Free of torch, so that a stored trace is read at once."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What learns: all but the `frozen` parts; the parts of `only`, where there are any; or, with a `rank`, low-rank
    matrices beside the linear layers of the parts of `lora`."""

    frozen: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    rank: int = 0
    lora: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a step is made. `prompt` and `answer`: tokens that a generative model reads and writes (None: 16, or the
    start token alone of a captioner, and the rest of 128 up to 224 px or of 512 above, as PaliGemma was trained, or of
    the longest text where that is shorter). `ranks`: GPUs that split each matrix."""

    prompt: int | None = None
    answer: int | None = None
    bf16: bool = True
    checkpointing: bool = False
    learning: Learning = field(default_factory=Learning)
    ranks: int = 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module of the network, or "loss" for what lies outside of them. FLOPs and bytes are of one example."""

    title: str
    params: int
    trained: int
    forward: int
    backward: int
    again: int  # FLOPs of what checkpointing computes a second time
    kept: int  # bytes kept for the backward pass


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes at a moment of the step beside weights, gradients and optimiser: `fixed` + examples · `each`."""

    fixed: int
    each: int


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A loss that compares a whole batch, which is not in the trace. `width`: of the vectors that it compares."""

    kind: Literal["softmax", "sigmoid"]
    width: int
    chunk: int = 0  # images whose scores are in memory at a time; 0: all


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one rank computes and keeps in a step."""

    parts: tuple[Part, ...]
    held: int  # bytes of parameters and buffers
    copies: int  # bytes kept for the backward pass whatever the number of examples: autocast's copies of weights
    moments: tuple[Memory, ...]  # those at which most is in memory, for some number of examples
    outside: int  # bytes of the parameters that are in no block
    block: int  # bytes of the largest block's
    image_size: tuple[int, int] | None
    patches: int | None  # of an image, where it is cut into a grid
    prompt: int | None  # tokens; None for models that generate nothing
    answer: int | None
    text: int  # tokens of a text that go through the network
    contrast: Contrast | None = None

    @property
    def params(self) -> int:
        return sum(part.params for part in self.parts)

    @property
    def trained(self) -> int:
        return sum(part.trained for part in self.parts)

    @property
    def forward(self) -> int:
        """FLOPs of an example."""
        return sum(part.forward for part in self.parts)

    @property
    def backward(self) -> int:
        return sum(part.backward for part in self.parts)

    @property
    def again(self) -> int:
        return sum(part.again for part in self.parts)

    def activations(self, examples: int) -> int:
        """Bytes beside weights, gradients and optimiser where most are needed."""
        return max(moment.fixed + examples * moment.each for moment in self.moments)

    def most_examples(self, room: int) -> int:
        """The most whose activations fit into so many bytes; 0 where not even one example's do."""
        if any(moment.fixed > room for moment in self.moments):
            return 0
        return min((room - moment.fixed) // moment.each for moment in self.moments if moment.each)
