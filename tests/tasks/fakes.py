"""Two small models whose answers can be read off: one tells colours apart, one says what it is told to say."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.vision.mask_vqvae import load_npz
from rebus.codec.boxes import LOC_1024
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.outputs import Step
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Companion
from rebus.generation import OPTIONS, generate

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
WORDS = sorted(
    {*COLOURS, *"a photo of the caption en answer detect segment what colour is this object cat dog ? . ; very".split()}
)
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")
EOS = 1
TOKENIZER = word_level_tokenizer(WORDS, SPECIALS, locations=1024, segments=128)
IMAGE = ImagePipeline(ImageSpec(size=(4, 4), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), threads=1)
PROMPTS = Prompts(
    caption="caption en",
    ask="answer en {question}",
    detect="detect {labels}",
    segment="segment {phrase}",
    classify="caption en",
)


def picture(colour: str, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, tuple(int(255 * c) for c in COLOURS[colour]))


class Colours(nn.Module):
    """Two towers: the mean colour of an image, the sum of the colour words of a text."""

    def __init__(self, log_scale: float = 2.0):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.table = torch.full((TOKENIZER.vocab_size, 3), 0.05)
        for word, colour in COLOURS.items():
            self.table[TOKENIZER.id_of(word)] = torch.tensor(colour)
        self.table[TOKENIZER.id_of("very")] = torch.tensor([0.3, 0.0, 0.0])
        self.batches: list[int] = []

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def embed_image(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return F.normalize(pixels.mean(dim=(2, 3)) + 0.1, dim=-1)

    def embed_text(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(tokens) if mask is None else mask
        return F.normalize((self.table[tokens] * mask[..., None]).sum(dim=1), dim=-1)


class Script(NamedTuple):
    """What is still to be said by each row."""

    replies: Tensor  # (B, n), the end token for ever after
    at: int

    def select(self, rows: Tensor) -> "Script":
        return Script(self.replies[rows], self.at)


class Scripted(nn.Module):
    """Says what `reply(mean colour, prompt)` gives; each token has the probability `sure`."""

    def __init__(self, reply: Callable[[str, str], str], sure: float = 0.9):
        super().__init__()
        self.reply, self.sure = reply, sure
        self.weight = nn.Parameter(torch.zeros(1))
        self.prompts: list[str] = []

    def start(self, *, room: int, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Step:
        rows = []
        for seen, row, real in zip(pixels, tokens, mask, strict=True):
            assert (row[:2] == 4).all(), "the placeholders of an image come first"
            prompt = TOKENIZER.decode(row[real].tolist())
            self.prompts.append(prompt)
            colour = list(COLOURS)[int(seen.mean(dim=(1, 2)).argmax())]
            rows.append(TOKENIZER.encode_answer(self.reply(colour, prompt)))
        longest = max(map(len, rows)) + 1
        replies = torch.tensor([row + [EOS] * (longest - len(row)) for row in rows])
        return self._say(Script(replies, 0))

    def step(self, token: Tensor, cache: Script) -> Step:
        return self._say(Script(cache.replies, cache.at + 1))

    def _say(self, cache: Script) -> Step:
        others = (1 - self.sure) / (TOKENIZER.vocab_size - 1)
        logits = torch.full((len(cache.replies), TOKENIZER.vocab_size), others).log()
        token = cache.replies[:, min(cache.at, cache.replies.shape[1] - 1)]
        logits.scatter_(1, token[:, None], float(np.log(self.sure)))
        return Step(logits, F.normalize(logits, dim=-1), cache)


class FakeModel(SimpleNamespace):
    """What a task asks of a model."""

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def endings(self) -> dict[str, Any]:
        return {"eos_id": EOS, "pad_id": 0, "decode": TOKENIZER.decode}

    def generate(self, **options: Any) -> Tensor:
        batch = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
        return generate(self.network, batch, **{**self.endings(), **options})


def fake_system(prompts: Prompts, **declared: Any) -> SimpleNamespace:
    """What tasks ask of a system; `declared` says more than its prompts."""
    nothing: dict[str, Any] = {
        "objective": "softmax",
        "locations": None,
        "lines": None,
        "outlines": None,
        "named_tasks": {},
        "image_tokens": None,
        "companions": {},
        "decoding": {},
    }
    return SimpleNamespace(**{"name": "fake", "prompts": prompts, **nothing, **declared})


def _model(network: nn.Module, text: TextSpec, system: Any, **companions: Any) -> FakeModel:
    return FakeModel(
        network=network,
        processor=Processor(IMAGE, TextPipeline(TOKENIZER, text)),
        system=system,
        config=None,
        companions=companions,
    )


def two_towers(log_scale: float = 2.0, classify: str | None = None) -> FakeModel:
    text = TextSpec(context=16, pad_id=0, eos_id=EOS, bos_id=2)
    return _model(Colours(log_scale), text, fake_system(Prompts(classify=classify)))


MASK_DECODER = Companion(
    file="vae-oid.npz", load=load_npz, tasks=frozenset({"segment"}), purpose="there is nothing to decode masks by"
)
TEXT = TextSpec(
    context=64, generates=True, pad_id=0, eos_id=EOS, bos_id=2, separator="\n", image_token_id=4, num_image_tokens=2
)


def writer(reply: Callable[[str, str], str], sure: float = 0.9, mask_decoder: Any = None, **declared: Any) -> FakeModel:
    said = {"prompts": PROMPTS, "locations": LOC_1024, "companions": {"mask_decoder": MASK_DECODER}, **declared}
    system = fake_system(**said)
    return _model(
        Scripted(reply, sure), TEXT, system, **({} if mask_decoder is None else {"mask_decoder": mask_decoder})
    )
