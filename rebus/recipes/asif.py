"""A model from your own captioned images without any training: `rebus asif build`, and what it edits, in Python.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", 2023.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rebus import catalog
from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.vision.efficientnet import EfficientNetConfig
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.codec.processor import Processor
from rebus.core.atomic_write import write_folder_atomically
from rebus.core.card import ModelCard, domain_files
from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord, Reader, Record
from rebus.data.scenes.reader import scene_at, scene_record
from rebus.models.training_free.asif import ASIF, IMAGE_METHODS, SYSTEM, TEXT_METHODS, ASIFConfig, whitening
from rebus.models.training_free.pairs import Pairs
from rebus.models.training_free.tuning import Choice, cross_validate
from rebus.open_checkpoint import Opened, open_checkpoint
from rebus.save_checkpoint import save_checkpoint
from rebus.tasks.anchors import image_vectors, text_vectors
from rebus.tasks.batching import BatchOptions
from rebus.tasks.task_model import TaskModel

log = logging.getLogger("rebus")
FOLDS = 3
INSIDE: dict[str, tuple[type, ...]] = {  # encoders whose weights become the model's own
    "image": (EfficientNetConfig, ResNetConfig, ViTConfig),
    "text": (BERTConfig,),
}
_UNSEEN = 77  # seed of the scenes
_NAMED = 5  # damaged records in a message


class Encoder(TaskModel, Protocol):
    """A loaded model (`rebus.load`) one side of which is used."""

    card: ModelCard

    def save(self, directory: Any) -> Path: ...


class Built(NamedTuple):
    """What `build` made: the folder, how many images and anchors are in it, images that were left out, how it was
    chosen. `trials` are empty where k and p were given."""

    folder: Path
    images: int
    anchors: int
    left_out: list[str]
    k: int
    p: float
    scale: float
    trials: list[Any]


def build(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    image_encoder: Encoder,
    text_encoder: Encoder,
    *,
    layout: str = "auto",
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    k: int | None = None,
    p: float | None = None,
    captions_each: int | None = None,
    whiten: bool = False,
    most_damaged: float = 0.1,
    dtype: torch.dtype = torch.float16,
    batch_size: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Built:
    """Encode a data set of captioned images and atomically write a model folder that `rebus.load` opens.

    `path`, `layout`, `split`, `root`: as of `rebus.data.layouts.open_layout`; "scenes" draws 2,500 with their full
    captions. The encoders: loaded models of any system, of which the image side and the text side are used. Those of
    the catalogue are stored by name; networks of one input become part of the model; of others the whole model is
    copied into the folder. `k`, `p`: by cross-validation on the anchors unless given; `tick` is called after each of
    its `FOLDS` folds. `captions_each`: of an image, at most. `whiten`: even out the directions of the text vectors,
    for text encoders that never learned to compare sentences. Records that are damaged or without an image or a
    caption are left out and named; more of them than the share `most_damaged` raise `RebusError`. Raises `UsageError`
    for an encoder without the side that is wanted, `CannotWrite`.
    """
    target = Path(out)
    check_free(target)
    _demand(image_encoder, IMAGE_METHODS, "image")
    _demand(text_encoder, TEXT_METHODS, "text")
    network = ASIF(ASIFConfig())
    network.hand(image=image_encoder.network, text=text_encoder.network)
    sides = _Side(network, image_encoder), _Side(network, text_encoder)

    reader: Reader = _Scenes() if path == "scenes" else open_layout(path, layout, split, root)
    records, left_out = _captioned(reader, most_damaged)
    batching = BatchOptions(batch_size=batch_size)
    seen, kept = _see(sides[0], records, left_out, batching)
    _check_damaged(left_out, len(records), most_damaged)
    said, ids, owners = _pairs(Path(path), [records[row] for row in kept], captions_each)
    image = seen[torch.tensor(owners)]
    text = text_vectors(sides[1], said, batching)
    evened: dict[str, Tensor] = {}
    if whiten:
        mean, into = whitening(text)
        text, evened = (text - mean) @ into, {"text_mean": mean, "text_map": into}
    choice = Choice([], 1.0)
    if k is None or p is None:
        given = {name: (value,) for name, value in (("ks", k), ("ps", p)) if value is not None}
        choice = cross_validate(image, text, torch.tensor(owners), folds=FOLDS, tick=tick, **given)  # type: ignore[arg-type]
    best = choice.trials[0] if choice.trials else None
    k = k if best is None else _grown(best.k, FOLDS)
    p = p if best is None else best.p
    assert k is not None
    assert p is not None
    table = Pairs.of(image.to(dtype), text.to(dtype), ids=ids, captions=said, k=k, p=p)
    pipelines: dict[str, Any] = {"image": None, "text": None}  # of encoders that bring no files of their own
    fields: dict[str, Any] = {"tables": (table.cfg,), "scale": choice.scale, "whitened": text.shape[1] if whiten else 0}
    tensors = {f"tables.0.{name}": value for name, value in table.state_dict().items()} | evened
    with write_folder_atomically(target) as draft:
        for side, encoder in (("image", image_encoder), ("text", text_encoder)):
            if encoder.card.name in {card.name for card in catalog.cards()}:
                fields[f"{side}_from"] = encoder.card.name
            elif isinstance(encoder.config, INSIDE[side]):
                fields[side], pipelines[side] = encoder.config, getattr(encoder.processor, side)
                tensors |= {f"{side}.{name}": value for name, value in _in_file(encoder).items()}
            else:
                fields[f"{side}_from"] = f"{side}_encoder"
                encoder.save(draft / f"{side}_encoder")
        _save(draft, ASIFConfig(**fields), tensors, image_encoder.card.domain, Processor(**pipelines))
    return Built(target, len(kept), len(table), left_out, k, float(p), choice.scale, choice.trials)


def check_free(folder: Path) -> None:
    """Raise `UsageError` for a folder that is there and not empty, `CannotWrite` for one that cannot be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; choose another folder, or remove it first")


