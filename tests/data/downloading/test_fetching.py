"""One file: what is asked, of whom, and what is done with a bad answer."""

import email.utils
import socket
import ssl
import time

import pytest

from rebus.data.downloading import fetching
from rebus.data.downloading.addresses import Addresses
from rebus.data.downloading.failure import Failure
from rebus.data.downloading.fetching import Caps, fetch, parse
from tests.data.downloading.faulty_server import EXPECTED, MAX_BYTES, jpeg, serving

CAPS = Caps(timeout=0.4, max_seconds=1.0, max_bytes=MAX_BYTES)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def outcome(url, *allow, caps=CAPS):
    with pytest.raises(Failure) as caught:
        fetch(url, caps, Addresses(allow=allow))
    return caught.value


def test_a_good_file(server):
    assert fetch(server.url("ok", 3), CAPS, Addresses(allow=(server.place,))) == jpeg(3)
    assert fetch(server.url("redirect", 3) + "#part", CAPS, Addresses(allow=(server.place,))) == jpeg(3)


@pytest.mark.parametrize(
    "kind", [kind for kind, end in EXPECTED.items() if end not in ("ok", "damaged", "no_image", "limit")]
)
def test_fault_12_every_fault_of_a_server(server, kind):
    began = time.monotonic()
    assert outcome(server.url(kind, 1), server.place).outcome == EXPECTED[kind]
    assert time.monotonic() - began < CAPS.max_seconds + 1


def test_faults_that_another_try_may_mend(server):
    assert all(
        outcome(server.url(kind, 2), server.place).again for kind in ("429", "500", "silent", "dies", "hangs-up")
    )
    assert not any(
        outcome(server.url(kind, 2), server.place).again for kind in ("404", "410", "loop", "endless", "drip")
    )


def test_fault_11_the_name_is_resolved_once_and_the_address_used(server, monkeypatch):
    """A name that is public when asked first and private when asked again (rebinding)."""
    connected, asked = [], []

    def resolve(host, port, **options):
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address, timeout):
        connected.append(address)
        sock = socket.socket()
        sock.connect(("127.0.0.1", server.server_port))
        return sock

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert fetch("http://rebind.example/ok/1", CAPS, Addresses()) == jpeg(1)
    assert asked == ["rebind.example"]
    assert connected == [("93.184.216.34", 80)]


def test_what_is_sent(monkeypatch):
    sent = []

    class Socket:
        def settimeout(self, seconds):
            pass

        def sendall(self, data):
            sent.append(data)

        def recv_into(self, buffer):
            return 0

        def close(self):
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("93.184.216.34", 80))])
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: Socket())
    failure = outcome("http://Ünï.example:80/a b%20c/é.jpg?q=1 2#x")
    assert failure.outcome == "unreachable"
    lines = b"".join(sent).decode("ascii").split("\r\n")
    assert lines[0] == "GET /a%20b%20c/%C3%A9.jpg?q=1%202 HTTP/1.1"
    assert "Host: " + "ünï.example".encode("idna").decode() in lines
    assert "Accept-Encoding: identity" in lines
    assert any(line.startswith("User-Agent: rebus/") for line in lines)
    assert not any(line.lower().startswith(("cookie", "authorization", "referer")) for line in lines)


def test_tls_is_for_the_name_over_the_address(monkeypatch):
    names, addresses = [], []

    class Context:
        def wrap_socket(self, sock, server_hostname):
            names.append(server_hostname)
            raise ssl.SSLCertVerificationError(1, "certificate verify failed: Hostname mismatch")

    class Socket:
        def settimeout(self, seconds):
            pass

        def close(self):
            addresses.append("closed")

    def connect(address, timeout):
        addresses.append(address)
        return Socket()

    monkeypatch.setattr(fetching, "tls", Context)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("93.184.216.34", 443))])
    monkeypatch.setattr(socket, "create_connection", connect)
    assert outcome("https://a.example/x").outcome == "tls"
    assert names == ["a.example"]
    assert addresses == [("93.184.216.34", 443), "closed"]
    context = ssl.create_default_context()
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://a.example/a",
        "gopher://a.example/",
        "data:image/png;base64,AAAA",
        "http://",
        "http:///a",
        "http://a:b@a.example/",
        "http://a@a.example/",
        "http://a.example:99999/",
        "http://a.example:x/",
        "http://[::1/",
        "http://a b.example/",
        "http://" + "a" * 300 + "é.example/",
        "javascript:alert(1)",
    ],
)
def test_no_web_address(url):
    with pytest.raises(Failure) as caught:
        parse(url)
    assert caught.value.outcome == "bad_url"


def test_line_breaks_do_not_reach_the_request():
    target = parse("http://a.example/x\r\nHost: b.example\r\n\r\n?y=\n")
    assert not set(target.path + target.host) & set("\r\n ")


@pytest.mark.parametrize(
    "value, least, most",
    [
        (None, 0, 0),
        ("0", 0, 0),
        ("7", 7, 7),
        ("100000", fetching.MAX_WAIT, fetching.MAX_WAIT),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
    ],
)
def test_retry_after(value, least, most):
    assert least <= fetching._retry_after(value) <= most
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 15 < fetching._retry_after(date) <= 20
