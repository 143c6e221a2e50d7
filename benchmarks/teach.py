"""Twenty photos of a word that `asif/starter` has no class for: average precision on held-out photos, before and after.

    python benchmarks/teach.py FOLDER
    python benchmarks/teach.py scenes

FOLDER holds `flickr8k_1k`. Each word is asked for as "a photo of a WORD" among held-out photos; a photo shows it where
two captions or more say so. Twenty photos that three captions say it of, by lot, teach it; a hundred others, by lot,
are what it is told from in the last column. None of these is among the held-out ones. How words are taught was chosen
with other words (woman, man, boy, grass, jump, water). Prints one JSON document.

With `scenes`, an unknown word for a trait of drawn scenes is taught to `asif/scenes`, whose pairs are captioned images:
mean score of the held-out scenes that show it and average precision, and how often the full caption of 150 held-out
scenes is the best of theirs; with pairs that count once, and as `teach` weighs them.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from starter import see, words
from torch import Tensor

import rebus
from rebus.data.scenes import scene

WORDS = {  # ImageNet has no class for them
    "child": r"child(ren)?|kids?|toddlers?",
    "girl": r"girls?",
    "rock climber": r"climb\w*",
    "snow": r"snow\w*",
    "beach": r"beach",
}
TRAITS = ("purple", "heart", "red")
DRAWS, SHOWN, OTHERS = 3, 20, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder == Path("scenes"):
        print(json.dumps(scenes(), indent=2))
        return
    folder = folder / "flickr8k_1k"
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    model = rebus.load("asif/starter", device="cpu")
    seen = see(model, [folder / row["file"] for row in rows])
    found = {}
    for word, pattern in WORDS.items():
        told = [sum(bool(re.search(rf"\b({pattern})\b", text.lower())) for text in row["captions"]) for row in rows]
        found[word] = taught(model, word, seen, torch.tensor(told))
        print(word, found[word], file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2))


def taught(model: Any, word: str, seen: Tensor, told: Tensor) -> dict[str, Any]:
    """Mean average precision over the draws, and each draw's."""
    network = model.network
    asked = words(model, [f"a photo of a {word}"])
    text = words(model, [f"a photo of {word}", word]).mean(0)
    found: dict[str, list[float]] = {"before": [], "after": [], "after, told from others": []}
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        sure = (told >= 3).nonzero()[:, 0]
        shown = sure[torch.randperm(len(sure), generator=generator)[:SHOWN]]
        rest = torch.ones(len(seen), dtype=torch.bool)
        rest[shown] = False
        others = rest.nonzero()[:, 0]
        others = others[torch.randperm(len(others), generator=generator)[:OTHERS]]
        rest[others] = False
        right = told[rest] >= 2
        for name, against in (("before", None), ("after", None), ("after, told from others", seen[others])):
            if name != "before":
                network.teach(seen[shown], text, ["taught"], word, against)
            found[name].append(average_precision(network.score(seen[rest], asked)[:, 0], right))
            if name != "before":
                network.remove_anchors(["taught"])
    figures: dict[str, Any] = {name: round(statistics.fmean(values), 3) for name, values in found.items()}
    return figures | {"held out": int(rest.sum()), "of them right": int(right.sum()), "draws": found}


def scenes() -> dict[str, Any]:
    """Before, with pairs that count once, and taught: by trait."""
    model: Any = rebus.load("asif/scenes", device="cpu")
    model.processor.text.allow_truncation()
    network, drawn = model.network, [scene(5_000 + i, "test") for i in range(300)]
    seen = see(model, [one.image for one in drawn])
    asked, text = words(model, ["a photo of a yes"]), words(model, ["a photo of yes", "yes"]).mean(0)
    found: dict[str, Any] = {}
    for trait in TRAITS:
        right = torch.tensor([trait in one.captions[0] for one in drawn])
        shown = right.nonzero()[:SHOWN, 0]
        rest = torch.ones(len(seen), dtype=torch.bool)
        rest[shown] = False
        captions = words(model, [drawn[i].captions[0] for i in rest.nonzero()[:150, 0].tolist()])
        ids = [f"taught {i}" for i in range(len(shown))]
        found[trait] = {"held out": int(rest.sum()), "of them right": int(right[rest].sum())}
        for name in ("before", "counting once", "taught"):
            if name == "counting once":
                network.add_anchors(seen[shown], text.expand(len(shown), -1), ids)
            elif name == "taught":
                network.teach(seen[shown], text, ids, "a photo of yes")
            scores = network.score(seen[rest], asked)[:, 0]
            own = network.score(seen[rest][:150], captions).argmax(1) == torch.arange(len(captions))
            found[trait][name] = {
                "score": round(float(scores[right[rest]].mean()), 3),
                "average precision": average_precision(scores, right[rest]),
                "own caption first": round(float(own.float().mean()), 3),
            }
            if name != "before":
                network.remove_anchors(ids)
    return found


def average_precision(scores: Tensor, right: Tensor) -> float:
    hits = right[torch.argsort(-scores, stable=True)].float()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return round(float((precision * hits).sum() / hits.sum()), 3)


if __name__ == "__main__":
    main()
