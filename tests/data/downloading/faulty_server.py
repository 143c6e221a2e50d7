"""A server on this machine that does what the worst of the internet does, and what a download should make of it."""

import gzip
import http.server
import io
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager

import numpy as np
from PIL import Image

# path's first part → outcome
EXPECTED = {
    "ok": "ok",
    "png": "ok",
    "redirect": "ok",
    "429-then-good": "ok",
    "500-then-good": "ok",
    "dies-then-good": "ok",
    "silent": "timeout",
    "length-too-small": "damaged",
    "length-too-large": "cut_short",
    "length-huge": "too_large",
    "endless": "too_large",
    "negative-chunk": "too_large",
    "endless-chunk-size": "broken",
    "drip": "slow",
    "drip-headers": "slow",
    "to-private": "address",
    "to-metadata": "address",
    "to-other-port": "address",
    "to-mapped": "address",
    "to-file": "bad_url",
    "loop": "redirects",
    "to-nowhere": "redirects",
    "truncated": "damaged",
    "html": "no_image",
    "empty": "no_image",
    "zipped": "encoded",
    "bomb": "limit",
    "404": "http_404",
    "410": "http_410",
    "429": "http_429",
    "500": "http_500",
    "nonsense": "broken",
    "dies": "cut_short",
    "hangs-up": "unreachable",
    "opted-out": "opted_out",
}
MAX_BYTES = 200_000


def jpeg(number: int) -> bytes:
    """An image of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((40, 30)).save(file, "JPEG")
    return file.getvalue()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (number % 256, number // 256, 9)).save(file, "PNG")
    return file.getvalue()


def png_bomb() -> bytes:
    """13,000 × 13,000 pixels of one bit in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 13_000
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BOMB = png_bomb()
ZIPPED = gzip.compress(bytes(10_000_000))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        with self.server.lock:
            self.server.asked[self.path] += 1
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self.answer(*self.path.strip("/").split("/"))
        except OSError:
            pass  # the client has gone
        finally:
            with self.server.lock:
                self.server.now -= 1
            self.close_connection = True

    def answer(self, kind, number, *_):
        data, first = jpeg(int(number)), self.server.asked[self.path] == 1
        if kind in ("ok", "ok-after"):
            self.send(data)
        elif kind == "png":
            self.send(png(int(number)))
        elif kind in ("429-then-good", "500-then-good"):
            if first:
                self.send(b"later", int(kind[:3]), {"Retry-After": "0"})
            else:
                self.send(data)
        elif kind == "dies-then-good":
            if first:
                self.die(data)
            else:
                self.send(data)
        elif kind in ("404", "410", "429", "500"):
            self.send(b"no", int(kind))
        elif kind == "silent":
            time.sleep(5)
        elif kind == "length-too-small":
            self.send(data, length=len(data) // 2)
        elif kind == "length-too-large":
            self.send(data, length=len(data) + 50)
        elif kind == "length-huge":
            self.send(data, length=50 << 30)
        elif kind == "endless":
            self.send(b"\xff\xd8\xff" + bytes(1000), length=None)
            while True:
                self.wfile.write(bytes(1 << 16))
        elif kind in ("negative-chunk", "endless-chunk-size"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.wfile.write(b"-1\r\n" if kind == "negative-chunk" else b"")
            for _ in range(1000):  # 64 MB, and then it stays open
                self.wfile.write(b"0" * (1 << 16))
        elif kind == "drip":
            self.send(data[:1], length=len(data))
            for byte in data[1:]:
                time.sleep(0.2)
                self.wfile.write(bytes([byte]))
        elif kind == "drip-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for n in range(1000):
                time.sleep(0.2)
                self.wfile.write(f"X-{n}: y\r\n".encode())
        elif kind == "redirect":
            self.send(b"", 302, {"Location": f"../ok-after/{number}"})
        elif kind == "to-private":
            self.send(b"", 301, {"Location": f"http://10.1.2.3/{number}.jpg"})
        elif kind == "to-metadata":
            self.send(b"", 302, {"Location": "http://169.254.169.254/latest/meta-data/"})
        elif kind == "to-other-port":
            self.send(b"", 307, {"Location": "http://127.0.0.1:22/"})
        elif kind == "to-mapped":
            self.send(b"", 308, {"Location": f"http://[::ffff:127.0.0.1]:{self.server.server_port}/ok/{number}"})
        elif kind == "to-file":
            self.send(b"", 302, {"Location": "file:///etc/passwd"})
        elif kind == "loop":
            self.send(b"", 302, {"Location": self.path})
        elif kind == "to-nowhere":
            self.send(b"", 302)
        elif kind == "truncated":
            self.send(data[: len(data) * 2 // 3])
        elif kind == "html":
            self.send(b"<!DOCTYPE html><html><body>Not found</body></html>", headers={"Content-Type": "image/jpeg"})
        elif kind == "empty":
            self.send(b"")
        elif kind == "zipped":
            self.send(ZIPPED, headers={"Content-Encoding": "gzip"})
        elif kind == "bomb":
            self.send(BOMB)
        elif kind == "nonsense":
            self.wfile.write(b"\x00\x01 what\r\n\r\n")
        elif kind == "dies":
            self.die(data)
        elif kind == "hangs-up":
            pass
        elif kind == "opted-out":
            self.send(data, headers={"X-Robots-Tag": "noindex, noai"})
        else:
            raise AssertionError(kind)

    def send(self, data, status=200, headers=(), length=-1):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(data) if length == -1 else length))
        self.end_headers()
        self.wfile.write(data)

    def die(self, data):
        """Half an image, then the end."""
        self.send(data[: len(data) // 2], length=len(data))
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.asked, self.now, self.most = threading.Lock(), Counter(), 0, 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def url(self, kind: str, number: int) -> str:
        return f"http://{self.place}/{kind}/{number}"

    def handle_error(self, request, client_address):
        pass


@contextmanager
def serving():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
