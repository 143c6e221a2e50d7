"""Refused before any work: foreign hosts and pages, strangers without the key, bodies that are too long.

A server on loopback can be reached by every page that its user opens. So the name it is called by must be its own (DNS
rebinding), a page that calls it must come from it, and no CORS header is ever sent.
"""

import asyncio
import base64
import contextlib
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rebus.serve.failures import Refusal
from rebus.serve.metrics import Metrics
from rebus.serve.settings import ServeSettings

OPEN = ("/livez", "/readyz")  # routes without a key
_HELD = 16  # bodies of the largest size that all requests together may hold


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics
        self.requests = self.bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        try:
            self._check_caller(headers, scope["method"], scope["path"])
            size = self._check_size(headers)
        except Refusal as refusal:
            self.metrics.answered("refused", refusal.status)
            await refusal.response()(scope, receive, send)
            return
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in _ALWAYS if one[0] not in own)]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            status = 499  # nginx's number for a client that has gone
            raise
        finally:
            self.requests, self.bytes = self.requests - 1, self.bytes - size
            route = scope.get("route")
            self.metrics.answered(getattr(route, "path", "unknown"), status)

    def _check_caller(self, headers: Headers, method: str, path: str) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.settings.is_host(_name(hosts[0])):
            raise Refusal(400, "this server is not called by that name: see --allow-host", "foreign_host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != hosts[0]:
            raise Refusal(403, "a page of another site may not call this server", "foreign_origin")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not _follows_link(headers, method, path):
            raise Refusal(403, "a page of another site may not call this server", "foreign_origin")
        if path not in OPEN and self.settings.api_key is not None:
            key = _key(headers.get("authorization", ""))
            if key is None or not self.settings.is_key(key):
                challenge = {"WWW-Authenticate": _ASKS if _is_page(headers, path) else "Bearer"}
                raise Refusal(401, "a key is wanted: Authorization: Bearer KEY", "invalid_api_key", headers=challenge)

    def _check_size(self, headers: Headers) -> int:
        """The bytes that the body may have."""
        announced = headers.get("content-length", "")
        if "content-encoding" in headers:
            raise Refusal(415, "bodies are taken as they are, without Content-Encoding", "encoded_body")
        most = self.settings.max_body
        size = most if "transfer-encoding" in headers else int(announced) if announced.isdecimal() else 0
        if size > most:
            raise too_long(most)
        full = self.requests >= self.settings.max_queue * 2 + self.settings.max_batch
        if full or (self.requests and self.bytes + size > _HELD * most):
            raise Refusal(429, "too many requests at once; try again later", "queue_full", headers={"Retry-After": "1"})
        return size


# A browser asks for a password, sends it to this origin alone, and lets no script read it.
_ASKS = 'Basic realm="rebus (any user name; the key is the password)", charset="UTF-8"'


def _key(authorization: str) -> str | None:
    """Of `Bearer KEY`, or the password of `Basic`, which is how a browser sends it."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
    return None


def _is_page(headers: Headers, path: str) -> bool:
    """A browser opens the page itself."""
    return path == "/" and "text/html" in headers.get("accept", "")


def _follows_link(headers: Headers, method: str, path: str) -> bool:
    """To the page, which does nothing by itself and is not shown in a frame."""
    opens = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return opens and method == "GET" and path == "/"


_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


def too_long(most: int) -> Refusal:
    return Refusal(413, f"the body is longer than the {most:,} bytes that are taken (--max-body)", "body_too_long")


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
