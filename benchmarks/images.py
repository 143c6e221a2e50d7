"""Photo → tensor: Pillow as the released preprocessors use it, our exact path, our fast path, in alternating runs.

    python benchmarks/images.py [--photos FOLDER] [--size 224] [--threads 2] [--rounds 5] [--batch 8] [--json]

JPEGs of 1 to 12 megapixels are made by enlarging photos, without noise and with the grain of a small sensor (which
costs every path the same time for its entropy coding, and so narrows the gap). Printed are medians in milliseconds a
photo, by the clock and by the processor, and the drift of the fast path in units of 1/255. The clock counts threads;
the processor's time is the fairer figure on a busy machine.
"""

import argparse
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from rebus.codec.images import ImagePipeline
from rebus.core.specs import ImageSpec

SIZES = [(1200, 900), (1920, 1080), (2048, 1536), (3000, 4000), (4000, 3000)]
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def sample_photos(folder: str | None) -> list[Image.Image]:
    if folder:
        return [Image.open(path).convert("RGB") for path in sorted(Path(folder).glob("*.jpg"))[:4]]
    try:
        from skimage import data
    except ImportError:
        sys.exit('Give --photos FOLDER, or install the sample photos: pip install "rebus-vlm[starter]"')
    return [Image.fromarray(image) for image in (data.astronaut(), data.coffee(), data.chelsea())]


def jpegs(photos: list[Image.Image], size: tuple[int, int], grain: float) -> list[bytes]:
    rng = np.random.default_rng(0)
    files = []
    for photo in photos:
        large = photo.resize(size, Image.Resampling.LANCZOS)
        if grain:
            pixels = np.asarray(large).astype(np.float32)
            pixels += rng.normal(0, grain, (*pixels.shape[:2], 1)).astype(np.float32)
            large = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        file = io.BytesIO()
        large.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def pillow(spec: ImageSpec) -> Callable[[list[bytes]], torch.Tensor]:
    """The plain way, one photo after another."""
    mean, std = (np.array(values, np.float32) for values in (spec.mean, spec.std))

    def one(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        if spec.resize == "shorter":
            side = spec.size[0]
            short, long = min(image.size), max(image.size)
            other = int(side * long / short)
            image = image.resize(
                (side, other) if image.width <= image.height else (other, side), Image.Resampling.BICUBIC
            )
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        else:
            image = image.resize(spec.size[::-1], Image.Resampling.BICUBIC)
        return ((np.asarray(image, dtype=np.float32) / 255 - mean) / std).transpose(2, 0, 1)

    return lambda batch: torch.from_numpy(np.stack([one(data) for data in batch]))


def measure(ways: dict[str, Callable], batch: list[bytes], rounds: int) -> dict[str, tuple[float, float]]:
    """Median (clock, processor) milliseconds a photo, the ways taking turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            clock, processor = time.perf_counter(), time.process_time()
            way(batch)
            spent = (time.perf_counter() - clock, time.process_time() - processor)
            if turn:  # the first warms up
                times[name].append(tuple(1000 * seconds / len(batch) for seconds in spent))
    return {name: tuple(statistics.median(kind) for kind in zip(*runs, strict=True)) for name, runs in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--resize", choices=["shorter", "exact"], default="shorter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(1)  # the threads are the pipeline's
    spec = ImageSpec(size=(options.size, options.size), resize=options.resize, **CLIP)
    exact = ImagePipeline(spec, threads=options.threads)
    fast = ImagePipeline(spec, threads=options.threads, fast=True)
    ways = {"pillow": pillow(spec), "exact": exact, "fast": fast}
    std = torch.tensor(spec.std)[:, None, None]
    photos = sample_photos(options.photos)
    rows = []
    for size in SIZES:
        for grain in (0.0, 6.0):
            files = jpegs(photos, size, grain)
            batch = [files[i % len(files)] for i in range(options.batch)]
            spent = measure(ways, batch, options.rounds)
            drift = ((fast(files)["pixels"] - exact(files)["pixels"]) * std * 255).abs()
            rows.append(
                {
                    "megapixels": round(size[0] * size[1] / 1e6, 1),
                    "size": f"{size[0]}x{size[1]}",
                    "grain": grain,
                    "kilobytes": sum(map(len, files)) // len(files) // 1024,
                    "clock_ms": {name: round(times[0], 1) for name, times in spent.items()},
                    "processor_ms": {name: round(times[1], 1) for name, times in spent.items()},
                    "fast_over_pillow": round(spent["pillow"][0] / spent["fast"][0], 2),
                    "fast_over_pillow_processor": round(spent["pillow"][1] / spent["fast"][1], 2),
                    "drift_mean": round(drift.mean().item(), 3),
                    "drift_max": round(drift.max().item(), 1),
                }
            )
            if not options.json:
                show(rows[-1], first=len(rows) == 1)
    about = {
        "threads": options.threads,
        "size": options.size,
        "resize": options.resize,
        "processor": platform.processor(),
    }
    if options.json:
        print(json.dumps({"about": about, "rows": rows}, indent=1))


def show(row: dict, first: bool) -> None:
    if first:
        print(f"{'photo':>14} {'grain':>5} {'KB':>5} | {'ms by the clock':^26} | {'ms of processor':^26} |")
        print(
            f"{'':>14} {'':>5} {'':>5} | "
            + 2 * f"{'pillow':>8} {'exact':>8} {'fast':>8} | "
            + "fast over pillow, drift"
        )
    times = " | ".join(
        " ".join(f"{row[kind][name]:8.1f}" for name in row[kind]) for kind in ("clock_ms", "processor_ms")
    )
    ratios = f"{row['fast_over_pillow']:.1f}x clock, {row['fast_over_pillow_processor']:.1f}x processor"
    print(
        f"{row['size']:>9} {row['megapixels']:4.1f} {row['grain']:5.0f} {row['kilobytes']:5d} | {times} | "
        f"{ratios}; mean {row['drift_mean']:.2f}, max {row['drift_max']:.0f} of 255",
        flush=True,
    )


if __name__ == "__main__":
    main()
