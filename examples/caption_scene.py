"""Let a model describe an image, word by word: python examples/caption_scene.py [image] [model]"""

import sys

import rebus
from rebus.data.scenes import scene


def main(image: str | None = None, name: str = "paligemma/scenes") -> None:
    model = rebus.load(name)
    image = scene(1, split="test").image if image is None else image
    for piece in model.stream("caption", image):
        print(piece, end="", flush=True)
    print()
    print(model.ask(image, "how many objects are there?"))


if __name__ == "__main__":
    main(*sys.argv[1:])
