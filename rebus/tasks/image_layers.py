"""Inside an image encoder: patch features of its layers, and attention maps.

Works on every backbone that names its `blocks` (`rebus.nn.blocks`), by forward hooks: layer i is what block i
gives, and −1 the last one. The same hooks are open to everybody: `blocks_of(image_encoder(model.network))` lists the
modules.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rebus.codec.images import ImageSource
from rebus.core.errors import UnsupportedTask, UsageError
from rebus.nn.attention import Attention
from rebus.nn.blocks import blocks_of
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.image_features import encoder_of, image_encoder
from rebus.tasks.inputs import many_images
from rebus.tasks.task_model import TaskModel, batch_size, on_device

POOL: Literal["pool"] = "pool"  # the attention that makes one vector of all places
Layer = int | Literal["pool"]


class Features(NamedTuple):
    """Of n images, float32 on the CPU, by layer: `patches` (n, rows, columns, D); `class_token` (n, D), without entries
    where there is none. `pooled` (n, E) is what `image_features` gives. Rows of NaN are images that were skipped."""

    patches: dict[int, Tensor]
    class_token: dict[int, Tensor]
    pooled: Tensor


class AttentionMaps(NamedTuple):
    """`weights`: by layer (n, heads, queries, keys) float32, each query's row sums to 1. The keys are `lead` tokens in
    front (a class token), then the places of `grid` (rows, columns), row by row; of "pool" there is one query."""

    weights: dict[Layer, Tensor]
    lead: int
    grid: tuple[int, int]

    def on_grid(self, layer: Layer | None = None, query: int = 0) -> Tensor:
        """(n, heads, rows, columns): how much one query looks at each place, of a layer by its key (None: the last).
        Query 0 is the class token or the pool's."""
        found = list(self.weights.values())[-1] if layer is None else self.weights[layer]
        return found[:, :, query, self.lead :].unflatten(2, self.grid)


def features(
    model: TaskModel, images: Any, layers: Sequence[int] | None = None, *, batching: BatchOptions = AS_IT_SUITS
) -> Features:
    """Patch features, class token and pooled vector. `layers`: from the first, 0, or from the last, −1 (None: the last
    alone); the keys of the answer count from the first.

    Raises `UnsupportedTask` for a model without an image encoder, `UsageError` for a layer that there is not.
    """
    blocks = _blocks(model)
    wanted = _numbers([-1] if layers is None else layers, len(blocks))
    see, encoder = encoder_of(model), image_encoder(model.network)

    def work(batch: Sequence[ImageSource]) -> list[list[Tensor]]:
        inputs = _pixels(model, batch)
        with captured({i: blocks[i] for i in wanted}) as seen, _eager(), torch.inference_mode():
            pooled = see(**inputs).float().cpu()
        grids = [on_places(encoder, inputs["pixels"], seen[i]) for i in wanted]
        parts = [pooled, *(patches.float().cpu() for patches, _ in grids)]
        parts += [first.float().cpu() for _, first in grids if first is not None]
        return [list(row) for row in zip(*parts, strict=True)]

    size = batch_size(model, cpu=8, accelerator=64)
    pooled, *rest = _columns(model, images, work, size, batching)
    patches, firsts = rest[: len(wanted)], rest[len(wanted) :]
    return Features(dict(zip(wanted, patches, strict=True)), dict(zip(wanted, firsts)) if firsts else {}, pooled)


def attention(
    model: TaskModel, images: Any, layers: Sequence[Layer] | None = None, *, batching: BatchOptions = AS_IT_SUITS
) -> AttentionMaps:
    """Attention maps. `layers`: block numbers, or "pool" for the attention that makes one vector of all places
    (None: the last block, or the pool where blocks have none).

    Raises `UnsupportedTask` where places do not attend to one another: in convolutions, in windows, among channels.
    """
    there, encoder = _attentions(model), image_encoder(model.network)
    if not there:
        raise UnsupportedTask(
            f"{model.system.name} has no attention of all places: its image encoder, {type(encoder).__name__}, "
            "convolves, or attends in windows and among channels. features and explain work on it"
        )
    numbered = [layer for layer in there if isinstance(layer, int)]
    usual: list[Layer] = [numbered[-1]] if numbered else [POOL]
    wanted = [_layer(layer, there, len(numbered)) for layer in (usual if layers is None else layers)]
    see, places = encoder_of(model), list[tuple[int, int]]()

    def work(batch: Sequence[ImageSource]) -> list[list[Tensor]]:
        inputs = _pixels(model, batch)
        heard: dict[Layer, Tensor] = {}

        def listen(layer: Layer) -> Callable[..., None]:
            def hook(module: Any, args: Any, kwargs: Any) -> None:
                heard[layer] = module.weights(*args, **kwargs).float().cpu()

            return hook

        handles = [there[layer].register_forward_pre_hook(listen(layer), with_kwargs=True) for layer in wanted]
        try:
            with _eager(), torch.inference_mode():
                see(**inputs)
        finally:
            for handle in handles:
                handle.remove()
        places.append(_rows_columns(encoder, inputs["pixels"]))
        return [list(row) for row in zip(*(heard[layer] for layer in wanted), strict=True)]

    columns = _columns(model, images, work, batch_size(model, cpu=4, accelerator=16), batching)
    rows, across = places[0]
    return AttentionMaps(dict(zip(wanted, columns, strict=True)), columns[0].shape[-1] - rows * across, (rows, across))


