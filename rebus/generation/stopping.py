"""When a text ends: at an end token, or once a stop string was written."""

from collections.abc import Callable, Sequence

from rebus.core.errors import UsageError

Decode = Callable[[list[int]], str]


class Stops:
    """`ends(tokens)` says whether a text is over with its last token. Both the token and the string stay in it."""

    def __init__(self, eos_id: int | Sequence[int] | None, stop: str | Sequence[str] | None, decode: Decode | None):
        ids = [] if eos_id is None else [eos_id] if isinstance(eos_id, int) else eos_id
        self.eos = tuple(int(i) for i in ids)
        self.strings = stop_strings(stop)
        if self.strings and decode is None:
            raise UsageError("stop strings want decode: the function that turns token ids into text")
        self.decode = decode
        # A token holds at least a byte, or nothing if it is a special one; a few more tokens than bytes see it whole.
        self.window = max((len(string.encode("utf-8", "replace")) for string in self.strings), default=0) + 8

    def ends(self, tokens: list[int]) -> bool:
        if tokens[-1] in self.eos:
            return True
        if not self.strings or self.decode is None:
            return False
        text = self.decode(tokens[-self.window :])
        return any(string in text for string in self.strings)


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    strings = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(strings):
        raise UsageError("a stop string must not be empty")
    return strings


def cut(text: str, stop: str | Sequence[str] | None) -> str:
    """The text before the first stop string."""
    ends = [at for at in (text.find(string) for string in stop_strings(stop)) if at >= 0]
    return text[: min(ends)] if ends else text
