"""A running server that has an index open answers text queries at once: its text encoder is loaded.

`registered` is the server's part: it says in `servers/<process id>.json` in the cache of rebus where it is and what it
serves. `ask_server` is the part of `rebus search`: it calls the route `POST /v1/search/{name}` (`rebus.serve`).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from rebus.core.cache import cache_home
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.index.conditions import Conditions
from rebus.index.search import Hit, Index, Term

_PATIENCE = 5.0  # seconds for an answer, after which the search is made here
MOST, MOST_TERMS = 10_000, 64  # images of an answer, parts of a question


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


def ask_server(
    root: Path, terms: Sequence[Term], conditions: Conditions, number: int, by_date: bool
) -> list[Hit] | None:
    """The answer of a server on this machine; None where none has this index, or none answers."""
    if number > MOST or len(terms) > MOST_TERMS or any(term.text is None or term.weight == 0 for term in terms):
        return None
    for server in _servers():
        name = server["indexes"].get(os.path.realpath(root))
        if isinstance(name, str):
            found = _post(server, root, name, _question(terms, conditions, number, by_date))
            if found is not None:
                return found
    return None


def _question(terms: Sequence[Term], conditions: Conditions, number: int, by_date: bool) -> dict[str, Any]:
    """The body of the route."""
    plus, minus = ([term for term in terms if (term.weight > 0) == wanted] for wanted in (True, False))
    body: dict[str, Any] = {
        "texts": [term.text for term in plus],
        "minus": [term.text for term in minus],
        "weights": [abs(term.weight) for term in (*plus, *minus)],
        "top": number,
        "sort": "date" if by_date else "score",
        "since": conditions.since,
        "until": conditions.until,
        "under": conditions.under,
        "larger": None if conditions.larger is None else "{}x{}".format(*conditions.larger),
        "types": list(conditions.kinds),
        "labels": [f"{label}{sign}{least:.17f}" for label, sign, least in conditions.labels],
    }
    return {name: value for name, value in body.items() if value not in (None, [])}


def _servers() -> Iterator[dict[str, Any]]:
    """Those of this machine whose process lives."""
    for file in sorted((cache_home() / "servers").glob("*.json")):
        with suppress(OSError, ValueError):
            os.kill(int(file.stem), 0)
            found = json.loads(read_small(file))
            local = isinstance(found, dict) and str(found.get("url", "")).startswith("http://127.0.0.1:")
            if local and isinstance(found.get("indexes"), dict):
                yield found


def _post(server: Mapping[str, Any], root: Path, name: str, question: Mapping[str, Any]) -> list[Hit] | None:
    import http.client
    from urllib.parse import quote, urlsplit

    headers = {"Content-Type": "application/json"}
    if server.get("key"):
        headers["Authorization"] = f"Bearer {server['key']}"
    try:
        with closing(http.client.HTTPConnection(urlsplit(server["url"]).netloc, timeout=_PATIENCE)) as line:
            line.request("POST", f"/v1/search/{quote(name, safe='')}", to_json(question), headers)
            got = line.getresponse()
            return [_hit(root, one) for one in json.load(got)["data"]] if got.status == 200 else None
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return None


def _hit(root: Path, found: Mapping[str, Any]) -> Hit:
    values = {name: found[name] for name in ("score", "taken", "size", "id", "caption")}
    return Hit(path=os.path.join(os.path.realpath(root), found["path"]), **found["image"], **values)
