"""What an image encoder made of images that come again: another question about the same image, another label."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ENCODERS = ("see", "embed_image")  # methods of networks: pixels (B, 3, H, W) → a row of features for each


class FeatureCache:
    """Features by the SHA-256 of pixels as the network reads them, so of image and preprocessing together. One cache is
    of one network; those that were asked for longest ago go once they take more than `most` bytes."""

    def __init__(self, most: int):
        self.most, self.held, self.hits, self.misses = most, 0, 0, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._before: list[tuple[Any, str, Any]] = []  # network, name, what it had of its own under that name

    def wrap(self, network: Any) -> None:
        """From now on the network's encoders ask here first."""
        for name in ENCODERS:
            encode = getattr(network, name, None)
            if callable(encode):
                self._before.append((network, name, vars(network).get(name)))
                setattr(network, name, self._remembering(name, encode))

    def unwrap(self) -> None:
        """The network is as it was."""
        for network, name, before in self._before:
            if before is None:
                vars(network).pop(name, None)
            else:
                setattr(network, name, before)
        self._before.clear()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Inside the block everything is computed: for who looks into the network meanwhile."""
        most, self.most = self.most, 0
        try:
            yield
        finally:
            self.most = most

    def _remembering(self, name: str, encode: Callable[..., Any]) -> Callable[..., Any]:
        def remembering(pixels: Tensor, *args: Any, **more: Any) -> Any:
            if args or any(value is not None for value in more.values()) or pixels.ndim != 4 or self.most <= 0:
                return encode(pixels, *args, **more)
            keys = [self._key(name, row) for row in pixels]
            found = [self._find(key) for key in keys]
            new = [index for index, row in enumerate(found) if row is None]
            self.hits, self.misses = self.hits + len(keys) - len(new), self.misses + len(new)
            if not new:
                return torch.stack(found)  # type: ignore[arg-type]
            features = encode(pixels if len(new) == len(keys) else pixels[new])
            if not isinstance(features, Tensor) or len(features) != len(new):
                return encode(pixels) if len(new) < len(keys) else features  # not a row for each image
            for index, row in zip(new, features, strict=True):
                found[index] = row
                self._keep(keys[index], row)
            return features if len(new) == len(keys) else torch.stack(found)  # type: ignore[arg-type]

        return remembering

    def _key(self, name: str, pixels: Tensor) -> bytes:
        data = pixels.detach().contiguous().view(torch.uint8).cpu().numpy()
        head = f"{name} {pixels.dtype} {tuple(pixels.shape)} ".encode()
        return hashlib.sha256(head + data.tobytes()).digest()

    def _find(self, key: bytes) -> Tensor | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: bytes, row: Tensor) -> None:
        row = row.clone()
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = row
            self.held += row.nbytes
            while self.held > self.most:
                self.held -= self._kept.popitem(last=False)[1].nbytes
