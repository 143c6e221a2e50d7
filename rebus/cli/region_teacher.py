"""A dual encoder that embeds regions, and a detector that proposes them, loaded on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass
class LoadedTeacher:
    """A `rebus.data.region_embedding.RegionTeacher`. Pickled it is its names, so that each process loads for itself."""

    teacher: str
    proposals: str | None
    templates: str
    device: str | None = None
    dtype: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def _encoder(self) -> Any:
        return self._load(self.teacher)

    @cached_property
    def _detector(self) -> Any:
        assert self.proposals is not None
        return self._load(self.proposals)

    def _load(self, name: str) -> Any:
        import rebus

        return rebus.load(name, device=self.device, dtype=self.dtype)

    def propose(self, image: Image.Image, most: int) -> np.ndarray:
        from rebus.tasks.embed_crops import propose_regions

        return propose_regions(self._detector, image, most)

    def embed(self, image: Image.Image, boxes: np.ndarray) -> np.ndarray:
        from rebus.tasks.embed_crops import embed_crops

        return embed_crops(self._encoder, image, boxes)

    def embed_labels(self, labels: Sequence[str]) -> np.ndarray:
        from rebus.tasks.classify import label_vectors
        from rebus.tasks.prompts import templates_of

        found: np.ndarray = label_vectors(self._encoder, labels, templates_of(self.templates), average=True).numpy()
        return found
