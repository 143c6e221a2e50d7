"""Toy networks of the capabilities that no system has yet: interleaved documents, images out, regions, answer lists."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.outputs import Regions, Step
from rebus.core.specs import ImageTokens, Prompts, TextSpec
from rebus.core.system import Companion
from tests.tasks.fakes import COLOURS, EOS, IMAGE, SPECIALS, WORDS, Colours, FakeModel, Script, fake_system

# A code stands for a colour; four of them are the quarters of an image. And another notation of places.
CODES = [f"<code{i}>" for i in range(3)]
PLACES = [f"<loc_{i}>" for i in range(1000)]
TOKENIZER = word_level_tokenizer([*WORDS, "draw"], (*SPECIALS, "<begin>", "<end>", *CODES, *PLACES))
FIRST = TOKENIZER.id_of("<code0>")
IMAGE_TOKENS = ImageTokens(
    begin=TOKENIZER.id_of("<begin>"), end=TOKENIZER.id_of("<end>"), first=FIRST, last=FIRST + 2, each=4
)
TEXT = TextSpec(context=64, generates=True, pad_id=0, eos_id=EOS, bos_id=2, image_token_id=4, num_image_tokens=2)
PROMPTS = Prompts(complete="{document}", imagine="draw {prompt}")


class InterleavedWriter(nn.Module):
    """Reads text with images in it as text with their colours in brackets, and says `reply(what it read)`: a text in
    which `<begin>` and codes are tokens."""

    def __init__(self, reply: Callable[[str], str]):
        super().__init__()
        self.reply = reply
        self.weight = nn.Parameter(torch.zeros(1))
        self.prompts: list[str] = []
        self.batches: list[int] = []

    def start(
        self,
        *,
        room: int,
        tokens: Tensor,
        mask: Tensor,
        pixels: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Step:
        if pixels is not None and pixels.dim() == 5:
            pixels = pixels.flatten(0, 1) if image_mask is None else pixels[image_mask]
        seen = iter([] if pixels is None else [list(COLOURS)[int(one.mean(dim=(1, 2)).argmax())] for one in pixels])
        rows = []
        for row, real in zip(tokens, mask, strict=True):
            prompt = self._read(row[real].tolist(), seen)
            self.prompts.append(prompt)
            rows.append([TOKENIZER.id_of(piece) for piece in self.reply(prompt).split()])
        assert next(seen, None) is None, "images without a place in a prompt"
        self.batches.append(len(rows))
        longest = max(map(len, rows)) + 1
        return self._say(Script(torch.tensor([row + [EOS] * (longest - len(row)) for row in rows]), 0))

    def step(self, token: Tensor, cache: Script) -> Step:
        return self._say(Script(cache.replies, cache.at + 1))

    def _read(self, ids: list[int], seen) -> str:
        words = []
        while ids:
            if ids[0] == TEXT.image_token_id:
                assert ids[:2] == [TEXT.image_token_id] * 2, "an image has two placeholders"
                words.append(f"[{next(seen)}]")
                ids = ids[2:]
            else:
                words += [] if ids[0] == TEXT.bos_id else [TOKENIZER.piece_of(ids[0])]
                ids = ids[1:]
        return " ".join(words)

    def _say(self, cache: Script) -> Step:
        token = cache.replies[:, min(cache.at, cache.replies.shape[1] - 1)]
        logits = torch.full((len(cache.replies), TOKENIZER.vocab_size), -20.0)
        logits.scatter_(1, token[:, None], 20.0)
        return Step(logits, F.normalize(logits, dim=-1), cache)


class QuarterDecoder(nn.Module):
    """Four codes → an image of 4 × 4, a quarter of which has the colour of each."""

    def draw_images(self, codes: Tensor) -> Tensor:
        assert codes.min() >= 0
        assert codes.max() <= 2
        colours = torch.tensor(list(COLOURS.values()))[codes]  # B 4 3
        return colours.unflatten(1, (2, 2)).permute(0, 3, 1, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)


class ImageWriter(InterleavedWriter, QuarterDecoder):
    """Decodes its own images."""


class AnswerPicker(nn.Module):
    """Answers 0, 1, 2 for the colours of an image; 3, which is never right, is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.prompts: list[str] = []

    def answer_logits(self, *, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        self.prompts += [TOKENIZER.decode(row[real].tolist()) for row, real in zip(tokens, mask, strict=True)]
        masked = torch.full((len(pixels), 1), -torch.inf)
        return torch.cat([pixels.mean(dim=(2, 3)), masked], dim=1)


class RegionNetwork(nn.Module):
    """Finds in the left half of an image what is of its colour there, likewise in the right half."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = Colours()
        self.batches: list[int] = []

    def embed_text(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.colours.embed_text(tokens, mask)

    def find_regions(self, pixels: Tensor, labels: Tensor, *, masks: bool = True) -> list[Regions]:
        self.batches.append(len(pixels))
        found = []
        for image in pixels:
            halves = torch.stack([image[..., :2].mean(dim=(1, 2)), image[..., 2:].mean(dim=(1, 2))])
            scores = F.normalize(halves + 1e-3, dim=-1) @ labels.T  # 2 C
            side, label = (scores > 0.8).nonzero(as_tuple=True)
            boxes = torch.stack([side / 2, torch.zeros(len(side)), (side + 1) / 2, torch.ones(len(side))], dim=1)
            grids = torch.ones(len(side), 28, 28)
            grids[:, 14:] = 0  # the upper half of each box
            found.append(Regions(boxes, label, scores[side, label], grids if masks else None))
        return found


class ToyModel(FakeModel):
    def endings(self):
        return {"eos_id": EOS, "pad_id": 0, "decode": TOKENIZER.decode}


def toy(network: nn.Module, text: TextSpec = TEXT, prompts: Prompts = PROMPTS, loaded=None, **declared) -> ToyModel:
    """A model of a toy network. `loaded`: the companions whose files were there; `declared`: what its system says."""
    return ToyModel(
        network=network,
        processor=Processor(IMAGE, TextPipeline(TOKENIZER, text)),
        system=fake_system(prompts, **declared),
        config=None,
        companions=loaded or {},
    )


ANSWERS = Companion(
    file="answers.txt",
    load=lambda path: path.read_text().splitlines(),
    tasks=frozenset({"ask"}),
    purpose="there is nothing to pick from",
)
IMAGE_DECODER = Companion(
    file="vqgan.ckpt", load=lambda path: QuarterDecoder(), tasks=frozenset({"imagine"}), purpose="images stay codes"
)
