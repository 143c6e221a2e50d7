"""Masks of scenes: what the mask codebook is trained on, and masks written in its words."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from rebus.backbones.vision.mask_vqvae import RELEASED_FILE, MaskVQVAE, load_npz
from rebus.codec.masks import crop_mask
from rebus.data.bundled_checkpoints import directory_of
from rebus.data.model_inputs import ModelInputs
from rebus.data.scenes.reader import scene_at


@dataclass(frozen=True)
class SceneMasks:
    """Masks (B, 64, 64) in [0, 1], each cut to its box, of objects in scenes of several sizes."""

    kind: Literal["scene masks"] = "scene masks"
    sizes: tuple[int, ...] = (96, 128, 160, 224)
    processor: ClassVar[None] = None  # neither images nor texts
    most_damaged: ClassVar[float] = 1.0

    def open(self, inputs: ModelInputs) -> "SceneMasks":
        """The batches."""
        return self

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index` of that seed, or a share of it: `masks`. Scenes hold one to five, so all are drawn."""
        rng = np.random.Generator(np.random.PCG64([seed, index]))
        found: list[np.ndarray] = []
        number = 0
        while len(found) < batch_size:
            size = self.sizes[int(rng.integers(len(self.sizes)))]
            s = scene_at(seed, index * batch_size + number, split, size)
            found += [crop_mask(o.mask, o.box) for o in s.objects]
            number += 1
        each = batch_size // share[1]
        return {"masks": torch.from_numpy(np.stack(found[:batch_size][share[0] * each : (share[0] + 1) * each]))}


def mask_codes(mask: np.ndarray, box: tuple[float, float, float, float], codebook: str) -> tuple[int, ...]:
    """The sixteen words of a mask. Objects of the same outline share them, so they are computed once."""
    left, top, right, bottom = (round(v) for v in box)
    cut = mask[top:bottom, left:right]
    return _codes(cut.tobytes(), cut.shape, codebook)


@lru_cache(maxsize=20_000)
def _codes(cut: bytes, shape: tuple[int, int], codebook: str) -> tuple[int, ...]:
    mask = np.frombuffer(cut, dtype=np.bool_).reshape(shape)
    small = crop_mask(mask, (0.0, 0.0, float(shape[1]), float(shape[0])))
    with torch.no_grad():
        return tuple(load_codebook(codebook).encode(torch.from_numpy(small.copy())[None])[0].tolist())


@lru_cache(maxsize=4)
def load_codebook(codebook: str) -> MaskVQVAE:
    """The mask VQ-VAE of a bundled name or a directory. Raises `MissingFile`."""
    return load_npz(Path(directory_of(codebook)) / RELEASED_FILE)
