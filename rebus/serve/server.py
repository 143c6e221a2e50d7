"""`serve`: uvicorn in this process, with what it lacks when it is exposed bare."""

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rebus.core.errors import RebusError
from rebus.index.running_server import registered
from rebus.index.search import Index
from rebus.serve.app import create_app
from rebus.serve.settings import ServeSettings

HEADER_SECONDS = 8.0  # from a connection, or the end of an answer, to the end of the next headers


class TimedH11(H11Protocol):
    """uvicorn waits for the end of headers as long as a byte comes now and then; here the connection is closed."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._stop_watching()
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def serve(
    sources: Sequence[str],
    settings: ServeSettings,
    load: Callable[[str], Any],
    started: Callable[[], None] = lambda: None,
    indexes: Sequence[Index] = (),
) -> None:
    """Answer until interrupted; meanwhile `rebus search` on this machine asks here what `indexes` have. Raises
    `RebusError` where a model cannot be loaded or the port is taken."""
    problem: list[RebusError] = []

    def failed(error: RebusError) -> None:
        problem.append(error)
        server.should_exit = True

    app = create_app(sources, settings, load, failed, indexes)
    named = dict(app.state.service.indexes)

    def listening() -> None:
        if named and settings.host in ("127.0.0.1", "localhost", "0.0.0.0"):
            port = server.servers[0].sockets[0].getsockname()[1]
            server.meanwhile.enter_context(registered(f"http://127.0.0.1:{port}", named, settings.api_key))
        started()

    server = Server(configuration(app, settings), listening)
    with _bound(settings) as taken:  # before anything is loaded
        server.run([taken])
    if problem:
        raise problem[0]


def _bound(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError:
        raise RebusError(f"{settings.host}:{settings.port} cannot be listened on; is it taken? --port N") from None


def configuration(app: Any, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=TimedH11,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(HEADER_SECONDS),
        timeout_graceful_shutdown=5,
        backlog=1024,
        h11_max_incomplete_event_size=32_768,
    )


class Server(uvicorn.Server):
    """uvicorn's, which tells when it listens. `meanwhile` ends with it, before the signal that ended it is raised."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._told = started
        self.meanwhile = ExitStack()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._told()
        sys.stdout.flush()

    async def shutdown(self, sockets: Any = None) -> None:
        self.meanwhile.close()
        await super().shutdown(sockets)
