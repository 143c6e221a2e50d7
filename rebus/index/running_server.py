"""A running server that has an index open answers text queries at once: its text encoder is loaded.

`registered` is the server's part: it says in `servers/<process id>.json` in the cache of rebus where it is and what it
serves. `answer` is what its route `POST /v1/search/{name}` gives; `ask_server` is the part of `rebus search`.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rebus.core.cache import cache_home
from rebus.core.errors import UsageError, unknown
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.index.conditions import Conditions
from rebus.index.search import Hit, Index, Term

_PATIENCE = 5.0  # seconds for an answer, after which the search is made here
_MOST = 10_000  # images of an answer
_MOST_TERMS = 64


@contextmanager
def registered(url: str, indexes: Mapping[str, Index], key: str | None = None) -> Iterator[None]:
    """While the block runs, searches on this machine ask the server at `url`. `indexes`: by the names of their routes;
    `key`: what it asks for as a bearer token, in a file that its user alone can read."""
    folder = cache_home() / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"url": url, "key": key, "indexes": {str(index.root): name for name, index in indexes.items()}}
    file = folder / f"{os.getpid()}.json"
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
        out.write(to_json(about))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def answer(index: Index, question: Any) -> dict[str, Any]:
    """`{"object": "list", "data": [hits]}` of a question as `ask_server` puts it; images are never opened by path.
    Raises `UsageError` naming what is wrong."""
    known = {"terms", "conditions", "number", "sort"}
    if not isinstance(question, dict) or not set(question) <= known:
        raise UsageError(f"a search must be an object of {', '.join(sorted(known))}")
    terms = question.get("terms", [])
    if not isinstance(terms, list) or len(terms) > _MOST_TERMS:
        raise UsageError(f"terms: expected a list of at most {_MOST_TERMS}")
    number, sort = question.get("number", 20), question.get("sort", "score")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST:
        raise UsageError(f"number: expected a whole number from 1 to {_MOST:,}")
    if sort not in ("score", "date"):
        raise UsageError('sort: expected "score" or "date"')
    found = index.search(
        [_term(one) for one in terms],
        conditions=_conditions(question.get("conditions", {})),
        number=number,
        by_date=sort == "date",
    )
    return {"object": "list", "data": [asdict(hit) for hit in found]}


def _term(one: Any) -> Term:
    if not isinstance(one, dict) or not set(one) <= {"text", "weight"} or not isinstance(one.get("text"), str):
        raise UsageError("terms: each needs a text, and perhaps a weight")
    return Term(text=one["text"], weight=_number(one.get("weight", 1.0), "weight"))


def _conditions(given: Any) -> Conditions:
    names = {one.name for one in fields(Conditions)}
    if not isinstance(given, dict):
        raise UsageError("conditions: expected an object")
    for name in given:
        if name not in names:
            raise unknown("condition", name, names)
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        for name in ("since", "until"):
            if name in values:
                values[name] = _number(values[name], name)
        if "larger" in values:
            width, height = values["larger"]
            values["larger"] = int(width), int(height)
        values["kinds"] = tuple(str(kind) for kind in values.get("kinds", ()))
        values["labels"] = tuple(
            (str(label), {"<": "<", ">": ">"}[sign], _number(least, "labels"))
            for label, sign, least in values.get("labels", ())
        )
        if not isinstance(values.get("under", ""), str):
            raise TypeError
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError("conditions: a value has the wrong type") from None
    return Conditions(**values)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise UsageError(f"{name}: expected a number")
    return float(value)


def ask_server(
    root: Path, terms: Sequence[Term], conditions: Conditions, number: int, by_date: bool
) -> list[Hit] | None:
    """The answer of a server on this machine; None where none has this index, or none answers."""
    if number > _MOST or any(term.text is None for term in terms):
        return None
    for server in _servers():
        name = server["indexes"].get(os.path.realpath(root))
        if isinstance(name, str):
            question = {
                "terms": [{"text": term.text, "weight": term.weight} for term in terms],
                "conditions": asdict(conditions),
                "number": number,
                "sort": "date" if by_date else "score",
            }
            found = _post(server, name, question)
            if found is not None:
                return found
    return None


def _servers() -> Iterator[dict[str, Any]]:
    """Those of this machine whose process lives."""
    for file in sorted((cache_home() / "servers").glob("*.json")):
        with suppress(OSError, ValueError):
            os.kill(int(file.stem), 0)
            found = json.loads(read_small(file))
            local = isinstance(found, dict) and str(found.get("url", "")).startswith("http://127.0.0.1:")
            if local and isinstance(found.get("indexes"), dict):
                yield found


def _post(server: Mapping[str, Any], name: str, question: Mapping[str, Any]) -> list[Hit] | None:
    import http.client
    from urllib.parse import quote, urlsplit

    headers = {"Content-Type": "application/json"}
    if server.get("key"):
        headers["Authorization"] = f"Bearer {server['key']}"
    try:
        line = http.client.HTTPConnection(urlsplit(server["url"]).netloc, timeout=_PATIENCE)
        line.request("POST", f"/v1/search/{quote(name, safe='')}", to_json(question), headers)
        got = line.getresponse()
        return [Hit(**one) for one in json.load(got)["data"]] if got.status == 200 else None
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return None
