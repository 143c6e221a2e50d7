"""Our own routes: classify, detect, segment, match and explain, of one image or many.

{"model": …, "image": …}  or an image as the body and the rest in the query
→ {"object": "list", "model": …, "data": [{"index", "image": {"width", "height"}, "predictions": […]}
                                          or {"index", "error"}]}
"""

import csv
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

from fastapi import FastAPI
from PIL import Image
from pydantic import ValidationError
from starlette.responses import Response

from rebus.core.answers import Box, Mask
from rebus.core.errors import RebusError
from rebus.core.strict_json import finite_or_none
from rebus.serve import bodies
from rebus.serve.exchange import Exchange, endpoint
from rebus.serve.failures import Refusal, refusal_of, refusal_of_fields
from rebus.serve.images import small_copy
from rebus.serve.masks import heat_png, mask_json
from rebus.serve.openapi import takes
from rebus.serve.served import Served
from rebus.serve.tickets import QueueFull, Ticket
from rebus.tasks.explain import Explanation

RAW = ("image/*", "application/octet-stream")
_SIDE = 2048  # pixels, of what is drawn for a page
_LISTS = ("labels", "phrases", "texts")
OfImages = TypeVar("OfImages", bound=bodies.OfImages)


def add_task_routes(app: FastAPI) -> None:
    tags: list[str | Enum] = ["tasks"]
    for path, kind, handler in (
        ("/v1/classify", bodies.Classify, classify),
        ("/v1/detect", bodies.Detect, detect),
        ("/v1/segment", bodies.Segment, segment),
        ("/v1/match", bodies.Match, match),
        ("/v1/explain", bodies.Explain, explain),
    ):
        query = [name for name in kind.model_fields if name not in ("image", "images")]
        app.post(path, tags=tags, **takes(kind, RAW, query))(endpoint(handler))
    app.post("/v1/preview", tags=tags, **takes(None, RAW))(endpoint(preview))


async def classify(exchange: Exchange) -> Any:
    """The labels with their probabilities, best first."""
    body, sources = await read(exchange, bodies.Classify)

    async def ask(served: Served, image: Image.Image) -> list[Ticket]:
        return [await exchange.submit(served, "classify", image, body.labels)]

    def told(rankings: Sequence[Any]) -> list[dict[str, Any]]:
        return [one for one in rankings[0].to_json() if is_sure(one["probability"], body.threshold)]

    return await _each(exchange, body.model, sources, ask, told)


async def detect(exchange: Exchange) -> Any:
    """Boxes of the labelled things, xyxy in pixels of the upright image."""
    body, sources = await read(exchange, bodies.Detect)

    async def ask(served: Served, image: Image.Image) -> list[Ticket]:
        return [await exchange.submit(served, "detect", image, body.labels)]

    def told(answers: Sequence[list[Box]]) -> list[dict[str, Any]]:
        return [box.to_json() for box in answers[0] if is_sure(box.score, body.threshold)]

    return await _each(exchange, body.model, sources, ask, told)


async def segment(exchange: Exchange) -> Any:
    """Masks of the things that the phrases name, as large as the upright image."""
    body, sources = await read(exchange, bodies.Segment)

    async def ask(served: Served, image: Image.Image) -> list[Ticket]:
        return [await exchange.submit(served, "segment", image, phrase) for phrase in body.phrases]

    def told(answers: Sequence[list[Mask]]) -> list[dict[str, Any]]:
        masks = (mask for found in answers for mask in found)
        return [mask_json(mask, body.mask_format) for mask in masks if is_sure(mask.score, body.threshold)]

    return await _each(exchange, body.model, sources, ask, told)


async def match(exchange: Exchange) -> Any:
    """How well the image goes with each of the texts, in their order."""
    body, sources = await read(exchange, bodies.Match)

    async def ask(served: Served, image: Image.Image) -> list[Ticket]:
        return [await exchange.submit(served, "match", image, body.texts)]

    def told(scores: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"index": index, "score": score} for index, score in enumerate(scores[0].flatten().tolist())]

    return await _each(exchange, body.model, sources, ask, told)


