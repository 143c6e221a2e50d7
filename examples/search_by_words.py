"""Find images by words: embed them once, then ask. python examples/search_by_words.py

Twenty images of the scenes world stand for your own; `model.embed_images` takes paths as well.
"""

import sys

import rebus
from rebus.data.scenes import scene


def main(query: str = "small solid green square") -> None:
    model = rebus.load("siglip/scenes")
    scenes = [scene(seed, split="test") for seed in range(20)]
    images = model.embed_images([s.image for s in scenes])  # (20, d), unit vectors: keep them
    words = model.embed_texts(query)
    scores = images @ words.reshape(-1)
    for index in sorted(range(len(scenes)), key=lambda i: -float(scores[i]))[:3]:
        print(f"{float(scores[index]):.3f}  image {index}: {scenes[index].captions[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
