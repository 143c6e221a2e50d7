"""One web address → the bytes of its file, within a number of bytes and seconds.

Nothing is taken from the environment: no proxies, no passwords. No compressed answers are asked for or taken, so what
is counted is what comes.
"""

import email.utils
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from rebus import __version__
from rebus.data.downloading.addresses import Addresses
from rebus.data.downloading.failure import Failure

MAX_REDIRECTS = 5
MAX_WAIT = 30.0  # seconds: the longest Retry-After that is waited for
_PIECE = 1 << 16
_BESIDE = 1 << 20  # bytes of headers and of the sizes of chunks, beside the file
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429)  # and all from 500 on
_NOT_FOR_TRAINING = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_HEADERS = {
    "User-Agent": f"rebus/{__version__}",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
}


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What one file may cost. `timeout`: seconds without a byte. `max_seconds`: of the whole, redirects included."""

    timeout: float = 10.0
    max_seconds: float = 30.0
    max_bytes: int = 20_000_000


@dataclass(frozen=True)
class Target:
    """The parts of a web address that are needed to ask for it."""

    secure: bool
    host: str
    port: int
    path: str


def fetch(
    url: str,
    caps: Caps,
    addresses: Addresses,
    stopped: Callable[[], bool] = lambda: False,
    hold: Callable[[int], object] = lambda size: None,
) -> bytes:
    """The file at `url`. Each redirect is checked like the first address. Raises `Failure`.

    The system's resolver keeps its own time. `stopped`: asked between pieces, so that a run can end. `hold`: called
    once before the file is read, with its bytes, or with all that is allowed where no number is announced; it may wait,
    which is not counted.
    """
    clock = _Clock(caps, stopped)
    for _ in range(MAX_REDIRECTS + 1):
        target = parse(url)
        found = _ask(target, addresses.of(target.host, target.port), clock, hold)
        if isinstance(found, bytes):
            return found
        url = _sent_on(url, found)
    raise Failure("redirects", f"redirected more than {MAX_REDIRECTS} times")


def parse(url: str) -> Target:
    """Raises `Failure` for what is no plain address of http or https."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host:
            raise Failure("bad_url", f"only http and https URLs are downloaded; got {url[:80]!r}")
        if "@" in parts.netloc:
            raise Failure("bad_url", "a URL with a user name or password")
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        path = quote(parts.path or "/", safe="!$%&'()*+,/:;=@[]~|")
        query = "?" + quote(parts.query, safe="!$%&'()*+,/:;=?@[]~|") if parts.query else ""
    except (ValueError, UnicodeError) as error:
        raise Failure("bad_url", f"not a URL: {error}") from None
    if any(not ("!" <= sign <= "~") for sign in host):
        raise Failure("bad_url", f"{host!r} is not the name of a host")
    secure = parts.scheme == "https"
    return Target(secure, host, port or (443 if secure else 80), path + query)


def _ask(target: Target, addresses: Sequence[str], clock: "_Clock", hold: Callable[[int], object]) -> bytes | str:
    """The body, or where a redirect leads."""
    sock: socket.socket | None = None
    try:
        sock = _connected(target, addresses, clock)
        connection = _Connection(target, _Timed(sock, clock, clock.caps.max_bytes + _BESIDE))
        connection.request("GET", target.path, headers=_HEADERS)
        with connection.getresponse() as response:
            return _answer(response, clock, hold)
    except ssl.SSLCertVerificationError as error:
        raise Failure("tls", str(error.strerror or error)) from None
    except TimeoutError:
        raise clock.failure() from None
    except http.client.RemoteDisconnected:
        raise Failure("unreachable", "the connection was closed without an answer", again=True) from None
    except http.client.IncompleteRead:
        raise Failure("cut_short", "the connection was closed before the end", again=True) from None
    except http.client.HTTPException as error:
        raise Failure("broken", f"invalid HTTP: {type(error).__name__}") from None
    except OSError as error:
        raise Failure("unreachable", str(error.strerror or error), again=True) from None
    except ValueError as error:  # http.client's word for headers and sizes that mean nothing
        raise Failure("broken", f"invalid HTTP: {error}") from None
    finally:
        if sock is not None:
            sock.close()


