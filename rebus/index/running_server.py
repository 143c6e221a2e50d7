"""A running `rebus serve` that has an index open answers a search by words at once: its text encoder is loaded.

It says so in a file, `servers/<process id>.json` in the cache of rebus, that holds its address, a key if it asks for
one, and the indexes that it serves by their root folders.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rebus.core.cache import cache_home
from rebus.core.small_files import read_small
from rebus.index.conditions import Conditions
from rebus.index.search import Hit, Term

FOLDER = "servers"
_PATIENCE = 5.0  # seconds for an answer, after which the search is made here


def ask_server(
    root: Path, terms: Sequence[Term], conditions: Conditions, number: int, by_date: bool
) -> list[Hit] | None:
    """The answer of a server on this machine; None where none has this index, or none answers."""
    for server in _servers():
        name = server.get("indexes", {}).get(os.path.realpath(root))
        if isinstance(name, str):
            question = {
                "terms": [{name: value for name, value in asdict(term).items() if value is not None} for term in terms],
                "conditions": asdict(conditions),
                "number": number,
                "sort": "date" if by_date else "score",
            }
            found = _post(server, f"/v1/search/{quote(name, safe='')}", question)
            if found is not None:
                return found
    return None


def _servers() -> Iterator[dict[str, Any]]:
    """Those whose process lives, the latest first."""
    files = (cache_home() / FOLDER).glob("*.json")
    for file in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True):
        with suppress(OSError, ValueError):
            os.kill(int(file.stem), 0)
            found = json.loads(read_small(file))
            if isinstance(found, dict) and str(found.get("url", "")).startswith("http://127.0.0.1:"):
                yield found


def _post(server: dict[str, Any], path: str, question: dict[str, Any]) -> list[Hit] | None:
    headers = {"Content-Type": "application/json"}
    if server.get("key"):
        headers["Authorization"] = f"Bearer {server['key']}"
    request = urllib.request.Request(server["url"].rstrip("/") + path, json.dumps(question).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            return [Hit(**one) for one in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return None
