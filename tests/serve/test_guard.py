"""Refused before any work: strangers, foreign hosts and pages, endless bodies, and addresses that are not allowed."""

import base64
import contextlib
import http.server
import json
import socket
import threading
import time

import httpx
import pytest
from fastapi.routing import APIRoute

from rebus.cli import main
from rebus.core.errors import UsageError
from rebus.serve import server
from rebus.serve.app import create_app
from rebus.serve.failures import Refusal, without
from rebus.serve.guard import OPEN
from rebus.serve.images import AllowedHosts, bytes_of
from rebus.serve.settings import ServeSettings
from tests.serve.conftest import ENCODER, GENERATIVE, chat, data_url, file_of, image_of, load, running

KEY = "a-key-that-nobody-guesses"


@contextlib.asynccontextmanager
async def calling(base_url="http://127.0.0.1:8000", **settings):
    """A client of an application without models, without a network."""
    app = create_app([], ServeSettings(**settings), load)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
        yield client, app


def routes(app):
    for route in app.routes:
        for method in sorted(getattr(route, "methods", None) or {"GET"}):
            if method == "HEAD":  # of the page's files: what GET answers, without a body
                continue
            yield (
                method,
                route.path.replace("{model:path}", "some/model").replace("{index}", "photos").replace("{id}", "1"),
            )


@pytest.mark.anyio
async def test_every_route_wants_the_key_but_the_probes():
    async with calling(api_key=KEY) as (client, app):
        found = list(routes(app))
        assert len(found) > 15
        assert {path for _, path in found} >= set(OPEN)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"X-Api-Key": KEY}):
            for method, path in [*found, ("GET", "/"), ("GET", "/livez/"), ("GET", "/no/such/route")]:
                response = await client.request(method, path, headers=headers)
                if path in OPEN:
                    assert response.status_code in (200, 503)
                else:
                    assert response.status_code == 401, path
                    assert response.json()["error"]["code"] == "invalid_api_key"
        assert (await client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "169.254.169.254", "192.168.1.7", ""])
async def test_a_foreign_host_is_refused_everywhere(name):
    async with calling(api_key=KEY) as (client, app):
        for method, path in routes(app):
            headers = {"Host": name, "Authorization": f"Bearer {KEY}"}
            response = await client.request(method, path, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "foreign_host")


@pytest.mark.anyio
async def test_a_page_of_another_site_is_refused_everywhere():
    async with calling() as (client, app):
        for method, path in routes(app):
            for foreign in (
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Origin": "http://127.0.0.1:9000"},
                {"Origin": "http://localhost:8000"},
                {"Sec-Fetch-Site": "cross-site"},
            ):
                response = await client.request(method, path, headers=foreign)
                assert response.status_code == 403, (path, foreign)
                assert not [name for name in response.headers if name.startswith("access-control")]
        asked = await client.options("/v1/models", headers={"Origin": "http://127.0.0.1:8000"})
        assert not [name for name in asked.headers if name.startswith("access-control")]
        own = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
        assert (await client.get("/v1/models", headers=own)).status_code == 200


@pytest.mark.anyio
async def test_names_that_are_allowed():
    async with calling(allow_host=("photos.example",)) as (client, _):
        for name, status in (("photos.example", 200), ("localhost:8000", 200), ("[::1]:8000", 200), ("10.0.0.1", 400)):
            assert (await client.get("/livez", headers={"Host": name})).status_code == status
    async with calling(host="0.0.0.0", api_key=KEY) as (client, _):
        for name, status in (("10.0.0.1:8000", 200), ("evil.example", 400)):
            assert (await client.get("/livez", headers={"Host": name})).status_code == status


