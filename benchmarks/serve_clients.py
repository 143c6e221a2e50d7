"""A server under load: 64 clients ask a bundled generative model for minutes, a tenth of them nonsense.

    python -m benchmarks.serve_clients [--model paligemma/scenes] [--clients 64] [--seconds 120]

Says whether every good answer was that of a single call, how many answers a second there were with one client and with
all, how long the first token took, and by how much the memory of the server grew after a quarter of the time.
"""

import argparse
import base64
import io
import json
import multiprocessing
import random
import statistics
import threading
import time
from typing import Any

import httpx
import psutil
import torch

import rebus
from rebus.data.scenes import scene
from rebus.serve.server import serve
from rebus.serve.settings import ServeSettings

PORT, NUM_IMAGES = 8765, 48


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="paligemma/scenes")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    process = multiprocessing.get_context("spawn").Process(target=served, args=(args.model,), daemon=True)
    process.start()
    try:
        wait_until_ready()
        bodies = [body(args.model, number) for number in range(NUM_IMAGES)]
        truth = single_calls(args.model)
        alone = Load(bodies, truth, clients=1, seconds=args.seconds / 6, poison=0.0).run(process.pid)
        together = Load(bodies, truth, clients=args.clients, seconds=args.seconds, poison=0.1).run(process.pid)
        together["times one at a time"] = round(together["answers/s"] / alone["answers/s"], 2)
        print(json.dumps({"one client": alone, f"{args.clients} clients": together}, indent=2))
    finally:
        process.terminate()


def served(model: str) -> None:
    torch.set_num_threads(1)
    serve([model], ServeSettings(port=PORT, max_batch=64), rebus.load)


def wait_until_ready() -> None:
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def body(model: str, number: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    scene(50_000 + number, "test").image.save(buffer, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": True, "temperature": 0}


def single_calls(name: str) -> list[str]:
    model = rebus.load(name)
    images = [scene(50_000 + number, "test").image for number in range(NUM_IMAGES)]
    return [model.caption(image, strategy="greedy") for image in images]


class Load:
    """Clients that ask one after another, each without a pause."""

    def __init__(self, bodies: list[dict[str, Any]], truth: list[str], *, clients: int, seconds: float, poison: float):
        self.bodies, self.truth, self.clients, self.seconds, self.poison = bodies, truth, clients, seconds, poison
        self.first: list[float] = []
        self.statuses: dict[int, int] = {}
        self.right = self.wrong = 0
        self.lock = threading.Lock()

    def run(self, pid: int | None) -> dict[str, Any]:
        self.end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self.clients)]
        server, memory = psutil.Process(pid), list[int]()
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end:
            time.sleep(min(1.0, self.seconds / 20))
            memory.append(server.memory_info().rss)
        for thread in threads:
            thread.join()
        later = memory[len(memory) // 4 :]
        return {
            "answers/s": round(self.right / self.seconds, 2),
            "right": self.right,
            "wrong": self.wrong,
            "statuses": self.statuses,
            "first token p50": round(statistics.median(self.first), 3),
            "first token p95": round(statistics.quantiles(self.first, n=20)[-1], 3),
            "memory MB": round(later[0] / 1e6),
            "memory grew by": f"{later[-1] / later[0] - 1:.1%}",
        }

    def _client(self, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=300) as client:
            while time.monotonic() < self.end:
                which = chance.randrange(NUM_IMAGES)
                poisoned = chance.random() < self.poison
                self._ask(
                    client, nonsense(self.bodies[which], chance) if poisoned else self.bodies[which], which, poisoned
                )

    def _ask(self, client: httpx.Client, body: dict[str, Any], which: int, poisoned: bool) -> None:
        begun, first, text = time.monotonic(), 0.0, ""
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if response.status_code == 200 and line.startswith("data: {"):
                    for choice in json.loads(line[6:]).get("choices", []):
                        text += choice["delta"].get("content") or ""
                        first = first or (time.monotonic() - begun if text else 0.0)
        with self.lock:
            self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1
            if response.status_code == 200 and not poisoned:
                self.first.append(first)
                self.right += text == self.truth[which]
                self.wrong += text != self.truth[which]


def nonsense(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A request that cannot be answered, or that breaks off: damaged images, text that is too long, odd parameters."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    kind = chance.randrange(5)
    if kind == 0:
        return {**body, "temperature": -1}
    if kind == 1:
        return {**body, "max_tokens": 100_000}
    text = {"type": "text", "text": "what is red? " * 2000} if kind == 2 else {"type": "text", "text": "\u202e\x00"}
    image = {"type": "image_url", "image_url": {"url": url[: len(url) // 2 // 4 * 4] if kind == 3 else url}}
    return {**body, "messages": [{"role": "user", "content": [image, text]}]}


if __name__ == "__main__":
    main()
