"""Whether data on disk keep up with training: images a second from a folder of JPEGs and from a tar, by processes
that make batches ahead, beside what a step of CLIP ViT-B/32 takes of them on the same machine.

    python benchmarks/feeding.py [--number 512] [--side 512]
"""

import argparse
import io
import json
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import rebus
from rebus.core.specs import Prompts
from rebus.data.file_records import Files, file_batches
from rebus.data.scenes import scene
from rebus.train.bench import bench_train
from rebus.train.loop import _Numbered

BATCH = 32


def write(folder: Path, number: int, side: int) -> None:
    """JPEGs with captions, as a folder and as a tar."""
    (folder / "photos").mkdir()
    rows = []
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(number):
            s = scene(i, "train", side)
            buffer = io.BytesIO()
            s.image.save(buffer, "JPEG", quality=90)
            (folder / "photos" / f"{i:05d}.jpg").write_bytes(buffer.getvalue())
            rows.append(json.dumps({"file": f"{i:05d}.jpg", "caption": s.captions[0]}))
            for ending, data in (("jpg", buffer.getvalue()), ("txt", s.captions[0].encode())):
                member = tarfile.TarInfo(f"{i:05d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (folder / "photos" / "captions.jsonl").write_text("\n".join(rows))


def images_a_second(files: Files, processor: Any, workers: int, batches: int) -> float:
    data = file_batches(files, processor, Prompts())
    loader = torch.utils.data.DataLoader(
        _Numbered(data, 0, BATCH, "train", (0, 1)),
        batch_size=None,
        sampler=range(batches + 2),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    stream = iter(loader)
    for _ in range(2):  # the start of the processes does not count
        next(stream)
    began = time.monotonic()
    for _ in range(batches):
        next(stream)
    return BATCH * batches / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=512)
    parser.add_argument("--side", type=int, default=512)
    args = parser.parse_args()
    torch.set_num_threads(1)
    processor = rebus.create("clip/b32").processor
    processor.text = rebus.load("clip/scenes").processor.text
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, args.number, args.side)
        for name, path in (("folder", folder / "photos"), ("tar", folder / "00000.tar")):
            for fast in (True, False):
                for workers in (0, 1, 2):
                    files = Files(path=str(path), split=None, form="pairs", fast=fast)
                    rates = [images_a_second(files, processor, workers, 12) for _ in range(3)]
                    print(
                        f"{name}, {'fast' if fast else 'exact'}, {workers} processes ahead: "
                        f"{statistics.median(rates):.0f} images/s",
                        flush=True,
                    )
    network = rebus.create("clip/b32")
    torch.set_num_threads(2)
    found = bench_train(network.network, network.system, network.config, batch_size=8, steps=3)
    print(f"training CLIP ViT-B/32, 2 threads, float32: {found}")


if __name__ == "__main__":
    main()