@pytest.mark.anyio
async def test_bodies_are_bounded():
    async def pieces():
        while True:
            yield b" " * 1000

    async with calling(max_body=10_000) as (client, _):
        for content in (b" " * 10_001, pieces()):
            response = await client.post("/v1/embeddings", content=content)
            assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_long")
        packed = await client.post("/v1/embeddings", content=b"x", headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 415


@pytest.mark.anyio
async def test_no_route_loads_anything_from_elsewhere():
    async with calling() as (client, app):
        for path in ("/docs", "/redoc"):
            assert (await client.get(path)).status_code == 404
        schema = (await client.get("/openapi.json")).json()
        documented = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
        for route in app.routes:
            if isinstance(route, APIRoute):
                path = route.path.replace(":path", "")
                assert {(method, path) for method in route.methods} <= documented
        assert "default-src 'none'" in (await client.get("/livez")).headers["content-security-policy"]
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "loading")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_a_host_that_others_reach_wants_a_key(host, tmp_path, capsys):
    with pytest.raises(UsageError, match="reached from other machines"):
        ServeSettings(host=host)
    assert main(["serve", "clip/scenes", "--host", host]) == 2
    assert "--api-key-file" in capsys.readouterr().err
    (tmp_path / "key").write_text("short\n")
    assert main(["serve", "clip/scenes", "--host", host, "--api-key-file", str(tmp_path / "key")]) == 2
    assert ServeSettings(host=host, api_key=KEY).is_key(KEY)


CANARY = "canary-8f3b19c2"
BAD = {
    "no JSON": lambda path: {"content": f'{{"{CANARY}": '},
    "an unknown field": lambda path: {"json": {"model": ENCODER, f"{CANARY} {CANARY}": 1}},
    "an unknown model": lambda path: {"json": {"model": CANARY, "messages": [{"role": "user", "content": CANARY}]}},
    "another type": lambda path: {"json": {"model": {CANARY: CANARY}, "input": [CANARY, 1]}},
    "an unknown role": lambda path: {"json": {"model": GENERATIVE, "messages": [{"role": CANARY, "content": "a"}]}},
    "an address": lambda path: {
        "json": {"model": ENCODER, "image": f"https://{CANARY}.example/a", "labels": ["a"], "phrases": ["a"]}
    },
    "no base64": lambda path: {"json": {"model": ENCODER, "image": f"data:image/png;base64,{CANARY}!"}},
    "no image": lambda path: {
        "json": {
            "model": ENCODER,
            "image": data_url(CANARY.encode() * 9),
            "labels": [CANARY, ""],
            "inputs": CANARY,
        }
    },
    "a body": lambda path: {"content": CANARY * 3, "headers": {"Content-Type": "image/png"}},
    "a query": lambda path: {
        "params": {"model": CANARY, "labels": f'"{CANARY}', f"{CANARY} a": CANARY},
        "content": CANARY,
    },
}


@pytest.mark.parametrize("bad", BAD)
def test_no_error_repeats_what_was_sent(client, served, bad):
    for method, path in routes(served[1]):
        if method != "POST":
            continue
        for name in (ENCODER, CANARY):
            response = client.post(path.replace("some/model", name), **BAD[bad](path))
            assert 400 <= response.status_code < 500
            assert response.json()["error"]["code"]
            told = response.text + str(response.headers)
            assert CANARY not in told
            assert base64.b64encode(CANARY.encode()).decode()[:16] not in told


def test_messages_are_told_without_what_was_sent():
    assert without("no label 'tabby cat'; did you mean 'cat'?", {"labels": ["tabby cat"]}) == (
        "no label '…'; did you mean 'cat'?"
    )
    assert without("got 'dog'", ["dog"]) == "got …"
    assert without('got "dog"', {"dog": 1}) == "got …"
    assert without("labels is empty: give at least one", {"labels": []}) == "labels is empty: give at least one"


@contextlib.contextmanager
def listening(**settings):
    """A server without models."""
    with running(**settings) as (url, app):
        yield int(url.rpartition(":")[2]), app


def closed_after(sock, send, every, most):
    """Seconds until the server closes a connection to which something is sent again and again."""
    begun = time.monotonic()
    sock.settimeout(every)
    while time.monotonic() - begun < most:
        with contextlib.suppress(TimeoutError):
            if sock.recv(4096) == b"":
                return time.monotonic() - begun
            continue
        try:
            sock.sendall(send)
        except OSError:
            return time.monotonic() - begun
    return most


