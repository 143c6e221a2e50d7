"""The routes of OpenAI's API: chat completions, embeddings, images."""

import base64
import io
import secrets
import time
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from rebus.core.errors import RebusError
from rebus.core.strict_json import to_json
from rebus.serve import bodies
from rebus.serve.chat import Call, call_of, options_of
from rebus.serve.exchange import ClientGone, Exchange, endpoint
from rebus.serve.failures import Refusal, refusal_of
from rebus.serve.openapi import takes
from rebus.serve.tickets import Ticket


def add_openai_routes(app: FastAPI) -> None:
    tags: list[str | Enum] = ["OpenAI"]
    app.post("/v1/chat/completions", tags=tags, **takes(bodies.Chat))(endpoint(chat_completions))
    app.post("/v1/embeddings", tags=tags, **takes(bodies.Embeddings))(endpoint(embeddings))
    app.post("/v1/images/generations", tags=tags, **takes(bodies.Images))(endpoint(images_generations))
    app.get("/v1/models", tags=tags)(endpoint(list_models))
    app.get("/v1/models/{model:path}", tags=tags)(endpoint(get_model))


async def chat_completions(exchange: Exchange) -> Any:
    """An answer about an image, or what follows a text with images; streamed or whole."""
    body = await exchange.json(bodies.Chat)
    served = exchange.service.models.get(body.model)
    call = call_of(served.model, body.messages)
    images = [await exchange.image(source, served) for source in call.images]
    options = options_of(body)
    ticket = await exchange.submit(served, call.task, *call.arguments(images), stream=body.stream, **options)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        events = exchange.events(ticket)
        first = await anext(events)  # what fails before the first token has a status of its own
        lines = _chunks(exchange, ticket, first, events, head, usage)
        return StreamingResponse(lines, media_type="text/event-stream")
    text = await exchange.answer(ticket)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "finish_reason": ticket.usage.finish,
        "logprobs": None,
    }
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(served.model, call, ticket, text)}


async def _chunks(
    exchange: Exchange,
    ticket: Ticket,
    first: tuple[str, Any],
    events: AsyncIterator[tuple[str, Any]],
    head: dict[str, Any],
    with_usage: bool,
) -> AsyncIterator[str]:
    head = {**head, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _line({**head, "choices": [choice], **({"usage": None} if with_usage else {})})

    try:
        yield chunk({"role": "assistant", "content": ""})
        state, value = first
        while state == "piece":
            yield chunk({"content": value})
            state, value = await anext(events)
        yield chunk({}, ticket.usage.finish)
        if with_usage:
            yield _line({**head, "choices": [], "usage": _tokens(ticket)})
        yield "data: [DONE]\n\n"
    except RebusError as error:
        yield _line(refusal_of(error, exchange.sent).body())
    except ClientGone:
        pass
    finally:
        exchange.close()


def _line(data: Any) -> str:
    return f"data: {to_json(data, ensure_ascii=False)}\n\n"


def _tokens(ticket: Ticket) -> dict[str, int]:
    read, written = ticket.usage.prompt_tokens, ticket.usage.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _usage(model: Any, call: Call, ticket: Ticket, answer: str) -> dict[str, int]:
    """Of answers that are not generated token by token: as many as their texts are read as."""
    usage, text = ticket.usage, model.processor.text
    if not usage.completion_tokens and text is not None:
        usage.prompt_tokens = len(text.tokenizer.encode(call.text))
        usage.completion_tokens = len(text.tokenizer.encode(answer))
    return _tokens(ticket)


async def embeddings(exchange: Exchange) -> Any:
    """Unit vectors of texts or images."""
    body = await exchange.json(bodies.Embeddings)
    served = exchange.service.models.get(body.model)
    if (body.input is None) == (body.messages is None):
        raise Refusal(400, "give either input or messages", "invalid_value", "input")
    if body.dimensions is not None and body.dimensions != served.dimensions:
        raise Refusal(400, f"dimensions of this model is {served.dimensions}", "invalid_value", "dimensions")
    inputs = [body.input] if isinstance(body.input, str) else list(body.input or [])
    modality: str = body.modality
    if body.messages is not None:
        inputs, modality = _of_messages(body.messages)
    if not inputs:
        raise Refusal(400, "input is empty", "invalid_value", "input")
    if len(inputs) > exchange.service.settings.max_queue:
        raise Refusal(413, f"{len(inputs):,} inputs in one request are too many", "limit_exceeded", "input")
    tickets, text = [], served.model.processor.text
    for value in inputs:
        if modality == "image":
            image = await exchange.image(value, served)
            tickets.append(await exchange.submit(served, "embed_images", image))
        else:
            tickets.append(await exchange.submit(served, "embed_texts", value))
    vectors = [(await exchange.answer(ticket)).numpy() for ticket in tickets]
    tokens = 0 if modality == "image" or text is None else sum(len(text.tokenizer.encode(one)) for one in inputs)
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


def _of_messages(messages: list[bodies.Message]) -> tuple[list[str], str]:
    """One text or one image, as other servers take the images of `messages`."""
    parts = [part for message in messages for part in _parts(message)]
    if len(parts) != 1:
        raise Refusal(400, "messages to embed hold one text or one image", "invalid_value", "messages")
    part = parts[0]
    return ([part.text], "text") if isinstance(part, bodies.TextPart) else ([part.image_url.url], "image")


def _parts(message: bodies.Message) -> list[bodies.TextPart | bodies.ImagePart]:
    content = message.content
    return [bodies.TextPart(type="text", text=content)] if isinstance(content, str) else list(content)


def _written(vector: np.ndarray, form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]


async def images_generations(exchange: Exchange) -> Any:
    """Images of what the prompt describes."""
    body = await exchange.json(bodies.Images)
    served = exchange.service.models.get(body.model)
    if body.size not in (None, "auto"):
        raise Refusal(400, "size is the model's own: leave it out, or give auto", "invalid_value", "size")
    seed = secrets.randbelow(2**63) if body.seed is None else body.seed
    seeds = [(seed + number) % 2**63 for number in range(body.n)]
    tickets = [await exchange.submit(served, "imagine", body.prompt, seed=one) for one in seeds]
    images = [await exchange.answer(ticket) for ticket in tickets]
    return {"created": int(time.time()), "data": [{"b64_json": png(image)} for image in images]}


def png(image: Any) -> str:
    """Base64 of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


async def list_models(exchange: Exchange) -> Any:
    """The models that are loaded, with their tasks, licences and dimensions."""
    return {"object": "list", "data": [served.to_json() for served in exchange.service.models]}


async def get_model(exchange: Exchange) -> Any:
    """One of them."""
    return exchange.service.models.get(exchange.request.path_params["model"]).to_json()
