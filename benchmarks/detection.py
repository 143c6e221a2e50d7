"""How long ViLD takes to find 1,200 labels in a photo of 1,024 pixels, and how long other labels cost.

    python benchmarks/detection.py [--variant vild] [--labels 1200] [--threads 2] [--rounds 3] [--clock wall]

A ResNet-50 of the published size and CLIP B/32's text encoder, both of random weights; labels of two words, each in one
sentence. `--clock cpu` gives the processor's time of the process over the number of threads. Prints one JSON document.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

import rebus
from rebus.backbones.text.encoder import TextConfig
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.config import to_dict
from rebus.core.specs import Prompts
from rebus.models.distillation.vild import PRESETS, text_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=["vild", "ensemble"], default="vild")
    parser.add_argument("--labels", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = a_model(args.variant)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8))

    def clock() -> float:
        return time.perf_counter() if args.clock == "wall" else time.process_time() / args.threads

    def seconds(run: Callable[[], Any]) -> float:
        begun = clock()
        run()
        return clock() - begun

    def labels(number: int) -> list[str]:  # others for each number: what was read is kept
        return [f"w{i} w{number}" for i in range(args.labels)]

    detector = model.detector(labels(0))
    found = detector(photo)  # the first of all is slower
    names_read = [seconds(partial(model.detector, labels(number))) for number in range(1, args.rounds + 1)]
    other = detector.asking(labels(1))
    looked = [seconds(lambda: look_anew(detector, photo)) for _ in range(args.rounds)]
    detector(photo)
    renamed = [seconds(lambda: other(photo)) for _ in range(args.rounds)]
    report = {
        "model": f"ResNet-50, {args.variant}",
        "labels": args.labels,
        "boxes": len(found),
        "threads": args.threads,
        "clock": args.clock,
        "load before": round(os.getloadavg()[0], 1),
        "read the labels": statistics.median(names_read),
        "detect": statistics.median(looked),
        "other labels in the same photo": statistics.median(renamed),
        "load after": round(os.getloadavg()[0], 1),
    }
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in report.items()}, indent=2))


def look_anew(detector: Any, photo: Image.Image) -> None:
    """As on a photo that was not the last one."""
    detector(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    detector._last_seen._pixels = b""


def a_model(variant: str) -> Any:
    torch.manual_seed(0)
    cfg = dataclasses.replace(PRESETS["resnet50"], variant=variant, text=TextConfig(), end_id=1)
    model = rebus.create("vild/resnet50", **to_dict(cfg))
    model.system = dataclasses.replace(model.system, prompts=Prompts())
    spec = dataclasses.replace(text_spec(cfg), bos_id=2, eos_id=1, read_at=1)
    model.processor.text = TextPipeline(word_level_tokenizer([f"w{i}" for i in range(49_404)]), spec)
    return model


if __name__ == "__main__":
    main()
