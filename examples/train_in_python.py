"""Train a small SigLIP from Python and use it: python examples/train_in_python.py runs/mine

Sixty steps show the way; leave `steps` out for the recipe's own number. The directory is what `rebus.load` opens.
"""

import sys

import rebus
from rebus.data.scenes import scene
from rebus.recipes import recipe
from rebus.train import override, train

SETTINGS = ["steps=60", "batch_size=32", "save_every=30", "eval_every=0", "workers=0", "start_from=none"]


def main(out: str = "runs/mine", *settings: str) -> None:
    config = override(recipe("siglip_scenes"), [*SETTINGS, *settings])
    final = train(config, out, lambda line: print(f"step {line['step']}: loss {line['loss']:.3f}"))
    model = rebus.load(final)
    print(model.classify(scene(1, split="test").image, ["red heart", "blue star"]).top)


if __name__ == "__main__":
    main(*sys.argv[1:])
