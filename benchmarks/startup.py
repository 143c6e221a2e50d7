"""One photo, some labels, a local CLIP ViT-B/32 directory: process start to answer, `rebus classify` against a script.

    python benchmarks/startup.py [--rounds 5] [--clock wall|cpu] [--json]

The directory holds random weights and a word-level tokenizer, since only the time counts. `cpu` is the processor's
time of the child process, for a busy machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alternating import about, ratios, report, summary

SCRIPT = """
import sys
from PIL import Image
from transformers import CLIPModel, CLIPProcessor
model = CLIPModel.from_pretrained(sys.argv[1]).eval()
processor = CLIPProcessor.from_pretrained(sys.argv[1])
labels = sys.argv[3].split(",")
texts = [f"a photo of a {label}." for label in labels]
import torch
with torch.inference_mode():
    batch = processor(text=texts, images=Image.open(sys.argv[2]).convert("RGB"), return_tensors="pt", padding=True)
    print(dict(zip(labels, model(**batch).logits_per_image.softmax(-1)[0].tolist())))
"""
MAKE = """
import sys, numpy as np, torch
from pathlib import Path
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast
from tokenizers import Tokenizer, models, pre_tokenizers, processors
folder = Path(sys.argv[1])
CLIPModel(CLIPConfig()).save_pretrained(folder)
CLIPImageProcessor().save_pretrained(folder)
letters = [chr(i) for i in range(33, 127)]
words = {piece: i for i, piece in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
words["<|startoftext|>"], words["<|endoftext|>"] = 49406, 49407
import json
(folder / "vocab.json").write_text(json.dumps(words))
(folder / "merges.txt").write_text("#version: 0.2\\n")
CLIPTokenizerFast.from_pretrained(folder).save_pretrained(folder)
noise = np.random.default_rng(0).integers(0, 255, (75, 100, 3), dtype=np.uint8)
Image.fromarray(noise).resize((1600, 1200)).save(folder / "photo.jpg", quality=90)
"""
LABELS = "cat,dog,car,tree,house"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE, name], check=True, capture_output=True)
        photo = str(folder / "photo.jpg")
        commands = {
            "transformers": [sys.executable, "-c", SCRIPT, name, photo, LABELS],
            "rebus": [sys.executable, "-m", "rebus.cli", "classify", photo, "--labels", LABELS, "--model", name],
        }
        seconds: dict[str, list[float]] = {key: [] for key in commands}
        for turn in range(chosen.rounds + 1):
            for key, command in commands.items():
                taken = _run(command, chosen.clock)
                if turn:
                    seconds[key].append(taken)
    result = {
        "case": f"classify one photo among {LABELS.count(',') + 1} labels, {chosen.clock} time",
        "about": about(chosen),
        "times": summary(seconds),
        "ratios": ratios(seconds, ["transformers"]),
        "extra": {
            "share of transformers' time": round(_middle(seconds["rebus"]) / _middle(seconds["transformers"]), 2)
        },
    }
    report(result, chosen.json)


def _run(command: list[str], clock: str) -> float:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    return wall if clock == "wall" else after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