@contextmanager
def captured(modules: dict[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """What the modules give while inside, by their numbers."""
    seen: dict[int, Tensor] = {}

    def listen(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            seen[number] = output

        return hook

    handles = [module.register_forward_hook(listen(number)) for number, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def on_places(encoder: nn.Module | None, pixels: Tensor, output: Tensor) -> tuple[Tensor, Tensor | None]:
    """A layer's output as (B, rows, columns, D), and its class token (B, D) where it has one."""
    if output.dim() == 4:
        return (output if getattr(encoder, "channels_last", False) else output.permute(0, 2, 3, 1)), None
    rows, columns = _rows_columns(encoder, pixels)
    lead = output.shape[1] - rows * columns
    return output[:, lead:].unflatten(1, (rows, columns)), output[:, 0] if lead else None


def _blocks(model: TaskModel) -> list[nn.Module]:
    encoder = image_encoder(model.network)
    found = [] if encoder is None else blocks_of(encoder)
    if not found:
        what = "no image encoder" if encoder is None else f"an image encoder without blocks, {type(encoder).__name__}"
        raise UnsupportedTask(f"{model.system.name} has {what}: there are no layers to look into")
    return found


def _attentions(model: TaskModel) -> dict[Layer, Any]:
    """The attention of all places to all, by layer; and of the pool, inside the encoder or beside it."""
    found: dict[Layer, Any] = {}
    for number, block in enumerate(_blocks(model)):
        own = getattr(block, "attn", None)
        if type(own) is Attention:
            found[number] = own
    for module in (image_encoder(model.network), model.network):
        pool = getattr(module, POOL, None)
        own = pool if type(pool) is Attention else getattr(pool, "attn", None)
        if type(own) is Attention:
            found[POOL] = own
    return found


def _layer(layer: Layer, there: dict[Layer, Any], count: int) -> Layer:
    return POOL if layer == POOL and POOL in there else _numbers([layer], count)[0]


def _numbers(layers: Sequence[Any], count: int) -> list[int]:
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not -count <= layer < count:
            raise UsageError(f"layers expects numbers from {-count} to {count - 1}; got {layer!r}")
    return list(dict.fromkeys(layer % count for layer in layers))


def _pixels(model: TaskModel, batch: Sequence[ImageSource]) -> dict[str, Tensor]:
    inputs = on_device(model, model.processor(images=list(batch)))
    if "pixels" not in inputs or inputs["pixels"].dim() != 4:
        raise UnsupportedTask(f"{model.system.name} reads images of any shape, or regions: its layers have no one grid")
    return inputs


def _rows_columns(encoder: Any, pixels: Tensor) -> tuple[int, int]:
    patch = encoder.cfg.patch_size
    return pixels.shape[-2] // patch, pixels.shape[-1] // patch


def _eager() -> Any:
    """Hooks are heard: what was compiled runs as it was written."""
    return torch.compiler.set_stance("force_eager")


def _columns(
    model: TaskModel, images: Any, work: Callable[..., list[list[Tensor]]], size: int, batching: BatchOptions
) -> list[Tensor]:
    """The parts of all images' answers, each stacked; NaN for images that were skipped."""
    sources, _ = many_images(images)
    rows = in_batches(sources, work, size=size, what="images", options=batching)
    first = next((row for row in rows if row is not None), None)
    if first is None:
        raise UsageError("not one image could be read" if sources else "no images were given")
    nothing = [torch.full_like(part, torch.nan) for part in first]
    return [torch.stack(parts) for parts in zip(*(row or nothing for row in rows), strict=True)]
