"""Chameleon: norms on queries and keys, norms after each part and z-loss hold what a stream of two modalities drives
up; and the tokens of an image follow the text that asks for it, the more so with guidance.

Chameleon Team, "Chameleon: Mixed-Modal Early-Fusion Foundation Models", 2024.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.text.llama import Llama, LlamaConfig
from rebus.backbones.vision.vqgan import VQGAN, VQGANConfig
from rebus.generation import Guidance, generate
from rebus.nn.rope import rope_table, rotate
from rebus.objectives import CodebookLoss
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import next_token
from rebus.reproduce import shapes_world as world
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim

TEXT, NONE, QK, QK_Z, ALL, DRAWS = "text alone", "none", "QK-norm", "QK-norm, z-loss", "all three", "drawing"
RATES = (1e-2, 3e-2)
SCALES = (1, 2, 4)
_WORDS, _PATCHES = 64, 256  # symbols of the two modalities of a stream
_HALF = 16  # tokens of each in a row


@dataclass(frozen=True, kw_only=True)
class Budget:
    steps: int = 300  # of a stream, at each rate
    batch_size: int = 8
    width: int = 64
    z_loss: float = 1e-3  # a hundred times the paper's, for a thousandth of its steps
    images: int = 3000
    code_steps: int = 250
    draw_steps: int = 500
    draw_batch: int = 64
    judge_steps: int = 250
    test: int = 320


def decoder(budget: Budget, symbols: int, num_layers: int, **norms: bool) -> Llama:
    """The library's decoder, small."""
    width = budget.width
    return Llama(
        LlamaConfig(
            width=width,
            num_layers=num_layers,
            num_heads=4,
            num_kv_heads=4,
            head_width=width // 4,
            mlp_width=8 * width // 3,
            vocab_size=symbols,
            context=64,
            **norms,
        )
    )


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """Of a stream: the greatest score of attention, the mean length of the states before the last norm, the mean |ln Z|
    and the loss, at each rate. Of drawing: the share of drawn images that the judge takes for what was asked for."""
    if setting == DRAWS:
        return _drawing(budget, seed)
    found: dict[str, float] = {}
    for rate in RATES:
        torch.manual_seed(seed)
        norms = {"qk_norm": setting in (QK, QK_Z, ALL), "norm_after": setting == ALL}
        network = decoder(budget, _WORDS + _PATCHES, 4, **norms)
        stream = _Streams(seed, mixed=setting != TEXT)
        z_loss = budget.z_loss if setting in (QK_Z, ALL) else 0.0
        fit(
            network,
            lambda net, batch, z=z_loss: Losses(_loss(net, batch["tokens"], z), {}),  # type: ignore[misc]
            lambda i, s=stream: {"tokens": s.rows(i, budget.batch_size)},  # type: ignore[misc]
            Optim(lr=rate, betas=(0.9, 0.95), weight_decay=0.0, warmup=max(budget.steps // 6, 1)),
            budget.steps,
        )
        found |= {f"{name} {rate:g}": value for name, value in _sizes(network, stream.rows(-1, 64)).items()}
    return found


def _loss(network: Llama, tokens: Tensor, z_loss: float) -> Tensor:
    return next_token(network(tokens).logits[:, :-1], tokens[:, 1:], z_loss=z_loss)


class _Streams:
    """Rows of a Markov chain over words, of low entropy, then of even chance over patches; or of words alone."""

    def __init__(self, seed: int, mixed: bool):
        self.seed, self.mixed = seed, mixed
        random = torch.Generator().manual_seed(seed)
        self.next = torch.randint(_WORDS, (_WORDS, 4), generator=random)  # four words that may follow each

    def rows(self, index: int, number: int) -> Tensor:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        words = [torch.randint(_WORDS, (number,), generator=random)]
        while len(words) < (_HALF if self.mixed else 2 * _HALF):
            words.append(self.next[words[-1], torch.randint(4, (number,), generator=random)])
        said = torch.stack(words, dim=1)
        if not self.mixed:
            return said
        return torch.cat([said, _WORDS + torch.randint(_PATCHES, (number, _HALF), generator=random)], dim=1)


@torch.no_grad()
def _sizes(network: Llama, tokens: Tensor) -> dict[str, float]:
    with _heard(network) as heard:
        logits = network(tokens).logits[:, :-1]
    q, k = ([one for name, one in heard if name == kind] for kind in ("q", "k"))
    positions = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
    table = rope_table(positions, network.cfg.head_width, network.cfg.rope_base)
    scores = [rotate(a, table) @ rotate(b, table).mT / network.cfg.head_width**0.5 for a, b in zip(q, k, strict=True)]
    states = next(one for name, one in heard if name == "states")
    return {
        "score": max(float(one.tril().abs().max()) for one in scores),
        "states": float(states.norm(dim=-1).mean()),
        "ln Z": float(logits.logsumexp(dim=-1).abs().mean()),
        "loss": float(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())),
    }


@contextmanager
def _heard(network: Llama) -> Iterator[list[tuple[str, Tensor]]]:
    """Queries and keys of every block after their norms, and what the last norm is given."""
    heard: list[tuple[str, Tensor]] = []
    hooks = [network.norm.register_forward_pre_hook(lambda _, given: heard.append(("states", given[0])))]
    for block in network.blocks:
        for name in ("q", "k"):
            norm: nn.Module = getattr(block.attn, f"{name}_norm")
            hooks.append(norm.register_forward_hook(lambda _, __, made, name=name: heard.append((name, made))))
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _drawing(budget: Budget, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    found, test = world.images(seed, budget.images), world.images(seed + 1000, budget.test)

    def rows(index: int, number: int) -> Tensor:
        return rows_at(seed, index, number, budget.images)

    images = VQGAN(_CODES)
    fit(
        images,
        CodebookLoss(),
        lambda i: {"pixels": found.pixels[rows(i, 32)]},
        Optim(lr=2e-3, weight_decay=0.0, warmup=20),
        budget.code_steps,
    )
    with torch.no_grad():
        codes = torch.cat([images.encode(part) for part in found.pixels.split(250)])
        rebuilt = torch.cat([images.decode(part) for part in codes.split(250)])
    judge = _judge()
    fit(
        judge,
        lambda net, batch: Losses(F.cross_entropy(net(batch["pixels"]), batch["pairs"]), {}),
        lambda i: {"pixels": rebuilt[rows(i, 64)], "pairs": found.pairs[rows(i, 64)]},
        Optim(lr=3e-3, warmup=20),
        budget.judge_steps,
    )
    words = world.tokens(found.captions)
    network = decoder(budget, _FIRST + _CODES.num_codes, 3, qk_norm=True)
    fit(
        network,
        lambda net, batch: Losses(next_token(net(**batch).logits, batch["targets"], z_loss=1e-5), {}),
        lambda i: _asked(words, codes, rows(i, budget.draw_batch), seed * 1_000_003 + i),
        Optim(lr=2e-3, warmup=50, matrices="muon"),
        budget.draw_steps,
    )
    prompts = _batch(world.tokens(test.captions))
    with torch.no_grad():
        seen = images.decode(images.encode(test.pixels))
        right = {f"right at {scale}": _right(network, images, judge, prompts, scale, test.pairs) for scale in SCALES}
        truth = float((judge(seen).argmax(-1) == test.pairs).float().mean())
    return {**right, "true images": truth}


_CODES = VQGANConfig(
    width=32, multiples=(1, 1, 2), num_blocks=1, latent_width=32, code_width=8, num_codes=128, image_size=world.SIZE
)
_FIRST = world.VOCAB_SIZE  # the token of code 0


def _batch(words: Tensor) -> dict[str, Tensor]:
    return {"tokens": words, "mask": words != world.PAD}


def _asked(words: Tensor, codes: Tensor, rows: Tensor, seed: int) -> dict[str, Tensor]:
    """Captions and the codes of their images; every tenth image is asked for by nothing, for guidance."""
    free = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)) < 0.1
    asked = words[rows].clone()
    asked[free, 1:] = world.PAD
    return {**_batch(asked), "targets": codes[rows] + _FIRST}


