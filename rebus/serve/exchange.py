"""One request from its body to its answer: read within limits, submitted, waited for, dropped when its client goes."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from PIL import Image
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from rebus.core.errors import RebusError
from rebus.serve.bodies import Body
from rebus.serve.failures import Refusal, refusal_of, refusal_of_fields
from rebus.serve.guard import too_long
from rebus.serve.images import AllowedHosts, allowed_hosts, bytes_of, decoded
from rebus.serve.indexes import ServedIndexes
from rebus.serve.metrics import Metrics
from rebus.serve.served import Served, ServedModels, sees_images
from rebus.serve.settings import ServeSettings
from rebus.serve.tickets import Ticket

Kind = TypeVar("Kind", bound=Body)
Result = TypeVar("Result")


@dataclass
class Service:
    """What all requests share."""

    settings: ServeSettings
    models: ServedModels
    indexes: ServedIndexes
    metrics: Metrics
    hosts: AllowedHosts = field(init=False)
    threads: anyio.CapacityLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.hosts = allowed_hosts(self.settings.allow_url)
        self.threads = anyio.CapacityLimiter(2 + (os.cpu_count() or 1))


class ClientGone(Exception):
    """Nobody reads the answer."""


class Exchange:
    """`sent` is what came, of which errors repeat nothing."""

    def __init__(self, request: Request):
        self.request = request
        self.service: Service = request.app.state.service
        self.sent: Any = dict(request.query_params)
        self.tickets: list[Ticket] = []
        self._gone: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """The body. Raises `Refusal` where it is too long or too slow."""
        data, most = bytearray(), self.service.settings.max_body
        try:
            async with asyncio.timeout(self.service.settings.timeout):
                async for piece in self.request.stream():
                    data += piece
                    if len(data) > most:
                        raise too_long(most)
        except TimeoutError:
            raise Refusal(408, "the body did not come in time", "timeout") from None
        self._gone = asyncio.create_task(self._until_gone())
        return bytes(data)

    async def json(self, kind: type[Kind]) -> Kind:
        """The body as one of `rebus.serve.bodies`."""
        return self.parse(kind, await self.read())

    def parse(self, kind: type[Kind], data: bytes) -> Kind:
        try:
            found = kind.model_validate_json(data)
        except ValidationError as error:
            raise refusal_of_fields(error) from None
        self.sent = [self.sent, found.model_dump()]
        return found

    @property
    def media_type(self) -> str:
        return self.request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def images(self, sources: Sequence[str | bytes], served: Served) -> list[Image.Image | RebusError]:
        """Upright images; in the place of one that is bad, why. Raises `Refusal` where the model sees none."""
        if not sees_images(served.model):
            raise Refusal(400, "this model sees no images", "no_images")
        if len(sources) > self.service.settings.max_images:
            most = self.service.settings.max_images
            raise Refusal(413, f"{len(sources):,} images in one request; at most {most:,} are taken", "limit_exceeded")
        found: list[Image.Image | RebusError] = []
        for source in sources:
            try:
                found.append(await self.any_image(source))
            except RebusError as error:
                found.append(error)
        return found

    async def any_image(self, source: str | bytes) -> Image.Image:
        """An upright image, whatever it is for. Raises `Refusal` or `RebusError`."""
        self.check_client()
        data = await self.in_thread("fetch", self._bytes, source) if isinstance(source, str) else source
        return await self.in_thread("decode", decoded, data)

    async def image(self, source: str | bytes, served: Served) -> Image.Image:
        """One image. Raises `Refusal` or `RebusError`."""
        (found,) = await self.images([source], served)
        if isinstance(found, RebusError):
            raise found
        return found

    def _bytes(self, source: str) -> bytes:
        return bytes_of(source, self.service.settings, self.service.hosts)

    async def in_thread(self, stage: str, work: Callable[..., Result], *args: Any) -> Result:
        begun = time.monotonic()
        try:
            return await anyio.to_thread.run_sync(functools.partial(work, *args), limiter=self.service.threads)
        finally:
            self.service.metrics.observe(stage, time.monotonic() - begun)

    async def submit(self, served: Served, task: str, *args: Any, **options: Any) -> Ticket:
        """`Batcher.submit`, in a thread: it reads pixels and tokens."""
        self.check_client()
        call = functools.partial(served.batcher.submit, task, *args, **options)
        ticket = await anyio.to_thread.run_sync(call, limiter=self.service.threads)
        self.tickets.append(ticket)
        return ticket

    async def ask(self, served: Served, task: str, *args: Any, **options: Any) -> Any:
        """The answer."""
        return await self.answer(await self.submit(served, task, *args, **options))

    async def answer(self, ticket: Ticket) -> Any:
        async for state, value in self.events(ticket):
            if state == "done":
                return value
        raise AssertionError

    async def events(self, ticket: Ticket) -> AsyncIterator[tuple[str, Any]]:
        """Pieces, then the end. Raises what went wrong, and `ClientGone`."""
        loop, changed, told = asyncio.get_running_loop(), asyncio.Event(), 0

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server ends
                loop.call_soon_threadsafe(changed.set)

        ticket.listen(wake)
        while True:
            changed.clear()
            while (event := ticket.event(told)) is not None:
                told += 1
                if event[0] == "failed":
                    raise event[1]
                yield event
                if event[0] == "done":
                    return
            await self._first(changed.wait())

    async def _first(self, waiting: Awaitable[Any]) -> None:
        """Wait, unless the client goes first."""
        task = asyncio.ensure_future(waiting)
        gone = [self._gone] if self._gone is not None else []
        try:
            await asyncio.wait([task, *gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
        self.check_client()

    def check_client(self) -> None:
        if self._gone is not None and self._gone.done():
            raise ClientGone

    async def _until_gone(self) -> None:
        """A busy handler would never notice otherwise."""
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self._drop()

    def close(self) -> None:
        """What is still under way is not wanted any more."""
        if self._gone is not None:
            self._gone.cancel()
        self._drop()

    def _drop(self) -> None:
        for ticket in self.tickets:
            if not ticket.done:
                ticket.cancel()


Handler = Callable[[Exchange], Awaitable[Any]]


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler as FastAPI takes it. It gives what becomes JSON, or a `Response`."""

    async def answering(request: Request) -> Response:
        exchange = Exchange(request)
        streams = False
        try:
            found = await handler(exchange)
            streams = isinstance(found, StreamingResponse)
            return found if isinstance(found, Response) else JSONResponse(found)
        except Refusal as refusal:
            return refusal.response()
        except RebusError as error:
            return refusal_of(error, exchange.sent).response()
        except ClientGone:
            return Response(status_code=499)
        finally:
            if not streams:  # else its stream ends it
                exchange.close()

    answering.__name__, answering.__doc__ = handler.__name__.strip("_"), handler.__doc__
    return answering
