"""`rebus index` and `rebus search`, measured: a part each, `python benchmarks/index.py PART …`.

    rescan      20,000 drawn images (--images N): first run, run without news, run after a folder was renamed, run after
                the root was away; decodes and memory
    search      exact search over 1,000,000 × 512 vectors: milliseconds, processor time, on --threads
    approximate LanceDB's partitions over a mixture of 500 clusters of the same size: recall@10 and milliseconds
    words       `rebus search` from process start to answer, over an index of the images of --folder, and the same asked
                of a server that has the index open
    photos      flickr8k_1k in --folder: recall of captions by search beside `rebus eval`'s, with asif/starter
    copies      made copies of the photos: precision and recall of the three kinds of duplicates
    sheets      five searches a person would make, as contact sheets in --out

Each prints one JSON object.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "clip/scenes"
ROWS, WIDTH, CLUSTERS = 1_000_000, 512, 500
SEARCHES = (
    ("a dog running on the beach", {}),
    ("children playing in the water", {}),
    ("a man climbing a rock", {}),
    ("a bicycle", {"minus": "a person"}),
    ("snow", {}),
)


def memory() -> int:
    """Bytes that are resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, seconds of the clock, seconds of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def rescan(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rebus.data.scenes import scene
    from rebus.index.report import Options, Progress
    from rebus.index.update import update_index

    folder = folder / "rescan"
    photos = folder / "photos"
    variants = [scene(number, "test").image.resize((64, 64)) for number in range(200)]
    for number in range(args.images):
        place = photos / f"{number % 50:02d}"
        place.mkdir(parents=True, exist_ok=True)
        image = variants[number % 200].copy()
        image.putpixel((number // 200 % 64, number // 12_800), (number % 251, number % 13, 7))  # no two are the same
        image.save(place / f"{number}.png")
    seen: list[tuple[int, int]] = []

    def run(**options: Any) -> tuple[Any, float, float]:
        def watch(progress: Progress) -> None:
            seen.append((progress.done, memory()))

        return timed(lambda: update_index(photos, Options(model=MODEL, **options), str(folder / "index"), watch))

    first, wall, cpu = run()
    early = next(size for done, size in seen if done >= min(1000, args.images // 2))
    found: dict[str, Any] = {"images": args.images, "first": [wall, cpu], "embedded": first.embedded}
    found["memory_grew"] = (max(size for _, size in seen) - early) / 2**20
    again, wall, cpu = run()
    found |= {"again": [wall, cpu], "again_embedded": again.embedded, "share": cpu / found["first"][1]}
    (photos / "00").rename(photos / "renamed")
    moved, wall, cpu = run()
    found |= {"renamed": [wall, cpu], "moved": moved.moved, "moved_embedded": moved.embedded}
    photos.rename(folder / "away")
    try:
        run()
        found["away"] = "not refused"
    except ValueError as error:
        found["away"] = str(error)[-60:]
    (folder / "away").rename(photos)
    back, wall, cpu = run()
    found |= {"back_rows": back.rows, "back_embedded": back.embedded, "back_missing": back.missing}
    return found


def made(folder: Path, rows: int) -> Any:
    """An index of vectors without images, a mixture of clusters; the queries are other draws of the same."""
    import pyarrow as pa

    from rebus.index.manifest import FILE, Manifest
    from rebus.index.search import open_index
    from rebus.index.snapshot import write_snapshot
    from rebus.index.store import Store, arrow_schema

    where = folder / "index"
    if not (where / FILE).exists():
        store = Store(str(where / "tables"), "made")
        store.create(WIDTH)
        schema = arrow_schema(WIDTH)
        for first in range(0, rows, 50_000):
            count = min(50_000, rows - first)
            ids = np.arange(first, first + count)
            columns = {
                "id": ids,
                "path": [b"%08d.jpg" % i for i in ids],
                "hash": [int(i).to_bytes(16, "big") for i in ids],
            }
            columns |= {name: np.zeros(count, dtype=np.int64) for name in ("size", "mtime", "taken")}
            columns |= {name: np.zeros(count, dtype=np.int32) for name in ("width", "height")}
            columns |= {"missing": np.zeros(count, bool), "error": [None] * count, "caption": [None] * count}
            columns |= {"format": ["JPEG"] * count, "look": [bytes(64)] * count}
            vectors = pa.array(draws(count, first + 1).ravel())
            parts = [
                pa.FixedSizeListArray.from_arrays(vectors, WIDTH)
                if name == "vector"
                else pa.array(columns[name], schema.field(name).type)
                for name in schema.names
            ]
            store.add(pa.table(parts, schema=schema))
        store.optimize()
        name = write_snapshot(store, where, WIDTH)
        Manifest(
            root=str(folder), model=MODEL, text_print="", image_print="", width=WIDTH, dtype="float32", table="made",
            uri=store.uri, snapshot=name,
        ).write(where / FILE)  # fmt: skip
    return open_index(folder, str(where))


def draws(count: int, seed: int) -> np.ndarray:
    """Unit vectors of a mixture of `CLUSTERS` with as much spread inside as between, float32 (count, WIDTH)."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, WIDTH), dtype=np.float32)
    random = np.random.default_rng(seed)
    found = centres[random.integers(CLUSTERS, size=count)]
    found += random.standard_normal((count, WIDTH), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def search(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    index = made(folder, args.rows)
    index.exact = True
    kept = np.ones(len(index), dtype=bool)
    queries = draws(args.queries + 2, 10**6 + 7)
    for query in queries[:2]:
        index._nearest(query, kept, 10)
    took = [timed(lambda query=query: index._nearest(query, kept, 10))[1:] for query in queries[2:]]
    wall, cpu = (sorted(one[i] for one in took) for i in (0, 1))
    right = 0
    for query in queries[2:7]:
        scores = index.snapshot.scores(query)
        right += set(index._nearest(query, kept, 10)[0]) == set(np.argpartition(-scores, 9)[:10])
    return {
        "rows": len(index), "width": WIDTH, "threads": args.threads, "load": os.getloadavg()[0],
        "p50_ms": 1000 * wall[len(wall) // 2], "fastest_ms": 1000 * wall[0], "cpu_p50_ms": 1000 * cpu[len(cpu) // 2],
        "equal_to_float32": f"{right} of 5",
    }  # fmt: skip


def approximate(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rebus.index.store import Store

    index = made(folder, args.rows)
    store = Store(index.manifest.uri, "made")
    _, build, build_cpu = timed(lambda: store.partition(args.partitions))
    kept, queries = np.ones(len(index), dtype=bool), draws(args.queries, 10**6 + 7)
    index.exact, hit, took = False, 0, []
    for query in queries:
        (rows, _), wall, cpu = timed(lambda query=query: index._nearest(query, kept, 10))
        took.append((wall, cpu))
        exact = np.argpartition(-index.snapshot.scores(query), 9)[:10]
        hit += len(set(rows) & set(exact))
    wall, cpu = (sorted(one[i] for one in took) for i in (0, 1))
    return {
        "rows": len(index), "build_s": build, "build_cpu_s": build_cpu, "recall@10": hit / (10 * len(queries)),
        "p50_ms": 1000 * wall[len(wall) // 2], "fastest_ms": 1000 * wall[0], "cpu_p50_ms": 1000 * cpu[len(cpu) // 2],
        "load": os.getloadavg()[0],
    }  # fmt: skip


def _index(args: argparse.Namespace) -> None:
    from rebus.index.report import Options
    from rebus.index.update import update_index

    update_index(Path(args.folder), Options(model="asif/starter"), args.index)


def words(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    _index(args)
    took = []
    for text in ("a dog on a beach", "a red car", "two people", "snow", "a bicycle"):
        command = [sys.executable, "-m", "rebus.cli", "search", args.folder, text, "--index", args.index, "--json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    found = {"wall_s": [one[0] for one in took], "cpu_s": [one[1] for one in took], "load": os.getloadavg()[0]}
    return {**found, **_served(args)}


def _served(args: argparse.Namespace) -> dict[str, Any]:
    """Searches as `rebus search` asks a running `rebus serve`, each of another text."""
    from rebus.index.conditions import EVERYTHING
    from rebus.index.running_server import ask_server
    from rebus.index.search import Term, open_index
    from rebus.serve.server import serve
    from rebus.serve.settings import ServeSettings

    def ask(number: int) -> Any:
        return ask_server(Path(args.folder), [Term(text=f"a dog on a beach {number}")], EVERYTHING, 20, False)

    index = open_index(args.folder, args.index)
    serving = ([], ServeSettings(port=0), lambda name: None, lambda: None, [index])
    threading.Thread(target=serve, args=serving, daemon=True).start()
    while ask(0) is None:
        time.sleep(0.1)
    took = [timed(lambda number=number: ask(number))[1:] for number in range(1, args.queries + 1)]
    wall, cpu = (sorted(one[i] for one in took) for i in (0, 1))
    return {
        "served_p50_ms": 1000 * wall[len(wall) // 2],
        "served_most_ms": 1000 * wall[-1],
        "served_cpu_p50_ms": 1000 * cpu[len(cpu) // 2],
    }


def photos(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rebus.index.search import Term, open_index

    _, wall, cpu = timed(lambda: _index(args))
    index = open_index(args.folder, args.index)
    data = Path(args.folder).parent
    captions = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    paths = {Path(os.fsdecode(path)).name: row for row, path in enumerate(index.snapshot.paths)}
    texts, owners = [], []
    for line in captions:
        name = Path(line["file"]).name
        for text in line["captions"]:
            texts.append(text)
            owners.append(paths[name])
    vectors = index.text_encoder.embed_texts(texts).numpy()
    scores = vectors @ np.array(index.snapshot.vectors).T
    own = scores[np.arange(len(texts)), owners]
    ranks = 1 + (scores > own[:, None]).sum(axis=1)
    some = index.question([Term(text=texts[0])])
    assert np.allclose(some, vectors[0], atol=1e-5)
    return {
        "images": len(index), "captions": len(texts), "index_s": wall, "index_cpu_s": cpu,
        **{f"r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)},
    }  # fmt: skip


def copies(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Of 300 photos: a copy of the file, re-encoded, smaller, turned, a shot that is shifted and brighter."""
    from PIL import Image, ImageEnhance

    from rebus.index.duplicates import duplicates
    from rebus.index.report import Options
    from rebus.index.search import open_index
    from rebus.index.update import update_index

    made_in = folder / "copies"
    made_in.mkdir()
    random = np.random.default_rng(0)
    for number, file in enumerate(sorted(Path(args.folder).glob("*.jpg"))[:300]):
        image = Image.open(file).convert("RGB")
        width, height = image.size
        shutil.copy(file, made_in / f"{number}-original.jpg")
        shutil.copy(file, made_in / f"{number}-exact.jpg")
        image.save(made_in / f"{number}-same-encoded.jpg", quality=int(random.integers(40, 90)))
        share = random.uniform(0.4, 0.8)
        image.resize((int(width * share), int(height * share))).save(made_in / f"{number}-same-resized.jpg", quality=85)
        turn = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[number % 3]
        image.transpose(turn).save(made_in / f"{number}-same-turned.jpg", quality=85)
        by = [int(one) for one in random.integers(4, 24, 2)]
        shot = image.crop((by[0], by[1], width, height)).resize((width, height))
        ImageEnhance.Brightness(shot).enhance(random.uniform(0.85, 1.15)).save(made_in / f"{number}-similar.jpg")
    update_index(made_in, Options(model="asif/starter"), str(folder / "copies-index"))
    snapshot = open_index(made_in, str(folder / "copies-index")).snapshot
    names = [os.fsdecode(path).removesuffix(".jpg").split("-", 1) for path in snapshot.paths]
    ranks = {"exact": ("original", "exact"), "same": ("original", "exact", "same")}
    found: dict[str, Any] = {"files": len(names)}
    for kind in ("exact", "same", "similar"):
        pairs = {
            (min(a, b), max(a, b))
            for group in duplicates(snapshot, kind)
            for i, a in enumerate(group)
            for b in group[i + 1 :]
        }
        kinds = ranks.get(kind)
        inside = [i for i, (_, form) in enumerate(names) if kinds is None or form.split("-")[0] in kinds]
        by_photo: dict[str, list[int]] = {}
        for i in inside:
            by_photo.setdefault(names[i][0], []).append(i)
        truth = {(a, b) for group in by_photo.values() for i, a in enumerate(group) for b in group[i + 1 :]}
        alike = {pair for pair in pairs if names[pair[0]][0] == names[pair[1]][0]}
        found[kind] = {
            "pairs": len(pairs),
            "precision": len(alike & truth if kind == "exact" else alike) / max(len(pairs), 1),
            "recall": len(pairs & truth) / len(truth),
        }
    return found


def sheets(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rebus.cli.contact_sheet import contact_sheet
    from rebus.data.record import Record
    from rebus.index.search import MINUS, Term, open_index

    _index(args)
    index = open_index(args.folder, args.index)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for text, more in SEARCHES:
        terms = [Term(text=text), *([Term(text=more["minus"], weight=-MINUS)] if "minus" in more else [])]
        hits = index.search(terms, number=12)
        records = [
            Record(key=hit.path, image=hit.path, captions=(f"{hit.score:.3f} {Path(hit.path).name}",)) for hit in hits
        ]
        name = "-".join(text.split())
        contact_sheet(records).save(out / f"{name}.jpg", quality=80)
        found[text] = [Path(hit.path).name for hit in hits]
    return found


PARTS = {part.__name__: part for part in (rescan, search, approximate, words, photos, copies, sheets)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--folder", default="../shared/data/flickr8k_1k/images")
    parser.add_argument("--index", help="of the photos (default: a temporary one)")
    parser.add_argument("--out", default="sheets")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        args.index = args.index or str(Path(name) / "photos-index")
        for part in args.parts:
            print(json.dumps({part: PARTS[part](args, Path(name))}), flush=True)


if __name__ == "__main__":
    main()
