"""Searches of indexed folders, and small copies of the images that they find.

{"texts": ["a dog"], "minus": ["people"], "top": 5}
→ {"object": "list", "model": …, "data": [{"index", "id", "path", "score", "image": {"width", "height"}, …}]}
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from fastapi import FastAPI
from PIL import Image
from starlette.responses import Response

from rebus.core.errors import BadImage, MissingFile
from rebus.core.strict_json import to_json
from rebus.index.conditions import Conditions, read_date, read_label, read_size
from rebus.index.running_server import MOST_TERMS
from rebus.index.search import MINUS, Hit, Index, Term
from rebus.serve import bodies
from rebus.serve.exchange import Exchange, endpoint
from rebus.serve.failures import Refusal
from rebus.serve.images import small_copy
from rebus.serve.indexes import file_of
from rebus.serve.openapi import takes

_SIDES = range(16, 2049)  # of the copies, in pixels


def add_search_routes(app: FastAPI) -> None:
    tags: list[str | Enum] = ["search"]
    app.get("/v1/search", tags=tags)(endpoint(list_indexes))
    app.post("/v1/search/{index}", tags=tags, **takes(bodies.Search))(endpoint(search))
    app.get("/v1/search/{index}/images/{id}", tags=tags, **takes(None, query=["side"]))(endpoint(indexed_image))


async def list_indexes(exchange: Exchange) -> Any:
    """The indexes, with their models and the number of their images."""
    data = [
        {"id": name, "object": "index", "model": index.manifest.model, "images": len(index)}
        for name, index in exchange.service.indexes
    ]
    return {"object": "list", "data": data}


async def search(exchange: Exchange) -> Any:
    """The images that are nearest, best first; without texts and images the newest. Paths are below the folder."""
    body = await exchange.json(bodies.Search)
    indexes = exchange.service.indexes
    index = indexes.get(exchange.request.path_params["index"])
    sources = [*([] if body.image is None else [body.image]), *(body.images or [])]
    terms = _terms(body, [await exchange.any_image(source) for source in sources])
    conditions = _conditions(body)

    def found() -> list[Hit]:
        indexes.with_images(index, terms, exchange.service.models.image_encoder)
        return index.search(terms, conditions=conditions, number=body.top, by_date=body.sort == "date")

    hits = await exchange.in_thread("search", found)
    data = [_entry(index, number, hit) for number, hit in enumerate(hits)]
    answer = {"object": "list", "model": index.manifest.model, "data": data}
    return Response(to_json(answer), media_type="application/json")  # ASCII: names of files need not be text


def _terms(body: bodies.Search, images: Sequence[Image.Image]) -> list[Term]:
    plus = [Term(text=text) for text in (*([] if body.text is None else [body.text]), *(body.texts or []))]
    plus += [Term(image=image) for image in images]
    minus = body.minus or []
    if minus and not plus:
        raise Refusal(400, "minus subtracts from a text or an image: give one of them too", "invalid_value", "minus")
    given = body.weights or []
    if len(plus) + len(minus) > MOST_TERMS:
        raise Refusal(413, f"more than {MOST_TERMS} texts and images in one search", "limit_exceeded")
    if len(given) > len(plus) + len(minus):
        raise Refusal(400, "there are more weights than texts and images", "invalid_value", "weights")
    usual = [*[1.0] * len(plus), *[MINUS] * len(minus)]
    weights = [*given, *usual[len(given) :]]
    signed = [*weights[: len(plus)], *(-weight for weight in weights[len(plus) :])]
    terms = [*plus, *(Term(text=text) for text in minus)]
    return [replace(term, weight=weight) for term, weight in zip(terms, signed, strict=True)]


def _conditions(body: bodies.Search) -> Conditions:
    """Raises `UsageError`."""
    since, until = body.since, body.until
    return Conditions(
        since=read_date(since) if isinstance(since, str) else since,
        until=read_date(until, end=True) if isinstance(until, str) else until,
        under=body.under,
        larger=None if body.larger is None else read_size(body.larger),
        kinds=tuple(body.types or ()),
        labels=tuple(read_label(one) for one in body.labels or ()),
    )


def _entry(index: Index, number: int, hit: Hit) -> dict[str, Any]:
    return {
        "index": number,
        "id": hit.id,
        "path": hit.path.removeprefix(str(index.root)).lstrip("/"),
        "score": hit.score,
        "image": {"width": hit.width, "height": hit.height},
        "size": hit.size,
        "taken": hit.taken,
        "caption": hit.caption,
    }


async def indexed_image(exchange: Exchange) -> Any:
    """An image that a search found, by its `id`: upright, as JPEG, at most `side` pixels wide and high."""
    path, query = exchange.request.path_params, exchange.request.query_params
    index = exchange.service.indexes.get(path["index"])
    for name in query:
        if name != "side":
            raise Refusal(400, "the one parameter of this route is side", "unknown_parameter")
    side, id = _number(query.get("side", "320")), _number(path["id"])
    if side not in _SIDES:
        raise Refusal(400, f"side is a number of pixels from {_SIDES[0]} to {_SIDES[-1]}", "invalid_value", "side")
    if id is None:
        raise Refusal(404, "this index has no such image", "image_not_found", "id")
    try:
        data = await exchange.in_thread("decode", small_copy, file_of(index, id), side, "JPEG")
    except (BadImage, MissingFile):  # their messages have its whole path
        raise Refusal(404, "the file of this image cannot be read now", "image_unreadable", "id") from None
    return Response(data, media_type="image/jpeg")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
