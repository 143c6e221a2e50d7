"""What went wrong as an answer: `{"error": {message, type, param, code}}`, which never repeats what was sent."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from rebus.core.errors import (
    BadImage,
    BadText,
    LimitExceeded,
    MissingExtra,
    MissingFile,
    NotFinite,
    RebusError,
    UnknownName,
    UnsupportedTask,
    UsageError,
)
from rebus.serve.tickets import OutOfMemory, QueueFull, TooLate


class Refusal(Exception):
    """An answer that is an error. `message` is ours alone: nothing of the request is in it."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: tuple[tuple[type[RebusError], int, str], ...] = (  # the first that fits
    (OutOfMemory, 503, "out_of_memory"),
    (TooLate, 504, "timeout"),
    (NotFinite, 500, "not_finite"),
    (LimitExceeded, 413, "limit_exceeded"),
    (UnsupportedTask, 400, "unsupported_task"),
    (UnknownName, 400, "unknown_name"),
    (UsageError, 400, "invalid_value"),
    (BadImage, 400, "bad_image"),
    (BadText, 400, "bad_text"),
    (MissingExtra, 400, "missing_extra"),
    (MissingFile, 400, "missing_file"),
)


def refusal_of(error: RebusError, sent: Any) -> Refusal:
    """The error of a task as an answer. `sent`: the request, of which nothing is repeated."""
    if isinstance(error, QueueFull):
        return Refusal(429, str(error), "queue_full", headers={"Retry-After": str(error.retry_after)})
    found = next(((status, code) for kind, status, code in _CODES if isinstance(error, kind)), (500, "failed"))
    return Refusal(found[0], without(str(error), sent), found[1])


def refusal_of_fields(error: ValidationError) -> Refusal:
    """The first of the fields that do not fit."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    at = ".".join(_shown(part) for part in first["loc"] if not str(part).startswith(("function-", "tagged-union")))
    if first["type"] == "json_invalid":
        return Refusal(400, "the body is not JSON", "invalid_json")
    if first["type"] == "extra_forbidden":
        return Refusal(400, f"there is no parameter {at}", "unknown_parameter", at)
    if first["type"] == "missing":
        return Refusal(400, f"{at} is missing", "missing_parameter", at)
    said = "is of no known type" if first["type"].startswith("union_tag") else first["msg"]
    return Refusal(400, f"{at or 'the body'}: {said}", "invalid_value", at or None)


def _shown(part: Any) -> str:
    """A name or a number of a place in the request, of a sane length."""
    return str(part) if re.fullmatch(r"[A-Za-z_0-9][\w.-]{0,47}", str(part), re.ASCII) else "…"


_RUN = 8  # characters in a row that are no coincidence


def without(message: str, sent: Any) -> str:
    """The message with "…" for whatever is in the request too: runs of at least 8 characters, and whole short texts
    in quotes."""
    message = message[:2000]
    texts = [text for text in _texts(sent) if text]
    for short in {text for text in texts if len(text) < _RUN}:
        message = message.replace(repr(short), "…").replace(f'"{short}"', "…")
    longer = "\n".join(text for text in texts if len(text) >= _RUN)
    hidden = [False] * len(message)
    for at in range(len(message) - _RUN + 1):
        if longer and message[at : at + _RUN] in longer:
            hidden[at : at + _RUN] = [True] * _RUN
    shown = ("\0" if gone else sign for sign, gone in zip(message, hidden, strict=True))
    return re.sub("\0+", "…", "".join(shown))


def _texts(sent: Any) -> Iterator[str]:
    """All texts in a request, names of fields among them."""
    if isinstance(sent, str):
        yield sent[:1_000_000]
    elif isinstance(sent, Mapping):
        for name, value in sent.items():
            yield from _texts(name)
            yield from _texts(value)
    elif isinstance(sent, list | tuple):
        for value in sent:
            yield from _texts(value)
