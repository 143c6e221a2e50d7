"""Files → what was read of them with their vectors, in batches: on this machine, or over a Ray cluster."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from rebus.codec.images import ImagePipeline
from rebus.core.errors import UnsupportedTask
from rebus.data.over_ray import ray_cluster
from rebus.index.outcome import Embedded, Read, Unread
from rebus.index.read_image import read_image
from rebus.tasks.batching import BatchOptions, in_batches
from rebus.tasks.embed import embed_pixels
from rebus.tasks.task_model import TaskModel, batch_size, image_spec

_QUIET = BatchOptions(progress=False, on_error="skip")


class Engine(Protocol):
    """`bound`: what the time went to, "decoding" or "the model"."""

    def embed(
        self, root: bytes, paths: Sequence[bytes], known: Callable[[bytes, bytes], int | None]
    ) -> Iterator[list[Embedded]]: ...

    @property
    def bound(self) -> str: ...


@dataclass
class LocalEngine:
    """Threads read and decode ahead; the model takes what is ready, a batch at a time."""

    model: TaskModel
    batch: int | None = None
    fast: bool = False
    threads: int | None = None
    waited: float = 0.0  # seconds for images
    worked: float = 0.0  # seconds of the model

    def embed(
        self, root: bytes, paths: Sequence[bytes], known: Callable[[bytes, bytes], int | None]
    ) -> Iterator[list[Embedded]]:
        check_dense(self.model)
        size = self.batch or batch_size(self.model, cpu=32, accelerator=128)
        pipeline = ImagePipeline(image_spec(self.model), fast=self.fast, threads=self.threads)
        ahead, waiting = iter(paths), deque[Future[Read | Unread]]()
        with ThreadPoolExecutor(pipeline.threads, thread_name_prefix="rebus-index") as pool:

            def fill() -> None:
                while len(waiting) < 2 * size and (path := next(ahead, None)) is not None:
                    waiting.append(pool.submit(read_image, root, path, pipeline, known))

            try:
                fill()
                while waiting:
                    began = time.perf_counter()
                    batch = [waiting.popleft().result() for _ in range(min(size, len(waiting)))]
                    fill()
                    decoded = time.perf_counter()
                    found = embed_batch(self.model, batch)
                    self.waited += decoded - began
                    self.worked += time.perf_counter() - decoded
                    yield found
            finally:
                for one in waiting:
                    one.cancel()

    @property
    def bound(self) -> str:
        return "decoding" if self.waited > self.worked else "the model"


def check_dense(model: TaskModel) -> None:
    """Raise `UnsupportedTask` for a model that compares otherwise than by a product of two vectors."""
    if not getattr(model.network, "is_dense", True):
        raise UnsupportedTask(
            "this model has too many anchors for one vector per image, which an index needs; take "
            "fewer anchors, or search with rebus match"
        )


def embed_batch(model: TaskModel, batch: Sequence[Read | Unread]) -> list[Embedded]:
    """The images of a batch that were decoded through the model; memory that runs out halves it."""
    decoded = [one for one in batch if isinstance(one, Read) and one.pixels is not None]

    def work(some: Sequence[Read]) -> list[torch.Tensor]:
        rows = [one.pixels for one in some if one.pixels is not None]
        return embed_pixels(model, {name: torch.cat([row[name] for row in rows]) for name in rows[0]})

    found = in_batches(decoded, work, size=max(1, len(decoded)), what="images", options=_QUIET)
    vectors = {one.path: vector for one, vector in zip(decoded, found, strict=True)}
    return [_embedded(one, vectors.get(one.path)) for one in batch]


def _embedded(read: Read | Unread, vector: torch.Tensor | None) -> Embedded:
    if isinstance(read, Unread) or read.pixels is None:
        return Embedded(read, None)
    if vector is None:
        return Embedded(replace(read, pixels=None, error="the model's answer is not a number"), None)
    return Embedded(replace(read, pixels=None), vector.numpy())


@dataclass
class RayEngine:
    """Ray Data: each worker loads the model once, and reads files that all machines see under the same path."""

    model: str
    dtype: str | None = None
    batch: int | None = None
    fast: bool = False
    workers: int | None = None

    def embed(
        self, root: bytes, paths: Sequence[bytes], known: Callable[[bytes, bytes], int | None]
    ) -> Iterator[list[Embedded]]:
        with ray_cluster("--engine ray") as ray:
            rows = ray.data.from_items([{"path": path} for path in paths])
            found = rows.map_batches(
                RayWorker,
                fn_constructor_args=(self.model, self.dtype, root, self.fast),
                batch_size=self.batch or 32,
                concurrency=self.workers or 1,
                num_cpus=1,
            )
            for batch in found.iter_batches(batch_size=self.batch or 32):
                yield [Embedded(*one) for one in batch["found"]]

    @property
    def bound(self) -> str:
        return "the workers"


class RayWorker:
    """What Ray runs on a machine."""

    def __init__(self, model: str, dtype: str | None, root: bytes, fast: bool):
        from rebus.api import load

        self.root, self.model = root, load(model, dtype=dtype, pack=True)
        check_dense(self.model)
        self.pipeline = ImagePipeline(image_spec(self.model), fast=fast)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        read = [read_image(self.root, bytes(path), self.pipeline, lambda *_: None) for path in batch["path"]]
        found = np.empty(len(read), dtype=object)
        for number, one in enumerate(embed_batch(self.model, read)):
            found[number] = tuple(one)
        return {"found": found}
