"""The page at `/`: the files of `rebus/serve/page`, read once, which load nothing from elsewhere."""

import hashlib
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from rebus.serve.failures import Refusal

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for by its ETag
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_FILES = {file.name: file for file in Path(__file__).with_name("page").iterdir() if file.suffix in _TYPES}


def add_page(app: FastAPI) -> None:
    files = {name: (file.read_bytes(), _TYPES[file.suffix]) for name, file in _FILES.items()}
    tags = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, (data, _) in files.items()}

    async def page(request: Request) -> Response:
        name = request.path_params.get("file", "index.html")
        if name not in files:
            return Refusal(404, "the page has no such file", "not_found").response()
        data, kind = files[name]
        headers = {**_HEADERS, "ETag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    app.add_route("/", page, methods=["GET"], include_in_schema=False)
    app.add_route("/page/{file}", page, methods=["GET"], include_in_schema=False)
