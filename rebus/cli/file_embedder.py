"""A dual encoder that embeds files or texts, loaded on first use: here, or in the processes of Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import numpy as np

    from rebus.api import Model


@dataclass
class FileEmbedder:
    """A `rebus.data.embedding_files.Embedder`. Pickled it is its names, and each process loads its model once."""

    model: str
    kind: Literal["images", "texts"]
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    compile: bool = False
    truncate: bool = False
    folder: str = field(default_factory=os.getcwd)  # against which paths are read
    loaded: Model | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaded": None}

    def __call__(self, items: Sequence[str]) -> tuple[np.ndarray, Mapping[int, str]]:
        from rebus.core.errors import RebusError
        from rebus.tasks.batching import BatchOptions
        from rebus.tasks.embed import embed_images, embed_texts

        failures: dict[int, str] = {}

        def failed(index: int, error: RebusError) -> None:
            failures[index] = re.sub(r"^(images\[\d+\]: |text \d+:? )", "", str(error))

        options = BatchOptions(batch_size=self.batch_size, progress=False, on_error="skip", failed=failed)
        model = self._model()
        try:
            if self.kind == "images":
                vectors = embed_images(model, [os.path.join(self.folder, item) for item in items], batching=options)
            else:
                vectors = embed_texts(model, list(items), batching=options)
        except RebusError:
            if len(failures) < len(items):
                raise
            vectors = _nothing()
        kept = [i for i in range(len(items)) if i not in failures]
        return vectors[kept].numpy(), failures

    def _model(self) -> Model:
        if self.loaded is None:
            self.loaded = _load(self.model, self.device, self.dtype, self.quantize, self.compile)
            if self.truncate and self.loaded.processor.text is not None:
                self.loaded.processor.text.allow_truncation()
        return self.loaded


def _nothing() -> Any:
    import torch

    return torch.zeros(0, 0)


@cache
def _load(model: str, device: str | None, dtype: str | None, quantize: str | None, compile: bool) -> Model:
    import rebus

    return rebus.load(model, device=device, dtype=dtype, quantize=cast(Any, quantize), compile=compile, pack=True)