def _right(
    network: Any, images: VQGAN, judge: nn.Module, prompts: Mapping[str, Tensor], scale: float, pairs: Tensor
) -> float:
    nothing = torch.full_like(prompts["tokens"][:1], world.PAD)
    nothing[:, 0] = world.START
    guided: dict[str, Any] = {} if scale == 1 else {"guidance": Guidance(scale=scale, batch=_batch(nothing))}
    drawn = generate(
        network,
        prompts,
        eos_id=None,
        pad_id=world.PAD,
        max_new_tokens=_CODES.grid[0] * _CODES.grid[1],
        allowed=range(_FIRST, _FIRST + _CODES.num_codes),
        strategy="sample",
        seed=0,
        **guided,
    )
    return float((judge(images.decode(drawn - _FIRST)).argmax(-1) == pairs).float().mean())


def _judge() -> nn.Sequential:
    """Which of the pairs of colour and shape is in an image: three convolutions."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (world.SIZE // 4) ** 2, len(world.PAIRS)))


BUDGET = Budget()


def chameleon(budget: Budget = BUDGET) -> Claim:
    settings = (TEXT, NONE, QK, QK_Z, ALL, DRAWS)
    low, high = (f"{rate:g}" for rate in RATES)
    return Claim(
        name="chameleon",
        paper="Chameleon Team, 2024, Sec. 2.3 and Fig. 5 and 6.",
        says="Modalities of different entropy that share weights drive each other's norms up until bfloat16 cannot "
        "hold them; growth of the last layer's norm foretells it. Norms on queries and keys are needed, norms after "
        "each part in the large model, and z-loss. Text alone does not diverge.",
        here="A decoder of four layers, width 64, learns rows of 16 words of a Markov chain and 16 patches by even "
        "chance for 300 steps at rates of 0.01 and 0.03. Nothing diverges in 300 steps: what is compared is how far "
        "scores, states and ln Z grow. z-loss weighs 1e-3, a hundred times the paper's. Then a decoder of three layers "
        "learns to write images of 16 codes for captions, and a network that has learned to name colour and shape says "
        "whether what it draws for 320 new captions is what they ask for.",
        settings=settings,
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=(
            *(f"{name} {rate}" for name in ("score", "states", "ln Z", "loss") for rate in (low, high)),
            "right at 2",
        ),
        statements=(
            *(
                Statement(
                    f"Norms on queries and keys keep scores of attention five times as small (rate {rate}).",
                    Read(NONE, f"score {rate}"),
                    Read(QK, f"score {rate}"),
                    "times",
                    5,
                )
                for rate in (low, high)
            ),
            *(
                Statement(
                    f"With norms after each part states stay ten times as short (rate {rate}).",
                    Read(NONE, f"states {rate}"),
                    Read(ALL, f"states {rate}"),
                    "times",
                    10,
                )
                for rate in (low, high)
            ),
            Statement(
                "Beside norms on queries and keys, z-loss lowers ln Z.",
                Read(QK, f"ln Z {low}"),
                Read(QK_Z, f"ln Z {low}"),
            ),
            Statement(
                "At the high rate all three together learn more than none.",
                Read(NONE, f"loss {high}"),
                Read(ALL, f"loss {high}"),
            ),
            *(
                Statement(
                    f"Without any, two modalities drive {what} further than text alone (rate {high}).",
                    Read(NONE, f"{figure} {high}"),
                    Read(TEXT, f"{figure} {high}"),
                    "times",
                    1,
                )
                for figure, what in (("score", "scores"), ("states", "states"))
            ),
            Statement(
                "What is drawn is what was asked for, far above chance (1 in 64).", Read(DRAWS, "right at 1"), 0.2
            ),
            Statement("Guidance makes it so more often.", Read(DRAWS, "right at 2"), Read(DRAWS, "right at 1")),
        ),
        plots=(
            Plot(
                title="Chameleon: attention scores, lengths of states",
                x="norms",
                y="at the end, rate 0.03",
                log_y=True,
                lines=tuple(
                    Line(figure, tuple((setting, Read(setting, f"{figure} {high}")) for setting in settings[:-1]))
                    for figure in ("score", "states")
                ),
            ),
            Plot(
                title="Chameleon: drawing what is asked for",
                x="guidance",
                y="right images",
                lines=(Line("drawn", tuple((scale, Read(DRAWS, f"right at {scale}")) for scale in SCALES)),),
            ),
        ),
        minutes=6,
    )
