"""`lit/starter`: what `lit_photos` begins with, two real networks of the package index and nothing learned yet.

It is kept as a checkpoint directory in the cache, so that a run begins with it as with any other.
"""

import hashlib
from pathlib import Path

from rebus.core.cache import cache_home
from rebus.models.contrastive.lit import SYSTEM, LiT, LiTConfig, begin_with, write_config
from rebus.models.training_free.starter import starter_parts
from rebus.weights.save import MANIFEST, save_directory

NAME = "lit/starter"


def starter_directory() -> Path:
    """The directory, written where it is not there yet. Raises `MissingExtra` where the packages are not installed."""
    found = starter_parts(NAME)
    cfg = LiTConfig(image=found.image, text=found.text, embed=found.text.width)
    config = {**write_config(cfg), "dtype": "float32"}
    told = hashlib.sha256(repr(config).encode() + found.names.numpy().tobytes()).hexdigest()[:12]
    folder = cache_home() / "starter" / f"lit-{told}"
    if not (folder / MANIFEST).is_file():
        network = begin_with(LiT(cfg), found.tensors, found.names)
        tensors = SYSTEM.layouts["transformers"].keys(cfg).to_theirs(network.state_dict())
        save_directory(folder, config, tensors, found.processor.files())
    return folder
