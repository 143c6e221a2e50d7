"""How fast a table of 1.6 million pairs on disk answers, and in how much memory.

    python benchmarks/asif.py [--pairs 1600000] [--width 512] [--folder DIR]

Makes a table of random unit vectors in float16 with their 8-bit copies (5 GB for the defaults, in a temporary folder
that is removed at the end, or kept in DIR), opens it in a fresh process and answers one query at a time: an image
described and scored against 1,000 prepared texts, a text likewise, and a single pair of both from nothing; then single
pairs are added, removed and weighed by id, and the first query after that is timed, too. The first query reads the
files from disk; the others find them in the page cache. The answers are compared with a float64 search over all rows.
Prints one JSON document.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rebus.models.training_free.pairs import Pairs
from rebus.models.training_free.relative import score
from rebus.models.training_free.stored import open_pairs, save_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_600_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.answer:
        print(json.dumps(answer(args.folder, args.queries), indent=2))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "table"
        if not (folder / "config.json").is_file():
            make(folder, args.pairs, args.width)
        command = [sys.executable, __file__, "--answer", "--folder", str(folder), "--queries", str(args.queries)]
        subprocess.run([*command, "--threads", str(args.threads)], check=True)


def make(folder: Path, pairs: int, width: int) -> None:
    start = time.perf_counter()
    sides = [torch.empty(pairs, width, dtype=torch.float16) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    for side in sides:
        for first in range(0, pairs, 50_000):
            rows = torch.randn(min(50_000, pairs - first), width, generator=generator)
            side[first : first + 50_000] = torch.nn.functional.normalize(rows, dim=1)
    ids = [f"photos/{number:07}.jpg" for number in range(pairs)]
    save_pairs(folder, Pairs.of(*sides, ids=ids, captions=[f"what {name} shows" for name in ids]))
    print(f"{pairs:,} pairs written in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def answer(folder: Path, count: int) -> dict[str, Any]:
    start = time.perf_counter()
    pairs = open_pairs(folder)
    opened = time.perf_counter() - start
    generator = torch.Generator().manual_seed(1)
    width = pairs.cfg.image_width

    def vectors(n: int) -> Tensor:
        return torch.randn(n, width, generator=generator)

    # Prepared texts and images: descriptions as a model keeps them for its labels or its library.
    k = pairs.k
    prepared = pairs.describe_texts(vectors(4))
    prepared = prepared._replace(
        value=prepared.value.repeat(250, 1),
        at=torch.randint(0, len(pairs), (1000, k), generator=generator),
    )
    first = time.perf_counter()
    pairs.describe_images(vectors(1))
    cold = time.perf_counter() - first
    result = {
        "pairs": len(pairs),
        "width": pairs.cfg.image_width,
        "k": k,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "open_ms": round(1000 * opened, 1),
        "first_query_ms": round(1000 * cold, 1),
        "image_against_1000_texts_ms": timed(lambda: score(pairs.describe_images(vectors(1)), prepared), count),
        "text_against_1000_images_ms": timed(lambda: score(prepared, pairs.describe_texts(vectors(1))), count),
        "pair_from_nothing_ms": timed(lambda: pairs(vectors(1), vectors(1)), count),
        "eight_images_at_once_ms": timed(lambda: pairs.describe_images(vectors(8)), max(count // 5, 1)),
        "memory_mb": memory(),
    }
    result["largest_difference_from_float64"] = difference(pairs, vectors(2), vectors(3))
    return {**result, "edits_ms": edits(pairs, vectors)}


def edits(pairs: Pairs, vectors: Callable[[int], Tensor], count: int = 50) -> dict[str, Any]:
    """One pair at a time, the slowest of all included; then a query that sees the changes."""
    total = len(pairs)
    removed, weighed = (iter(range(first, total, total // count - 1)) for first in (3, 5))
    number = iter(range(count + 1))

    def add() -> None:
        pairs.add(vectors(1), vectors(1), [f"new {next(number)}"], ["a caption"])

    calls: dict[str, Callable[[], Any]] = {
        "add": add,
        "remove": lambda: pairs.remove([f"photos/{next(removed):07}.jpg"]),
        "weigh": lambda: pairs.weigh([f"photos/{next(weighed):07}.jpg"], 2.0),
        "remove_an_added_one": lambda: pairs.remove([f"new {next(added)}"]),
    }
    added = iter(range(count))
    found: dict[str, Any] = {name: timed(call, count - 1) for name, call in calls.items()}
    return found | {"query_after_edits": timed(lambda: pairs.describe_images(vectors(1)), 5)}


def timed(call: Callable[[], Any], count: int) -> dict[str, float]:
    """Wall time in milliseconds and, for machines that others use too, the processor time of all threads."""
    walls, processors = [], []
    for _ in range(count):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        walls.append(1000 * (time.perf_counter() - wall))
        processors.append(1000 * (time.process_time() - processor))
    return {
        "median": round(statistics.median(walls), 2),
        "least": round(min(walls), 2),
        "most": round(max(walls), 2),
        "processor_median": round(statistics.median(processors), 2),
    }


def memory() -> dict[str, int]:
    """Peak of the process, and what it holds now: its own, and pages of files, which the system takes back at will."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.endswith("kB")}
    return {"peak": found["VmHWM"], "own": found["RssAnon"], "files": found["RssFile"]}


def difference(pairs: Pairs, image: Tensor, text: Tensor) -> float:
    """Against the paper's formula over all rows in float64."""

    def describe(queries: Tensor, shards: tuple[Tensor, ...]) -> Tensor:
        unit = torch.nn.functional.normalize(queries.double(), dim=1)
        parts = []
        for shard in shards:
            rows = shard.double()
            parts.append((unit @ rows.T / rows.norm(dim=1)).clamp(min=0))
        similarity = torch.cat(parts, dim=1)
        values, at = similarity.topk(pairs.cfg.k, dim=1)
        kept = torch.zeros_like(similarity).scatter_(1, at, values) ** pairs.cfg.p
        return torch.nn.functional.normalize(kept, dim=1)

    sides = [side.shards[:-1] for side in (pairs.side("image"), pairs.side("text"))]
    expected = describe(image, sides[0]) @ describe(text, sides[1]).T
    return float((pairs(image, text) - expected).abs().max())


if __name__ == "__main__":
    main()
