"""How well `asif/starter` names and finds real photos, and `vild/starter` things in them: the figures on their cards.

    python benchmarks/starter.py FOLDER [--only SET] [--limit N]

FOLDER holds `imagenet_samples`, `cifar10`, `flickr8k_1k` and `coco_mini`, as `benchmarks/README.md` describes them.
Nothing of what is scored of `asif/starter` was used to choose a setting: those were chosen on the training parts of
CIFAR-10 and Flickr8k. The settings of `vild/starter` were chosen on every second photo of COCO, which is scored apart.
Prints one JSON document.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import rebus
from rebus.evaluate.detection import Detections, Truth, coco_scores
from rebus.models.training_free.asif import ASIF
from rebus.models.training_free.starter import photo_pairs

COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,"
    "suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush"
).split(",")
PHOTOS_SHARE = 0.65  # beside the class pairs, where both are used; chosen in seven folds of the training photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="images of each set, for a quick look")
    parser.add_argument("--only", choices=SETS, help="one set alone")
    args = parser.parse_args()
    command = f"python benchmarks/starter.py {args.folder.name}"
    result = {"command": command, "torch": torch.__version__, "threads": torch.get_num_threads()}
    for name in SETS if args.only is None else [args.only]:
        model = rebus.load("vild/starter" if name == "coco" else "asif/starter", device="cpu")
        result |= SETS[name](model, args.folder, args.limit)
    print(json.dumps(result, indent=2))


def imagenet(model: Any, folder: Path, limit: int | None) -> dict[str, Any]:
    """One photo of each of 750 classes; all 1,000 names are candidates, as they are and in a sentence."""
    folder = folder / "imagenet_samples"
    rows = json.loads((folder / "labels.json").read_text())[:limit]
    names = json.loads((folder / "imagenet_1000_class_names.json").read_text())
    labels = [names[str(i)] for i in range(1000)]
    right = torch.tensor([row["class_index"] for row in rows])
    seen = see(model, [folder / row["file"] for row in rows])
    return {
        "imagenet_samples_images": len(rows),
        "imagenet_samples_top1": top1(model, seen, labels, right),
        "imagenet_samples_top1_sentence": top1(model, seen, [f"a photo of a {name}" for name in labels], right),
    }


def cifar10(model: Any, folder: Path, limit: int | None) -> dict[str, Any]:
    """The test images, 32 × 32; ten names."""
    data = np.load(folder / "cifar10" / "cifar10_test.npz")
    jpeg, ends, right = data["jpeg"], data["offsets"], torch.tensor(data["labels"].astype(np.int64))[:limit]
    classes = [str(name) for name in data["classes"]]
    images = [Image.open(io.BytesIO(jpeg[a:b].tobytes())) for a, b in pairwise(ends)][:limit]
    seen = see(model, images)
    return {
        "cifar10_test_images": len(right),
        "cifar10_test_top1": top1(model, seen, classes, right),
        "cifar10_test_top1_sentence": top1(model, seen, [f"a photo of a {name}" for name in classes], right),
    }


def flickr(model: Any, folder: Path, limit: int | None) -> dict[str, Any]:
    """The 100 validation photos by their first captions; then with the training photos as pairs."""
    folder = folder / "flickr8k_1k"
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    test = [row for row in rows if row["split"] == "val"][:limit]
    train = [row for row in rows if row["split"] == "train"][:limit]
    seen = see(model, [folder / row["file"] for row in test])
    read = words(model, [row["captions"][0] for row in test])
    photos = photo_pairs(
        model.network,
        model.processor,
        [folder / row["file"] for row in train],
        [row["captions"] for row in train],
        ids=[row["file"] for row in train],
        weight=PHOTOS_SHARE / (1 - PHOTOS_SHARE),
    )
    classes = model.network.tables[0]
    return {
        "flickr8k_val_images": len(test),
        "flickr8k_val_classes": recall(model.network, seen, read),
        f"flickr8k_val_{len(train)}_photos": recall(model.network.with_tables(photos), seen, read),
        "flickr8k_val_both": recall(model.network.with_tables([classes, photos]), seen, read),
    }


def coco(model: Any, folder: Path, limit: int | None) -> dict[str, Any]:
    """Boxes of 80 classes by their names, crowds left out as COCO does; the even photos chose the settings."""
    folder = folder / "coco_mini"
    rows = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["boxes"]][:limit]
    start, used = time.time(), time.process_time()
    found = model.detect([folder / row["file"] for row in rows], list(COCO_NAMES))
    seconds, processor = time.time() - start, time.process_time() - used
    pairs = []
    for row, boxes in zip(rows, found, strict=True):
        corners = np.array([box["bbox_xywh"] for box in row["boxes"]], dtype=float)
        corners[:, 2:] += corners[:, :2]
        names, crowd = ([box[key] for box in row["boxes"]] for key in ("category", "iscrowd"))
        answer = Detections(
            labels=[box.label for box in boxes],
            scores=[box.score for box in boxes],
            boxes=np.array([box.xyxy for box in boxes], dtype=float).reshape(-1, 4),
        )
        pairs.append((Truth(labels=names, boxes=corners, crowd=[bool(one) for one in crowd]), answer))
    parts = {"": pairs, "_even": pairs[::2], "_odd": pairs[1::2]}
    scores = {part: coco_scores(some, COCO_NAMES) for part, some in parts.items()}
    return {
        "coco_mini_photos": len(rows),
        **{f"coco_mini_ap50{part}": round(score.ap50, 4) for part, score in scores.items()},
        "coco_mini_ap": round(scores[""].ap, 4),
        "coco_mini_seconds_a_photo": round(seconds / len(rows), 2),
        "coco_mini_processor_seconds_a_photo": round(processor / len(rows), 2),
    }


def see(model: Any, images: Sequence[Any], size: int = 25) -> Tensor:
    """Images as the image encoder sees them."""
    start, parts = time.time(), []
    with torch.inference_mode():
        for first in range(0, len(images), size):
            batch = model.processor(images=list(images[first : first + size]))
            parts.append(model.network.image_vectors(batch["pixels"]))
    print(f"{len(images)} images in {time.time() - start:.0f} s", flush=True, file=sys.stderr)
    return torch.cat(parts)


def words(model: Any, texts: Sequence[str], size: int = 50) -> Tensor:
    """Texts as the text encoder reads them."""
    with torch.inference_mode():
        parts = [
            model.network.text_vectors(**model.processor(texts=list(texts[first : first + size])))
            for first in range(0, len(texts), size)
        ]
    return torch.cat(parts)


def top1(model: Any, seen: Tensor, labels: Sequence[str], right: Tensor) -> float:
    named = model.network.score(seen, words(model, labels)).argmax(1)
    return round(float((named == right).float().mean()), 4)


def recall(network: ASIF, seen: Tensor, read: Tensor) -> dict[str, float]:
    """Text to image: how often the right one is first, or among the first five or ten. Ties count against it."""
    scores = network.score(seen, read).T
    rank = (scores >= scores.diagonal()[:, None]).sum(1)
    return {f"R@{k}": round(float((rank <= k).float().mean()), 4) for k in (1, 5, 10)}


SETS = {"imagenet": imagenet, "cifar10": cifar10, "flickr": flickr, "coco": coco}

if __name__ == "__main__":
    main()