def captioned_pairs(path: str | os.PathLike[str], most_damaged: float = 0.1) -> tuple[list[Any], list[str], list[str]]:
    """(images, captions, ids) of a captioned data set, a row a caption, as `build` names them."""
    records, _ = _captioned(open_layout(path), most_damaged)
    captions, ids, owners = _pairs(Path(path), records, None)
    return [records[row].image for row in owners], captions, ids


def save_edited(model: Any, source: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write a model whose anchors were edited, atomically, in the dtypes of the files of its `source`.

    `out` may be the source's own folder, which is then exchanged in one step. Raises `CannotWrite`, leaving what was
    there."""
    opened, target = open_checkpoint(source), Path(out)
    formats = {name: tensor.dtype for name, tensor in opened.tensors.items()}
    tensors = {
        name: value.to(formats.get(name, formats.get(name.replace("weights", "image"), value.dtype)))
        for name, value in model.network.state_dict().items()
    }
    own = Processor(*(None if side in opened.handed else getattr(model.processor, side) for side in ("image", "text")))
    own.sources = model.processor.sources if not opened.handed else {}
    if opened.folder is not None and target.resolve() == opened.folder.resolve():
        _save(target, model.network.cfg, tensors, model.card.domain, own)
        return target
    with write_folder_atomically(target) as draft:
        for inside in _folders_of(opened):
            shutil.copytree(inside, draft / inside.name)
        _save(draft, model.network.cfg, tensors, model.card.domain, own)
    return target


def _save(folder: Path, cfg: ASIFConfig, tensors: Any, domain: str, processor: Any = None) -> None:
    layout = SYSTEM.layout_for(cfg)
    save_checkpoint(folder, layout, cfg, tensors, processor=processor, files=domain_files(domain))


def _folders_of(opened: Opened) -> list[Path]:
    """The folders of the encoders that lie inside a model's own."""
    parts = SYSTEM.handed(opened.config) if SYSTEM.handed else {}
    return [] if opened.folder is None else [opened.folder / p for p in parts.values() if (opened.folder / p).is_dir()]


class _Scenes:
    """Scenes of the training split that no recipe comes to, with their full captions."""

    sizes = (2_500,)
    labels = ()

    def read(self, block: int, row: int) -> Record:
        record = scene_record(scene_at(_UNSEEN, row, "train", 96), ("captions",))
        return replace(record, key=record.key.removeprefix("scene "), captions=record.captions[:1])


class _Side:
    """One encoder in the place of a model, with its own processor."""

    def __init__(self, network: ASIF, encoder: Encoder):
        self.network, self._encoder = network, encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


def _demand(encoder: Encoder, methods: Sequence[str], side: str) -> None:
    if not any(hasattr(encoder.network, name) for name in methods):
        raise UsageError(f"{encoder.card.name} is no {side} encoder: it gives no vector of {side}s")
    if getattr(encoder.processor, side) is None:
        raise UsageError(f"{encoder.card.name} lacks what it reads {side}s with ({side} preprocessing files)")


def _in_file(encoder: Encoder) -> dict[str, Tensor]:
    """The weights of an encoder in the number format of its file, which on a CPU may be narrower than in memory."""
    dtype = open_checkpoint(encoder.card.name).dtype
    weights = encoder.network.state_dict().items()
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights}


