"""Sort a folder of photos into labels of your choice: python examples/classify_photos.py photos/ "a cat" "a dog"

Works offline with the extra "starter"; put another name in MODEL for a released checkpoint.
"""

import sys
from pathlib import Path

import rebus

MODEL = "asif/starter"


def main(folder: str, *labels: str) -> None:
    model = rebus.load(MODEL)
    photos = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for photo, ranking in zip(photos, model.classify(photos, list(labels)), strict=True):
        print(f"{photo.name}: {ranking.top} ({ranking.probabilities[0]:.0%})")


if __name__ == "__main__":
    main(*sys.argv[1:])