async def explain(exchange: Exchange) -> Any:
    """Where each of the texts is seen: a grey PNG of the shape of the image, white where most, and the text's score."""
    body, sources = await read(exchange, bodies.Explain)

    async def ask(served: Served, image: Image.Image) -> list[Ticket]:
        return [await exchange.submit(served, "explain", image, text) for text in body.texts]

    def told(found: Sequence[Explanation]) -> list[dict[str, Any]]:
        return [
            {"index": i, "score": finite_or_none(one.score, 6), "png": heat_png(one)} for i, one in enumerate(found)
        ]

    return await _each(exchange, body.model, sources, ask, told)


async def preview(exchange: Exchange) -> Any:
    """The image of the body as an upright PNG of at most 2,048 pixels a side, for who cannot show its format."""
    data = await exchange.read()
    if not is_raw(exchange.media_type):
        raise Refusal(415, "the body is an image of type image/…", "unsupported_media_type")
    return Response(await exchange.in_thread("decode", small_copy, data, _SIDE, "PNG"), media_type="image/png")


def is_sure(score: float, threshold: float) -> bool:
    """A score that is missing passes where nothing is asked of it."""
    return threshold == 0 or score >= threshold


async def read(exchange: Exchange, kind: type[OfImages]) -> tuple[OfImages, Sequence[str | bytes]]:
    """The request, and its images: texts in JSON, or the body itself with the rest in the query."""
    data = await exchange.read()
    if exchange.media_type == "application/json":
        body = exchange.parse(kind, data)
        if (body.image is None) == (body.images is None):
            raise Refusal(400, "give either image or images", "missing_parameter", "image")
        return body, [body.image] if body.image is not None else list(body.images or [])
    if not is_raw(exchange.media_type):
        raise Refusal(415, "the body is JSON, or an image of type image/…", "unsupported_media_type")
    query: dict[str, Any] = dict(exchange.request.query_params)
    for name in _LISTS:
        if name in query:
            query[name] = listed(query[name])
    try:
        return kind.model_validate(query, strict=False), [data]
    except ValidationError as error:
        raise refusal_of_fields(error) from None


def is_raw(media_type: str) -> bool:
    return media_type.startswith("image/") or media_type == "application/octet-stream"


def listed(text: str) -> list[str]:
    """`a,b,"c, d"` of a query."""
    try:
        return next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error:
        raise Refusal(400, "a list in the query: texts separated by commas", "invalid_value") from None


async def _each(
    exchange: Exchange,
    name: str,
    sources: Sequence[str | bytes],
    ask: Callable[[Served, Image.Image], Awaitable[list[Ticket]]],
    told: Callable[[Sequence[Any]], list[dict[str, Any]]],
) -> Any:
    """One entry an image. A bad one fails alone; a request of one image fails with it."""
    served = exchange.service.models.get(name)
    images = await exchange.images(sources, served)
    alone = len(images) == 1
    asked: list[list[Ticket] | RebusError] = []
    for image in images:
        try:
            if isinstance(image, RebusError):
                raise image
            asked.append(await ask(served, image))
        except QueueFull:
            raise  # the client is to come again with all of them
        except RebusError as error:
            if alone:
                raise
            asked.append(error)
    data: list[dict[str, Any]] = []
    for index, (image, tickets) in enumerate(zip(images, asked, strict=True)):
        try:
            if isinstance(tickets, RebusError) or isinstance(image, RebusError):
                raise tickets  # type: ignore[misc]
            predictions = told([await exchange.answer(ticket) for ticket in tickets])
            size = {"width": image.width, "height": image.height}
            data.append({"index": index, "image": size, "predictions": predictions})
        except RebusError as error:
            if alone:
                raise
            data.append({"index": index, **refusal_of(error, exchange.sent).body()})
    return {"object": "list", "model": name, "data": data}
