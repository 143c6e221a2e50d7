"""Images → tensors, as the checkpoint's card says: equal to the released preprocessors, or fast beside them.

`open_image` and `open_images` give upright RGB images; `ImagePipeline` gives batches; `image_spec_from_json` and
`image_spec_to_json` speak the preprocessor files of transformers and open_clip.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rebus.codec import resize
from rebus.codec.convert_to_rgb import Alpha
from rebus.codec.decode_image import Decoded, ImageSource, decode, open_image
from rebus.codec.preprocessor import image_spec_from_json, image_spec_to_json
from rebus.core.errors import RebusError, UsageError
from rebus.core.limits import check
from rebus.core.specs import ImageSpec

__all__ = [
    "ImagePipeline",
    "ImageSource",
    "image_spec_from_json",
    "image_spec_to_json",
    "normalised",
    "open_image",
    "open_images",
]

T = TypeVar("T")
Failures = Mapping[int, RebusError]


def open_images(
    sources: Sequence[ImageSource],
    on_error: Literal["raise", "skip"] = "raise",
    *,
    threads: int | None = None,
    allow_truncated: bool = False,
    alpha: Alpha = "white",
) -> tuple[list[Image.Image | None], Failures]:
    """Upright RGB images in the order of `sources`, and the errors of those that failed, by index.

    With `on_error="skip"` a failed image is None and the rest goes on; with "raise" the first failure is raised,
    its message begun with `images[index]`. All images are held at full size: prefer `ImagePipeline` for many.
    Raises `LimitExceeded`, whatever `on_error` says, where together they pass `MAX_IMAGE_MEMORY`.
    """
    _check_batch(sources)
    images: list[Image.Image | None] = [None] * len(sources)
    held, counting = 0, threading.Lock()

    def check_held() -> None:
        check("MAX_IMAGE_MEMORY", held, f"{len(sources):,} images opened at once, give fewer: bytes")

    def work(index: int) -> None:
        nonlocal held
        check_held()
        image = open_image(sources[index], allow_truncated=allow_truncated, alpha=alpha)
        with counting:
            held += 4 * image.width * image.height
        check_held()
        images[index] = image

    failures = _each(work, len(sources), _threads(threads), skip=on_error == "skip")
    check_held()
    return images, failures


class ImagePipeline:
    """Images → a batch of tensors, by an `ImageSpec`.

    Exact by default: the same bytes as the released preprocessors give. `fast=True` decodes JPEGs at a fraction of
    their size and resizes with PyTorch: several times faster, a few 1/255 off (see `benchmarks/images.py`).
    Images are prepared in `threads` at a time, by default as many as there are cores to use, at most 8.
    """

    def __init__(
        self, spec: ImageSpec, *, fast: bool = False, threads: int | None = None, allow_truncated: bool = False
    ):
        resize.check_spec(spec)
        self.spec = spec
        self.fast = fast and spec.resample != "bilinear_tf1"  # which skips pixels: of another size it finds others
        self.threads = _threads(threads)
        self.allow_truncated = allow_truncated
        self._table = resize.normalisation(spec)

    def __call__(self, images: Sequence[ImageSource]) -> dict[str, Tensor]:
        """`{"pixels": (B, 3, H, W)}` float32, normalised. With resize "patches": pixels (B, N, patch·patch·3),
        patch_mask (B, N) bool, grid (B, 2) int64 rows and columns, N being `max_patches`.

        Raises what `open_image` raises, for the first bad image, naming its index.
        """
        return self._batch(images, skip=False)[0]

    def readable(self, images: Sequence[ImageSource]) -> tuple[dict[str, Tensor], Failures]:
        """The batch of those that can be read, in order, and the errors of the others by their index in `images`."""
        batch, failures = self._batch(images, skip=True)
        if failures:
            kept = torch.tensor([i for i in range(len(images)) if i not in failures], dtype=torch.long)
            batch = {name: rows[kept] for name, rows in batch.items()}
        return batch, failures

    def _batch(self, images: Sequence[ImageSource], skip: bool) -> tuple[dict[str, Tensor], Failures]:
        _check_batch(images)
        batch = self.room(len(images))
        rows = {name: tensor.numpy() for name, tensor in batch.items()}

        def work(index: int) -> None:
            self._fill(images[index], {name: array[index] for name, array in rows.items()})

        return batch, _each(work, len(images), self.threads, skip)

    def enough(self) -> Callable[[int, int], tuple[int, int]] | None:
        """The size at which `decode` may decode a JPEG for this pipeline; None: exactly as it is."""
        return partial(resize.enough, self.spec) if self.fast else None

    def room(self, num_images: int) -> dict[str, Tensor]:
        """A batch that is yet to be filled."""
        if self.spec.resize != "patches":
            return {"pixels": torch.empty(num_images, 3, *self.spec.size)}
        assert self.spec.patch_size is not None
        assert self.spec.max_patches is not None
        return {
            "pixels": torch.zeros(num_images, self.spec.max_patches, self.spec.patch_size**2 * 3),
            "patch_mask": torch.zeros(num_images, self.spec.max_patches, dtype=torch.bool),
            "grid": torch.zeros(num_images, 2, dtype=torch.int64),
        }

    def _fill(self, image: ImageSource, row: dict[str, np.ndarray]) -> None:
        with decode(
            image, allow_truncated=self.allow_truncated, alpha=self.spec.alpha, enough=self.enough()
        ) as decoded:
            self.fill(decoded, row)

    def fill(self, decoded: Decoded, row: dict[str, np.ndarray]) -> None:
        """One row of `room` from an image that `decode` gives, which may be closed afterwards."""
        pixels = (resize.fast if self.fast else resize.exact)(decoded, self.spec)
        if self.spec.resize != "patches":
            resize.normalise_into(pixels, self._table, resize.window(row["pixels"], pixels, self._table, self.spec))
            return
        assert self.spec.patch_size is not None
        patches = resize.patches(pixels, self._table, self.spec.patch_size)
        row["pixels"][: len(patches)] = patches
        row["patch_mask"][: len(patches)] = True
        row["grid"][:] = pixels.shape[0] // self.spec.patch_size, pixels.shape[1] // self.spec.patch_size


def normalised(pixels: Tensor, spec: ImageSpec) -> Tensor:
    """uint8 (…, 3, H, W) of the size that is wanted → float32, on its device: a quarter of the bytes travels. Within
    2e-7 of what `ImagePipeline` gives."""
    scale, shift = (
        torch.tensor(values, dtype=torch.float32, device=pixels.device)[:, None, None]
        for values in ([1 / (255 * s) for s in spec.std], [m / s for m, s in zip(spec.mean, spec.std, strict=True)])
    )
    return pixels.to(torch.float32) * scale - shift


def _check_batch(images: Sequence[ImageSource]) -> None:
    single = isinstance(images, str | bytes | bytearray | os.PathLike | Image.Image)
    if single or (isinstance(images, np.ndarray | Tensor) and images.ndim < 4):
        raise UsageError("expected a list of images; got a single one. Put it in brackets: [image]")
    if isinstance(images, Mapping) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise UsageError(f"expected a list of images; got {type(images).__name__}")
    check("MAX_IMAGES", len(images), "images in one call")


def _threads(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise UsageError(f"threads: expected at least 1; got {threads}")
    return threads or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _each(work: Callable[[int], None], count: int, threads: int, skip: bool) -> dict[int, RebusError]:
    """`work` on every index. The first failure by index is raised, or all are returned with `skip`."""

    def attempt(index: int) -> RebusError | None:
        try:
            work(index)
        except RebusError as error:
            if count > 1:
                error.args = (f"images[{index}]: {error}",)
            if not skip:
                raise
            return error
        return None

    if threads == 1 or count < 2:
        outcomes: Any = map(attempt, range(count))
        return {index: error for index, error in enumerate(outcomes) if error is not None}
    with ThreadPoolExecutor(min(threads, count), thread_name_prefix="rebus-images") as pool:
        futures = [pool.submit(attempt, index) for index in range(count)]
        try:
            outcomes = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    return {index: error for index, error in enumerate(outcomes) if error is not None}
