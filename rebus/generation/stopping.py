"""When a text ends: at an end token, once a stop string was written, or after so many sentences."""

from collections.abc import Callable, Sequence

from rebus.core.errors import UsageError

Decode = Callable[[list[int]], str]


class Stops:
    """`ends(tokens)` says whether a text is over with its last token. Both the token and the string stay in it."""

    def __init__(
        self,
        eos_id: int | Sequence[int] | None,
        stop: str | Sequence[str] | None,
        decode: Decode | None,
        max_sentences: int | None = None,
    ):
        ids = [] if eos_id is None else [eos_id] if isinstance(eos_id, int) else eos_id
        self.eos = tuple(int(i) for i in ids)
        self.strings = stop_strings(stop)
        if max_sentences is not None and max_sentences < 1:
            raise UsageError(f"max_sentences must be at least 1; got {max_sentences}")
        if (self.strings or max_sentences is not None) and decode is None:
            asked = "stop strings need" if self.strings else "max_sentences needs"
            raise UsageError(f"{asked} decode: the function that turns token ids into text")
        self.decode, self.sentences = decode, max_sentences
        # A token holds at least a byte, or nothing if it is a special one; a few more tokens than bytes see it whole.
        self.window = max((len(string.encode("utf-8", "replace")) for string in self.strings), default=0) + 8

    def ends(self, tokens: list[int]) -> bool:
        if tokens[-1] in self.eos:
            return True
        if self.decode is None:
            return False
        if self.sentences is not None and self.decode(tokens).count(".") >= self.sentences:
            return True
        text = self.decode(tokens[-self.window :]) if self.strings else ""
        return any(string in text for string in self.strings)


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    strings = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(strings):
        raise UsageError("a stop string must not be empty")
    return strings


def cut(text: str, stop: str | Sequence[str] | None, max_sentences: int | None = None) -> str:
    """The text before the first stop string, up to the full stop of its last sentence."""
    ends = [at for at in (text.find(string) for string in stop_strings(stop)) if at >= 0]
    text = text[: min(ends)] if ends else text
    if max_sentences is None or text.count(".") < max_sentences:
        return text
    return ".".join(text.split(".")[:max_sentences]) + "."