def test_headers_that_drip_in_are_not_waited_for(monkeypatch):
    assert server.HEADER_SECONDS < 10
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.6)
    with listening() as (port, _):
        address = ("127.0.0.1", port)
        with socket.create_connection(address) as sock:
            sock.sendall(b"GET /livez HTTP/1.1\r\n")
            assert closed_after(sock, b"x", 0.1, 6) < 3
        with socket.create_connection(address) as sock:
            assert closed_after(sock, b"", 0.1, 6) < 3
        with socket.create_connection(address) as sock:  # nor after an answer
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in sock.recv(4096)
            sock.sendall(b"GET /livez HTTP/1.1\r\n")
            assert closed_after(sock, b"x", 0.1, 6) < 3
        with socket.create_connection(address) as sock:  # a body may take its time
            sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
            time.sleep(1.2)
            sock.sendall(b"}")
            assert b"400 Bad Request" in sock.recv(4096)


def test_a_body_that_does_not_come_is_given_up():
    with listening(timeout=0.3) as (port, _), socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert b"408 Request Timeout" in sock.recv(4096)


class Files(http.server.BaseHTTPRequestHandler):
    asked: list = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        host = f"{self.server.server_address[0]}:{self.server.server_address[1]}"
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://{host.replace('127.0.0.1', 'localhost')}/image.png")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(file_of(image_of()) if self.path == "/image.png" else b"x" * 3_000_000)

    def log_message(self, *args):
        pass


@pytest.fixture
def files():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as found:
        Files.asked.clear()
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def refused(url, allowed, **settings):
    with pytest.raises(Refusal) as error:
        bytes_of(url, ServeSettings(**settings), allowed)
    assert "127.0.0.1" not in error.value.message
    return error.value.code


def test_addresses_are_fetched_of_allowed_hosts_alone(files):
    here = AllowedHosts(allow=(files,), names=("127.0.0.1",))
    assert bytes_of(f"http://{files}/image.png", ServeSettings(), here) == file_of(image_of())
    assert len(Files.asked) == 1
    assert refused(f"http://{files}/image.png", AllowedHosts()) == "url_not_allowed"
    assert refused(f"http://{files}/image.png", AllowedHosts(names=("*",))) == "url_not_allowed"  # not public
    assert refused(f"http://{files}/image.png", AllowedHosts(names=("127.0.0.1",))) == "url_not_allowed"
    assert refused("http://169.254.169.254/latest/meta-data", AllowedHosts(names=("*",))) == "url_not_allowed"
    assert len(Files.asked) == 1
    assert refused(f"http://{files}/elsewhere", here) == "url_not_allowed"
    assert Files.asked[1:] == ["/elsewhere"]
    assert refused(f"http://{files}/endless", here, max_body=1_000_000) == "fetch_failed"


@pytest.mark.parametrize(
    "source",
    ["file:///etc/passwd", "/etc/passwd", "ftp://example.org/a.png", "data:text/plain;base64,aGk=", "data:,x", "a b"],
)
def test_what_is_no_image_is_refused(source):
    assert refused(source, AllowedHosts(names=("*",))) == "bad_image_url"


def test_more_clients_than_places_get_an_answer_or_are_asked_to_come_again():
    """More connections than places: nobody gets an error of ours, and who is refused is told when to come."""
    number = 300
    image = data_url(file_of(image_of()))
    body = json.dumps({"model": ENCODER, "image": image, "labels": ["a", "b"]}).encode()
    with running(ENCODER, max_queue=8, max_batch=4) as (url, _):
        statuses, waits = [], set()

        def ask(count):
            with httpx.Client(base_url=url, timeout=60) as client:
                for _ in range(count):
                    response = client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
                    statuses.append(response.status_code)
                    if response.status_code == 429:
                        waits.add(response.headers["retry-after"])

        threads = [threading.Thread(target=ask, args=(number // 50,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(statuses) == number
        assert set(statuses) == {200, 429}
        assert all(int(wait) >= 1 for wait in waits)
        assert httpx.get(f"{url}/livez").status_code == 200


def test_what_is_measured(client):
    client.post("/v1/chat/completions", json=chat(image_of(), stream=True))
    text = client.get("/metrics").text
    for stage in ("decode", "prepare", "queue", "encode", "first_token", "per_token"):
        counts = [line for line in text.splitlines() if line.startswith(f"rebus_{stage}_seconds_count")]
        assert sum(float(line.split()[-1]) for line in counts) > 0, stage
    assert 'rebus_answers_total{route="/v1/chat/completions",status="200"}' in text
    assert f'rebus_image_cache_misses{{model="{GENERATIVE}"}}' in text
