"""What guidance adds to captions: the figures on the cards of `magic/starter` and `magic/scenes`.

    python benchmarks/magic.py photos FOLDER [--split val] [--limit N]
    python benchmarks/magic.py scenes [--limit N]

FOLDER is `flickr8k_1k`, as `benchmarks/README.md` describes it. Each image is captioned as the model does it, without
its guide (`beta=0`, contrastive search, which says the same of every image), and of scenes with the guide shown another
image. Prints one JSON document; how far it is goes to the standard error, a line for each ten images.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import rebus
from rebus.data.scenes import scene
from rebus.evaluate.caption_metrics import bleu, cider_d, rouge_l, words
from rebus.evaluate.scenes import caption_scores

SHOWN = 10
AT_ONCE = 10
KINDS: dict[str, Callable[[Sequence[Any]], tuple[Sequence[Any], dict[str, float]]]] = {  # what is captioned, and how
    "guided": lambda images: (images, {}),
    "unguided": lambda images: (images[:1], {"beta": 0.0}),
    "guided by another image": lambda images: ([*images[-1:], *images[:-1]], {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_photos, of_scenes = kinds.add_parser("photos"), kinds.add_parser("scenes")
    of_photos.add_argument("folder", type=Path)
    of_photos.add_argument("--split", default="val")
    of_photos.add_argument("--limit", type=int, default=None)
    of_scenes.add_argument("--limit", type=int, default=1000)
    args = parser.parse_args()
    found = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    found |= photos(args.folder, args.split, args.limit) if args.kind == "photos" else scenes(args.limit)
    print(json.dumps(found, indent=2, ensure_ascii=False))


def photos(folder: Path, split: str, limit: int | None) -> dict[str, Any]:
    """Photos with human captions, in the order of their file names."""
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    rows = sorted((row for row in rows if row["split"] == split), key=lambda row: row["file"])[:limit]
    images = [folder / row["file"] for row in rows]
    human = [[words(text) for text in row["captions"]] for row in rows]
    model, guide = rebus.load("magic/starter", device="cpu"), rebus.load("asif/starter", device="cpu")
    found: dict[str, Any] = {"photos": len(rows)}
    scores = {}
    for kind, captions, seconds, cpu in captioned(model, images, ("guided", "unguided")):
        plain = [words(text) for text in captions]
        scores[kind] = torch.as_tensor(guide.match(images, captions)).diagonal()
        found[kind] = {
            "seconds_a_photo": round(seconds, 2),
            "cpu_seconds_a_photo": round(cpu, 2),
            "guide_score": round(float(scores[kind].mean()), 4),
            "CIDEr-D": round(cider_d(plain, human), 4),
            "BLEU-1": round(bleu(plain, human)[0], 3),
            "BLEU-4": round(bleu(plain, human)[3], 3),
            "ROUGE-L": round(rouge_l(plain, human), 3),
            "different_captions": len(set(captions)),
            "first": {row["file"]: text for row, text in zip(rows[:SHOWN], captions, strict=False)},
        }
    found["better_in_the_guides_score"] = float((scores["guided"] > scores["unguided"]).float().mean())
    return found


def scenes(number: int) -> dict[str, Any]:
    """Held-out scenes; `judge` is a dual encoder that had no part in guiding."""
    model = rebus.load("magic/scenes", device="cpu")
    encoders = {"guide_score": rebus.load("clip/scenes", device="cpu"), "judge": rebus.load("siglip/scenes")}
    for encoder in encoders.values():
        encoder.processor.text.allow_truncation()
    found: dict[str, Any] = {}
    for split in ("test", "novel"):
        drawn = [scene(i, split) for i in range(number)]
        images = [one.image for one in drawn]
        found[split] = {"scenes": number}
        for kind, captions, seconds, _ in captioned(model, images, tuple(KINDS)):
            by = {name: _mean_match(encoder, images, captions) for name, encoder in encoders.items()}
            right = caption_scores(captions, drawn)["caption_attributes"]
            found[split][kind] = {**by, "caption_attributes": round(right, 3), "seconds": round(seconds, 3)}
    return found


def captioned(model: Any, images: Sequence[Any], kinds: Sequence[str]) -> Iterator[tuple[str, list[str], float, float]]:
    """(kind, captions, wall seconds an image, processor seconds an image) for some of `KINDS`; says how far it is."""
    for kind in kinds:
        shown, options = KINDS[kind](images)
        began, used, said = time.perf_counter(), time.process_time(), []
        for first in range(0, len(shown), AT_ONCE):
            said += model.caption(list(shown[first : first + AT_ONCE]), batch_size=AT_ONCE, **options)
            print(
                f"{kind}: {len(said)} of {len(shown)}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True
            )
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        yield kind, said * (len(images) // len(said)), wall / len(said), cpu / len(said)


def _mean_match(encoder: Any, images: Sequence[Any], captions: Sequence[str], size: int = 100) -> float:
    """Mean cosine of each image with its own caption."""
    pieces = [
        torch.as_tensor(encoder.match(images[at : at + size], captions[at : at + size])).diagonal()
        for at in range(0, len(images), size)
    ]
    return round(float(torch.cat(pieces).mean()), 3)


if __name__ == "__main__":
    main()