def _captioned(reader: Reader, most_damaged: float) -> tuple[list[Record], list[str]]:
    """The records with an image and a caption, and why others were left out."""
    found: list[Record] = []
    left_out: list[str] = []
    for block, size in enumerate(reader.sizes):
        for row in range(size):
            try:
                record = reader.read(block, row)
            except BadRecord as error:
                left_out.append(str(error))
                continue
            if record.image is None or not any(text.strip() for text in record.captions):
                left_out.append(f"{record.key}: no {'image' if record.image is None else 'caption'}")
            else:
                found.append(record)
    if not found:
        first = f" ({left_out[0]})" if left_out else ""
        raise UsageError(f"not one image with a caption was found{first}")
    _check_damaged(left_out, len(found), most_damaged)
    return found, left_out


def _see(
    model: Any, records: Sequence[Record], left_out: list[str], batching: BatchOptions
) -> tuple[Tensor, list[int]]:
    """The vectors of all images that can be opened, and the numbers of their records."""
    images: list[Any] = [record.image for record in records]
    try:
        return image_vectors(model, images, batching), list(range(len(records)))
    except RebusError:
        rows, kept = [], []
        for row, image in enumerate(images):  # one by one, to name those that cannot
            try:
                rows.append(image_vectors(model, [image])[0])
                kept.append(row)
            except RebusError as error:
                left_out.append(f"{records[row].key}: {str(error).removeprefix('images[0]: ')}")
        if not rows:
            raise UsageError(f"not one of {len(records)} images can be opened; {left_out[-1]}") from None
        return torch.stack(rows), kept


def _check_damaged(left_out: Sequence[str], found: int, most: float) -> None:
    if len(left_out) > most * (len(left_out) + found):
        named = "; ".join(left_out[:_NAMED])
        raise RebusError(
            f"{len(left_out):,} of {len(left_out) + found:,} records cannot be used, more than the share {most:g}: "
            f"{named}"
        )


def _pairs(path: Path, records: Sequence[Record], most: int | None) -> tuple[list[str], list[str], list[int]]:
    """Captions, ids (the image's path in the data set, with the number of the caption where there are several) and
    rows of images."""
    said: list[str] = []
    ids: list[str] = []
    owners: list[int] = []
    taken: dict[str, int] = {}
    for row, record in enumerate(records):
        file = record.image if isinstance(record.image, Path) else None
        name = record.key if file is None else file.relative_to(path).as_posix() if path in file.parents else str(file)
        taken[name] = taken.get(name, 0) + 1
        if taken[name] > 1:  # the same file in several records
            name = f"{name} ({taken[name]})"
        captions = [text for text in dict.fromkeys(record.captions) if text.strip()][:most]
        said += captions
        ids += [name] if len(captions) == 1 else [f"{name}#{number}" for number in range(len(captions))]
        owners += [row] * len(captions)
    return said, ids, owners


def _grown(k: int, folds: int) -> int:
    """k for all anchors, chosen on all but one fold of them: neighbourhoods keep their share."""
    return round(k * folds / (folds - 1))
