"""The loop: read the prompt, then choose, write, step, until every row has ended."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError, unknown
from rebus.core.finite import refuse
from rebus.generation.beam import Beam
from rebus.generation.constraints import Allowed, Constraints, Forced, prompt_text
from rebus.generation.contrastive import Contrastive
from rebus.generation.decoding_state import Choose, DecodingState, Strings, has_fixed_rows, keep_rows
from rebus.generation.greedy import Greedy
from rebus.generation.guidance import Guidance, GuidedWriter
from rebus.generation.sampling import Sample
from rebus.generation.stopping import Decode, Stops

OnToken = Callable[[Tensor, Tensor], None]
Read = Callable[[list[str]], dict[str, Tensor]]
Strategy = Greedy | Sample | Beam | Contrastive
STRATEGIES: Mapping[str, type[Strategy]] = {
    "greedy": Greedy,
    "sample": Sample,
    "beam": Beam,
    "contrastive": Contrastive,
}


@dataclass(frozen=True, kw_only=True)
class _Common:
    """What every strategy takes."""

    max_new_tokens: int = 64
    allowed: Allowed | None = None
    no_repeat_ngram_size: int = 0
    guidance: Guidance | None = None
    stop: str | Sequence[str] | None = None
    max_sentences: int | None = None  # told by their full stops

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1; got {self.max_new_tokens}")
        if self.guidance is not None and not isinstance(self.guidance, Guidance):
            raise UsageError(
                f"guidance of text is a rebus.generation.Guidance, which has a second prompt; got {self.guidance!r} (a "
                "number is for images, of models that generate them)"
            )


def _names(settings: type) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(settings))


def options_of(strategy: str) -> frozenset[str]:
    """The decoding options that a strategy takes, `strategy` itself among them. Raises `UnknownName`."""
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES, f"There are: {', '.join(STRATEGIES)}.")
    return _names(_Common) | _names(STRATEGIES[strategy]) | {"strategy"}


# Everything that `generate` takes by name; what else a caller is given belongs to the batch.
OPTIONS = frozenset({"strategy", "eos_id", "pad_id", "first_id", "last_id", "decode", "read", "on_token"}).union(
    _names(_Common), *(_names(strategy) for strategy in STRATEGIES.values())
)


def generate(
    network: WritesText,
    batch: Mapping[str, Any],
    *,
    eos_id: int | Sequence[int] | None,
    pad_id: int,
    first_id: int | None = None,
    last_id: int | None = None,
    decode: Decode | None = None,
    read: Read | None = None,
    strategy: str = "greedy",
    on_token: OnToken | None = None,
    **options: Any,
) -> Tensor:
    """Write after the prompts of `batch` (`pixels`, `tokens`, `mask`, …): (B, ≤ max_new_tokens) int64.

    New tokens only; a row keeps its end token and is filled with `pad_id` after it. A row's result does not depend on
    the others. `options`: `max_new_tokens`, `allowed`, `no_repeat_ngram_size`, `guidance`, `stop` and `max_sentences`,
    and the fields of the strategy (`Greedy`, `Sample`, `Beam`, `Contrastive`). `decode`: ids → text, which `stop`,
    `max_sentences` and a pattern in `allowed` need.
    `first_id`: what every answer begins with; `last_id`: what ends one that would be longer than `max_new_tokens`.
    `read`: texts → the tokens and mask of the encoder that judges them, where `beta` asks for that.
    `on_token(tokens (B,), log_probabilities (B,))` is called for each column, 0 where a row has ended; beam search
    has none to tell (`score_tokens` finds them). Raises `UsageError` for an option that the strategy does not have.
    """
    chosen, common = _settings(strategy, options, batch)
    stops = Stops(eos_id, common.stop, decode, common.max_sentences)
    constraints = _constraints(network, batch, common, Forced(common.max_new_tokens, first_id, last_id), decode)
    network = network if common.guidance is None else GuidedWriter(network, common.guidance)
    if isinstance(chosen, Beam):
        if on_token is not None:
            raise UsageError("beam search chooses its tokens at the end: it cannot call on_token")
        found = chosen.search(
            network, batch, common.max_new_tokens, stops=stops, constraints=constraints, pad_id=pad_id
        )
        return found.clone()  # out of inference mode, so that it may be trained on
    strings = Strings(decode, read)
    columns = list(_write(network, batch, common.max_new_tokens, chosen, stops, constraints, pad_id, strings, on_token))
    return torch.stack(columns, dim=1)


def stream(
    network: WritesText,
    batch: Mapping[str, Any],
    *,
    eos_id: int | Sequence[int] | None,
    pad_id: int,
    first_id: int | None = None,
    last_id: int | None = None,
    decode: Decode | None = None,
    read: Read | None = None,
    strategy: str = "greedy",
    **options: Any,
) -> Iterator[Tensor]:
    """The columns of `generate`, (B,) int64, each as soon as it is written. Closing the iterator ends the writing.

    Arguments are checked at once, the prompt is read at the first `next`. Beam search has nothing to show before it
    ends: it raises `UsageError`.
    """
    chosen, common = _settings(strategy, options, batch)
    if isinstance(chosen, Beam):
        raise UsageError('beam search cannot stream: its tokens are only known at the end. Use "greedy" or "sample"')
    stops = Stops(eos_id, common.stop, decode, common.max_sentences)
    constraints = _constraints(network, batch, common, Forced(common.max_new_tokens, first_id, last_id), decode)
    network = network if common.guidance is None else GuidedWriter(network, common.guidance)
    return _write(network, batch, common.max_new_tokens, chosen, stops, constraints, pad_id, Strings(decode, read))


def _settings(strategy: str, options: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[Strategy, _Common]:
    for name, value in batch.items():
        if (
            value is not None and not isinstance(value, Tensor) and not hasattr(value, "select")
        ):  # a cache to go on from
            raise _no_option(name)
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES, f"There are: {', '.join(STRATEGIES)}.")
    kind, own, common = STRATEGIES[strategy], {}, {}
    for name, value in options.items():
        if name in _names(kind):
            own[name] = value
        elif name in _names(_Common):
            common[name] = value
        elif owners := [other for other, settings in STRATEGIES.items() if name in _names(settings)]:
            raise UsageError(f'{name} belongs to the strategy "{owners[0]}"; this call decodes with "{strategy}"')
        else:
            raise _no_option(name)
    return kind(**own), _Common(**common)


def _no_option(name: str) -> UsageError:
    near = difflib.get_close_matches(name, OPTIONS, n=1)
    return UsageError(f'no decoding option "{name}"' + (f'; did you mean "{near[0]}"?' if near else ""))


def _constraints(
    network: WritesText, batch: Mapping[str, Any], common: _Common, forced: Forced, decode: Decode | None
) -> Constraints:
    context = prompt_text(network, batch) if common.no_repeat_ngram_size else None
    return Constraints(common.allowed, common.no_repeat_ngram_size, context, forced, decode)


@torch.inference_mode()
def _write(
    network: WritesText,
    batch: Mapping[str, Any],
    room: int,
    strategy: Greedy | Sample | Contrastive,
    stops: Stops,
    constraints: Constraints,
    pad_id: int,
    strings: Strings,
    on_token: OnToken | None = None,
) -> Iterator[Tensor]:
    step = network.start(room=room, **batch)
    choose: Choose = strategy.begin(network, step, room, batch, strings)
    num_rows, device = step.logits.shape[0], step.logits.device
    text = torch.full((num_rows, room), pad_id, dtype=torch.int64, device=device)
    written: list[list[int]] = [[] for _ in range(num_rows)]
    alive = list(range(num_rows))  # the prompts that the rows of the cache continue, in order
    rows = torch.arange(num_rows, device=device)
    going = [True] * num_rows
    fixed = has_fixed_rows(network)
    for at in range(room):
        so_far = text[:, :at] if len(alive) == num_rows else text[rows, :at]
        scores = constraints(step.logits, rows, so_far)
        token, ahead = choose(DecodingState(scores, step, rows, so_far, at))
        if not all(going[row] for row in alive):
            over = torch.tensor([not going[row] for row in alive], device=device)
            token = token.masked_fill(over, pad_id)
        text[rows, at] = token
        if on_token is not None:
            on_token(text[:, at], _probability(step.logits, token, rows, [going[row] for row in alive], num_rows))
        # The one wait for the device. The largest score is NaN where any is.
        finite = step.logits.amax(dim=1).isfinite()
        for row, (new, sound) in zip(alive, torch.stack([token, finite], dim=1).tolist(), strict=True):
            if going[row] and not sound:
                refuse(f"prompt {row}", step.hidden.dtype)
            if going[row]:
                written[row].append(new)
                going[row] = not stops.ends(written[row])
        yield text[:, at]
        if at + 1 == room or not any(going):
            return
        keep = [place for place, row in enumerate(alive) if going[row]]
        if not fixed and 2 * len(keep) <= len(
            alive
        ):  # rows that ended leave, at most log2(B) times: each copies the cache
            index = torch.tensor(keep, device=device)
            alive, rows, token = [alive[place] for place in keep], rows[index], token[index]
            step = keep_rows(step if ahead is None else ahead, index)
            ahead = None if ahead is None else step
        step = network.step(token, step.cache) if ahead is None else ahead


def _probability(logits: Tensor, token: Tensor, rows: Tensor, going: list[bool], num_rows: int) -> Tensor:
    """(B,) log-probabilities that the model gave to the chosen tokens, before any constraint; 0 for rows that ended."""
    found = logits.float().gather(1, token[:, None]).squeeze(1) - logits.float().logsumexp(dim=1)
    everyone = torch.zeros(num_rows, device=logits.device)
    everyone[rows] = found.masked_fill(~torch.tensor(going, device=logits.device), 0)
    return everyone
