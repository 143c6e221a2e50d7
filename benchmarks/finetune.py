"""Fine-tune a PaliGemma directory that transformers wrote, on 100 real photos, until it knows their captions by heart;
then count how many transformers writes word for word, with the weights that rebus saved.

    python benchmarks/finetune.py FOLDER

Untrained weights, so that nothing comes from elsewhere. Whole, and with LoRA: an untrained embedding cannot be undone
by thin matrices, so LoRA gets the embeddings and the last norm whole.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import rebus
from rebus.recipes import recipe
from rebus.train import override, train
from tests.parity.finetuning import reference_captions, write_directory

RUNS = {
    "whole": ("paligemma_captions", ["optim.lr=3e-3", "optim.matrices=muon"]),
    "LoRA": (
        "paligemma_lora",
        [
            "optim.lr=5e-3",
            "optim.matrices=muon",
            "lora.rank=32",
            "lora.alpha=32",
            'lora.parts=["image", "image_proj", "text.blocks"]',
            'lora.whole=["text.tokens", "text.norm"]',
        ],
    ),
}


def photos(source: Path, folder: Path, number: int) -> list[tuple[Path, str]]:
    """Copies of the first photos of the split "train", with their first captions in a table."""
    folder.mkdir()
    rows = [json.loads(line) for line in (source / "captions.jsonl").read_text().splitlines()]
    chosen = []
    with (folder / "captions.jsonl").open("w") as table:
        for row in [row for row in rows if row["split"] == "train"][:number]:
            copy = Path(shutil.copy(source / row["file"], folder))
            caption = " ".join(row["captions"][0].lower().split())
            table.write(json.dumps({"file": copy.name, "caption": caption}) + "\n")
            chosen.append((copy, caption))
    return chosen


def measure(name: str, source: Path, number: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pairs = photos(source, folder / "photos", number)
        write_directory(folder / "base", [caption for _, caption in pairs])
        kind, settings = RUNS[name]
        settings = [f"start_from={folder / 'base'}", f"data.path={folder / 'photos'}", "data.split=none", *settings]
        settings += [f"steps={steps}", "batch_size=20", "eval_every=0", "save_every=1000", "optim.warmup=20"]
        waited = 0.0

        def report(line: Mapping[str, Any]) -> None:
            nonlocal waited
            waited += line["waited"]
            if line["step"] % 50 == 0:
                print(
                    f"  step {line['step']}: loss {line['loss']:.4f}, tokens right {line['accuracy']:.3f}", flush=True
                )

        began = time.monotonic()
        final = train(override(recipe(kind), settings), folder / "run", report)
        seconds = time.monotonic() - began
        model = rebus.load(final)
        batch = model.processor(images=[path for path, _ in pairs], texts=["caption en"] * len(pairs))
        theirs = model.processor.decode(reference_captions(final, batch))
        ours = model.caption([path for path, _ in pairs])
        right = sum(said == caption for said, (_, caption) in zip(theirs, pairs, strict=True))
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        print(
            f"{name}: {right} of {len(pairs)} captions word for word by transformers, {same} the same as ours; "
            f"{steps} steps in {seconds:.0f} s, of which {waited:.0f} s waiting for data"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path, help="a folder with captions.jsonl and its photos")
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--only", choices=list(RUNS))
    args = parser.parse_args()
    for name in [args.only] if args.only else list(RUNS):
        measure(name, args.source, args.number, args.steps)


if __name__ == "__main__":
    main()