def _connected(target: Target, addresses: Sequence[str], clock: "_Clock") -> socket.socket:
    for number, address in enumerate(addresses):
        try:
            sock = socket.create_connection((address, target.port), timeout=clock.next())
            break
        except OSError:
            if number + 1 == len(addresses):
                raise
    if not target.secure:
        return sock
    try:
        sock.settimeout(clock.next())
        return tls().wrap_socket(sock, server_hostname=target.host)
    except BaseException:
        sock.close()
        raise


def _answer(response: http.client.HTTPResponse, clock: "_Clock", hold: Callable[[int], object]) -> bytes | str:
    status = response.status
    if status in _REDIRECTS:
        location = response.getheader("Location")
        if not location:
            raise Failure("redirects", f"HTTP {status} without a location")
        return location
    if status != 200:
        again = status in _AGAIN or status >= 500
        wait = _retry_after(response.getheader("Retry-After")) if again else 0.0
        raise Failure(f"http_{status}", f"HTTP {status}", again=again, after=wait)
    if not _NOT_FOR_TRAINING.isdisjoint(_directives(response.headers.get_all("X-Robots-Tag", []))):
        raise Failure("opted_out", "the site does not want its images used for training (X-Robots-Tag)")
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise Failure("encoded", f"Content-Encoding {encoding[:40]!r}, though identity was requested")
    return _body(response, clock, hold)


def _body(response: http.client.HTTPResponse, clock: "_Clock", hold: Callable[[int], object]) -> bytes:
    announced, most = response.length, clock.caps.max_bytes  # None where chunked, or not said
    if announced is not None and announced > most:
        raise Failure("too_large", f"{announced:,} bytes announced; at most {most:,} are taken")
    with clock.stopped_while():
        hold(most if announced is None else announced)
    data = bytearray()
    while piece := response.read(min(_PIECE, most + 1 - len(data))):
        data += piece
        if len(data) > most:
            raise Failure("too_large", f"more than {most:,} bytes")
    if announced is not None and len(data) < announced:
        raise Failure("cut_short", f"{len(data):,} of {announced:,} bytes received", again=True)
    return bytes(data)


def _sent_on(url: str, location: str) -> str:
    try:
        return urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))  # headers come as Latin-1
    except ValueError as error:
        raise Failure("bad_url", f"redirected to an invalid URL: {error}") from None


def _directives(headers: Sequence[str]) -> set[str]:
    return {word.strip().lower() for header in headers for word in header.split(",")}


def _retry_after(value: str | None) -> float:
    """Seconds, of a number or a date, within what is waited for."""
    if value is None:
        return 0.0
    try:
        seconds = float(value) if value.strip().isdigit() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_WAIT)


def _until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """The system's certificates; reading them takes longer than an image."""
    return ssl.create_default_context()


class _Clock:
    """How long the next step may take."""

    def __init__(self, caps: Caps, stopped: Callable[[], bool]):
        self.caps, self.stopped = caps, stopped
        self.end = time.monotonic() + caps.max_seconds

    def next(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0 or self.stopped():
            raise TimeoutError
        return min(self.caps.timeout, left)

    @contextmanager
    def stopped_while(self) -> Iterator[None]:
        """What is waited for here is not the server's fault."""
        begun = time.monotonic()
        yield
        self.end += time.monotonic() - begun

    def failure(self) -> Failure:
        if time.monotonic() >= self.end - 0.002:  # time-outs are rounded to milliseconds
            return Failure("slow", f"it took more than {self.caps.max_seconds:g} s")
        return Failure("timeout", f"no answer within {self.caps.timeout:g} s", again=True)


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that is connected already: `http.client` would resolve the name once more."""

    def __init__(self, target: Target, timed: "_Timed"):
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.secure else 80  # which the header Host leaves out
        self.sock: Any = timed


class _Timed(io.RawIOBase):
    """A socket as `http.client` uses it, each reading within the clock: headers that drip in are late too.

    Bytes are counted here: `http.client` reads a chunk of a negative size, or endless lines, without asking anybody.
    """

    def __init__(self, sock: socket.socket, clock: _Clock, most: int):
        self.sock, self.clock, self.left, self.most = sock, clock, most, most

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _PIECE)

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(self.clock.next())
        self.sock.sendall(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(self.clock.next())
        count = self.sock.recv_into(buffer)
        self.left -= count
        if self.left < 0:
            raise Failure("too_large", f"more than {self.most:,} bytes received, headers and chunk sizes included")
        return count

    def close(self) -> None:
        """The socket is closed by whom opened it: the connection may go before its answer is read."""
