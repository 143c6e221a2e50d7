"""A Hub on 127.0.0.1 with the few endpoints that a download asks for, and the faults a download can meet."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


@dataclass
class FakeHub:
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    status: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)  # repo → answer to everything
    break_after: int | None = None  # bytes of a file after which the connection is cut
    lie: set[str] = field(default_factory=set)  # files whose content differs from their hash
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def __enter__(self) -> "FakeHub":
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                hub.answer(self, body=False)

            def do_GET(self):
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *args) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, request, *, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        self.asked.append((request.command, path, request.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        repo = "/".join(parts[2:4]) if parts[0] == "api" else "/".join(parts[:2])
        if repo in self.status:
            code, headers = self.status[repo]
            return self.send(request, code, b'{"error": "no"}', headers, body)
        if repo not in self.repos:
            return self.send(request, 401, b'{"error": "no"}', {"X-Error-Code": "RepoNotFound"}, body)
        files = self.repos[repo]
        commit = hashlib.sha1(repo.encode()).hexdigest()
        revision = parts[5] if parts[0] == "api" and len(parts) > 5 else parts[3] if parts[0] != "api" else "main"
        if revision not in ("main", commit):
            return self.send(request, 404, b'{"error": "x"}', {"X-Error-Code": "RevisionNotFound"}, body)
        if parts[0] == "api" and parts[4:5] == ["tree"]:
            listing = [self.entry(name, data) for name, data in sorted(files.items())]
            return self.send(request, 200, json.dumps(listing).encode(), {}, body)
        if parts[0] == "api":
            info = {
                "_id": "1",
                "id": repo,
                "sha": commit,
                "siblings": [{"rfilename": n, "size": len(d)} for n, d in files.items()],
            }
            return self.send(request, 200, json.dumps(info).encode(), {}, body)
        name = "/".join(parts[4:])
        if name not in files:
            return self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        return self.file(request, name, files[name], commit, body)

    def entry(self, name: str, data: bytes) -> dict:
        entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if name.endswith((".safetensors", ".bin", ".npz")):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def file(self, request, name: str, data: bytes, commit: str, body: bool) -> None:
        big = name.endswith((".safetensors", ".bin", ".npz"))
        tag = hashlib.sha256(data).hexdigest() if big else hashlib.sha1(data).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if name in self.lie:
            data = data[:-1] + bytes([data[-1] ^ 1])
        code = 200
        if wanted := request.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, code = data[start:], 206
        if body and self.break_after is not None and len(data) > self.break_after:
            cut, self.break_after = self.break_after, None
            request.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                request.send_header(key, value)
            request.end_headers()
            request.wfile.write(data[:cut])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
            return
        self.send(request, code, data, headers, body)

    @staticmethod
    def send(request, code: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        request.send_response(code)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(data)
