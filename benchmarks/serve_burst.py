"""Many clients at once, and one that dawdles: what a server does with more requests than it has places for.

    python -m benchmarks.serve_burst [--connections 1000] [--max-queue 256]

`--connections` are opened to `clip/scenes`, then all send a request at the same moment; printed is how many answers had
which status and `Retry-After`. Then headers are sent a byte a second, and the seconds until the connection is closed.
"""

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import resource
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import torch

import rebus
from benchmarks.serve_clients import PORT, wait_until_ready
from rebus.data.scenes import scene
from rebus.serve.server import serve
from rebus.serve.settings import ServeSettings

MODEL = "clip/scenes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--max-queue", type=int, default=256)
    args = parser.parse_args()
    files = args.connections + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    process = multiprocessing.get_context("spawn").Process(target=served, args=(args.max_queue,), daemon=True)
    process.start()
    try:
        wait_until_ready()
        found: dict[str, Any] = asyncio.run(burst(args.connections))
        wait_until_ready()  # it still answers
        found["slow headers closed after s"] = round(asyncio.run(drip()), 1)
        print(json.dumps(found))
    finally:
        process.terminate()


def served(max_queue: int) -> None:
    torch.set_num_threads(1)
    serve([MODEL], ServeSettings(port=PORT, max_queue=max_queue), rebus.load)


async def burst(connections: int) -> dict[str, Any]:
    request, go = _request(), asyncio.Event()
    statuses, waits = Counter[str](), Counter[str]()
    opened = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(connections)]

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        try:
            writer.write(request)
            await writer.drain()
            head = (await reader.read()).partition(b"\r\n\r\n")[0].decode().splitlines()
        except OSError as error:
            statuses[type(error).__name__] += 1
            return
        statuses[head[0].split()[1] if head else "closed"] += 1
        waits.update(line.partition(":")[2].strip() for line in head if line.lower().startswith("retry-after:"))
        writer.close()

    tasks = [asyncio.create_task(ask(*one)) for one in opened]
    began = time.monotonic()
    go.set()
    await asyncio.gather(*tasks)
    return {
        "connections": connections,
        "statuses": statuses,
        "Retry-After": waits,
        "all answered after s": round(time.monotonic() - began, 1),
    }


def _request() -> bytes:
    buffer = io.BytesIO()
    scene(1, "test").image.save(buffer, format="PNG")
    image = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    body = json.dumps({"model": MODEL, "image": image, "labels": ["a circle", "a star"]}).encode()
    head = ("POST /v1/classify HTTP/1.1", "Host: localhost", "Connection: close", "Content-Type: application/json")
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


async def drip() -> float:
    """Seconds until a connection is closed whose headers come a byte a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    began = time.monotonic()
    writer.write(b"GET /livez HTTP/1.1\r\nX-Slow: ")

    async def send() -> None:
        while True:
            await asyncio.sleep(1)
            writer.write(b"x")

    sending = asyncio.create_task(send())
    with suppress(OSError, TimeoutError):
        await asyncio.wait_for(reader.read(), 60)
    sending.cancel()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
