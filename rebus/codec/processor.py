"""Both pipelines of a checkpoint behind one call, and the files they are read from and saved to."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rebus.codec.clips import Clip
from rebus.codec.images import ImagePipeline, ImageSource, image_spec_from_json, image_spec_to_json
from rebus.codec.normalised_image import NormalisedImage, stacked
from rebus.codec.regions import ImageRegions, regions_batch
from rebus.codec.text import Pieces, Prompt, TextPipeline
from rebus.codec.tokenizer_files import special_names, standalone
from rebus.codec.tokenizers import Tokenizer, load_tokenizer
from rebus.core.errors import BadConfig, BadImage, BadRegions, BadText, MissingFile, UsageError
from rebus.core.small_files import read_small
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.strict_json import to_json

One = ImageSource | ImageRegions | Clip
Images = One | Sequence[One] | Sequence[Sequence[One]]

_ELSEWHERE = 'Those of another checkpoint are taken by processor=: rebus.load(directory, processor="clip/b32")'
_IMAGE_FILES = ("preprocessor_config.json", "processor_config.json", "open_clip_config.json")


class Processor:
    """Images, prompts and answers → the batch that `model(**batch)` takes; ids → words.

    `image` or `text` is None where the checkpoint lacks the files for it; `image_missing` and `text_missing` name
    those files. `sources`: released files that are to be saved again as they were. `reads_regions`: the network sees
    no image itself and reads the features of its regions. `sees_clips`: it learned from video.
    """

    def __init__(
        self,
        image: ImagePipeline | None,
        text: TextPipeline | None,
        *,
        image_missing: str = "preprocessor_config.json",
        text_missing: str = "tokenizer.json",
        sources: Mapping[str, bytes] | None = None,
        reads_regions: bool = False,
        sees_clips: bool = False,
    ):
        self.image = image
        self.text = text
        self.image_missing = image_missing
        self.text_missing = text_missing
        self.sources = dict(sources or {})
        self.reads_regions = reads_regions
        self.sees_clips = sees_clips

    def __call__(
        self,
        images: Images | None = None,
        texts: Prompt | Sequence[Prompt] | None = None,
        targets: Prompt | Sequence[Prompt] | None = None,
        regions: Tensor | np.ndarray | Sequence[Tensor | np.ndarray] | None = None,
        owners: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """A dict with what was asked for: pixels and image_mask, tokens and mask, targets, regions and region_mask.

        images: one image, a list, or a list of lists (several images, or none, in a row); of images as a detector saw
        them (`ImageRegions`) come regions, region_mask, boxes and region_types in place of pixels. pixels are
        (B, 3, H, W) where every row has one image; otherwise (B, N, 3, H, W), N being the most of a row, with
        image_mask (B, N), True where there is one; of clips, which have F frames each, (B, N, F, 3, H, W). Prompts of
        generative models hold as many placeholders as their row's images need, in front or where their marks are
        (`ImageMark`), and one prompt given with several rows of images is asked of each. owners: for several prompts to
        one row of images, which row each prompt belongs to, int (T,). Raises `MissingFile` naming the file, `BadImage`,
        `BadText`, or `UsageError` for numbers that do not match.
        """
        batch: dict[str, Tensor] = {}
        counts: list[int] | None = None
        if images is not None:
            rows = _rows(images)
            counts = [len(row) for row in rows]
            batch |= self._see(rows)
        if texts is not None:
            text = self._text()
            if not text.spec.generates:
                if not text.spec.beside_images:
                    _check_one_image_a_row(counts)
                batch["tokens"], batch["mask"] = text(texts)
            else:
                each = _before_answers(_of_owners(counts, owners), targets)
                prompts = _spread(texts, each, counts if owners is None else None)
                batch["tokens"], batch["mask"] = text(prompts, images=0 if each is None else each)
        if targets is not None:
            batch["targets"] = self._text().targets(targets)
        if regions is not None:
            batch["regions"], batch["region_mask"] = _regions(regions)
        if owners is not None:
            if not self._text().spec.generates and not self._text().spec.beside_images:
                raise UsageError("a dual encoder compares every image with every text; owners are only for its loss")
            batch["owners"] = torch.tensor(list(owners), dtype=torch.int64)
            _check_alike(batch, "pixels", "regions")
        _check_alike(batch, "tokens", "targets", "regions" if owners is None else "owners")
        return batch

    def decode(self, tokens: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """One text a row of ids, up to its end token; `<loc0001>` and `<seg001>` stay as text."""
        return self._text().decode(tokens)

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by name: files that this library and transformers read back to the same results."""
        found = dict(self.sources)
        if self.text is not None:
            found |= _text_files(self.text.tokenizer, self.text.spec)
        if self.image is not None and not any(name in found for name in _IMAGE_FILES):
            config = image_spec_to_json(self.image.spec)
            if self.text is not None and self.text.spec.num_image_tokens:
                config["image_seq_length"] = self.text.spec.num_image_tokens
            found["preprocessor_config.json"] = _json(config)
        return found

    def resized(self, side: int) -> "Processor":
        """The same for square images of `side` pixels; what is cut away keeps its share."""
        assert self.image is not None
        spec = self.image.spec
        inner = None if spec.side is None else round(spec.side * side / min(spec.size))
        image = ImagePipeline(replace(spec, size=(side, side), side=inner))
        sources = {name: data for name, data in self.sources.items() if name not in _IMAGE_FILES}
        return Processor(image, self.text, text_missing=self.text_missing, sources=sources, sees_clips=self.sees_clips)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write tokenizer and preprocessor files into `directory`; a tokenizer read from files keeps their bytes."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files().items():
            (folder / name).write_bytes(data)

    def _text(self) -> TextPipeline:
        if self.text is None:
            raise MissingFile(
                f"this checkpoint has no {self.text_missing}, without which it cannot process text. {_ELSEWHERE}"
            )
        return self.text

    def _see(self, rows: list[Sequence[Any]]) -> dict[str, Tensor]:
        features = [isinstance(image, ImageRegions) for row in rows for image in row]
        if any(features):
            if not all(features):
                raise BadImage("images and region features are mixed: give only one kind per call")
            return regions_batch(rows)
        if self.reads_regions:
            raise BadRegions(
                "this model takes region features in place of images: give it those of the "
                "detector it was trained with (rebus.RegionFiles), or of a network that makes them (embed_regions)"
            )
        ready = [isinstance(image, NormalisedImage) for row in rows for image in row]
        if any(ready):
            if not all(ready):
                raise BadImage('images and {"pixels": …} are mixed: give only one kind per call')
            return rows_first(stacked([image for row in rows for image in row]), [len(row) for row in rows])
        if self.image is None:
            raise MissingFile(
                f"this checkpoint has no {self.image_missing}, without which it cannot process images. {_ELSEWHERE}"
            )
        if any(isinstance(image, Clip) for row in rows for image in row):
            return self._watch(rows)
        return rows_first(self.image([image for row in rows for image in row]), [len(row) for row in rows])

    def _watch(self, rows: list[Sequence[Any]]) -> dict[str, Tensor]:
        """Clips as pixels (B, N, F, 3, H, W); an image is a clip of one frame."""
        if not self.sees_clips:
            raise BadImage("this model was not trained on video: give it the frames as images, not as a clip")
        clips = [image.frames if isinstance(image, Clip) else (image,) for row in rows for image in row]
        number = len(clips[0])
        for i, clip in enumerate(clips):
            if len(clip) != number:
                raise BadImage(f"clips of one call have as many frames each; got {number}, and {len(clip)} of clip {i}")
        assert self.image is not None
        seen = self.image([frame for clip in clips for frame in clip])
        shaped = {name: tensor.unflatten(0, (-1, number)) for name, tensor in seen.items()}
        batch = rows_first(shaped, [len(row) for row in rows])
        return batch if "image_mask" in batch else {name: tensor[:, None] for name, tensor in batch.items()}


def rows_first(images: Mapping[str, Tensor], counts: Sequence[int]) -> dict[str, Tensor]:
    """Tensors of images one after another (M, …), `counts` of them in each row → (B, …) where every row has one;
    otherwise (B, N, …), N being the most of a row, with image_mask (B, N) bool, True where there is an image."""
    if all(count == 1 for count in counts):
        return dict(images)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    batch = {"image_mask": mask}
    for name, tensor in images.items():
        batch[name] = tensor.new_zeros(*mask.shape, *tensor.shape[1:])
        batch[name][mask] = tensor
    return batch


def _bytes_of(path: Path) -> bytes:
    try:
        return read_small(path)
    except (OSError, ValueError) as error:
        raise BadConfig(f"{path}: cannot be read ({error})") from None


def load_processor(
    directory: str | os.PathLike[str],
    image_default: ImageSpec | None,
    text_default: TextSpec | None,
) -> Processor:
    """The processor of a checkpoint directory.

    Files win over the defaults of the system, except that a text is never longer than the network's context. A part
    whose file is absent is left out, and so is text when the system has none (`text_default` None). A tokenizer that
    is not of `text_default.vocab_size` raises `BadCheckpoint`.
    """
    folder = Path(directory)
    sources = {name: _bytes_of(folder / name) for name in _IMAGE_FILES if (folder / name).is_file()}
    # It describes weights in another layout than those saved later, so it is read and not kept.
    open_clip = _object(sources, "open_clip_config.json")
    found = dict(sources)
    sources.pop("open_clip_config.json", None)
    image = None
    for name in _IMAGE_FILES:
        config = _object(found, name)
        if name == "processor_config.json" and "image_processor" not in config:
            continue  # older files hold settings of the whole processor only
        if name == "open_clip_config.json" and "preprocess_cfg" not in config:
            continue  # encoders alone: nothing is said about images
        if config:
            image = ImagePipeline(_sized(image_spec_from_json(config), image_default))
            break
    tokenizer = None if text_default is None else load_tokenizer(folder, text_default.added_tokens)
    if tokenizer is None or text_default is None:
        return Processor(image, None, sources=sources)
    return Processor(image, text_pipeline(tokenizer, text_default, open_clip), sources=sources)


def text_pipeline(tokenizer: Tokenizer, default: TextSpec, open_clip: Mapping[str, Any] | None = None) -> TextPipeline:
    """Texts as a system reads them, by a tokenizer whose own settings go before the system's defaults.

    Raises `BadCheckpoint` for one that is not of `default.vocab_size`.
    """
    if default.vocab_size is not None:
        tokenizer.check_fits(default.vocab_size)
    return TextPipeline(tokenizer, _text_spec(tokenizer, default, open_clip or {}))


def _sized(spec: ImageSpec, default: ImageSpec | None) -> ImageSpec:
    """NaFlex files give no size in pixels; the system's stands for the position table."""
    return replace(spec, size=default.size) if spec.resize == "patches" and default is not None else spec


def _text_spec(tokenizer: Tokenizer, default: TextSpec, open_clip: Mapping[str, Any]) -> TextSpec:
    config = _object(tokenizer.files, "tokenizer_config.json")
    names = special_names(_object(tokenizer.files, "special_tokens_map.json")) | special_names(config)
    changes: dict[str, Any] = {}
    # BERT calls its start and end tokens by other names. Roles that the system does not use stay unused.
    for field, roles in (
        ("pad_id", ("pad_token",)),
        ("bos_id", ("bos_token", "cls_token")),
        ("eos_id", ("eos_token", "sep_token")),
    ):
        found = next((names[role] for role in roles if role in names), None)
        if found is None or getattr(default, field) is None or default.own_ids:
            continue
        changes[field] = tokenizer.id_of(found)
        if changes[field] is None:
            raise BadConfig(f"tokenizer_config.json: {roles[0]} {found!r} is not in the tokenizer")
    # GPT-2's tokenizer puts no start token unless its settings say so; those of other classes do as their system does.
    plain = default.generates and config.get("tokenizer_class") in ("GPT2Tokenizer", "GPT2TokenizerFast")
    if config.get("add_bos_token", not plain) is False and not default.own_ids:
        changes["bos_id"] = None
    sentences = _object(tokenizer.files, "sentence_bert_config.json")
    lengths = (default.context, config.get("model_max_length"), sentences.get("max_seq_length"))
    changes["context"] = int(min(n for n in lengths if isinstance(n, int | float) and n > 0))
    settings = ((open_clip.get("model_cfg") or {}).get("text_cfg") or {}).get("tokenizer_kwargs") or {}
    cleaning = settings.get("clean")
    if cleaning not in (None, "canonicalize", "lower", "whitespace"):
        raise BadConfig(f"open_clip_config.json: tokenizer_kwargs.clean {cleaning!r} is not known")
    if cleaning is not None:
        # All three mend the text first; "canonicalize" too, which is SigLIP's own form after that.
        changes |= {"clean": True, "canonical": cleaning == "canonicalize", "lower": cleaning != "whitespace"}
    return replace(default, **changes)


def _text_files(tokenizer: Tokenizer, spec: TextSpec) -> dict[str, bytes]:
    """The tokenizer's own files; where they lack what other readers need, a `tokenizer.json` and its settings too."""
    files = dict(tokenizer.files)
    if "tokenizer_config.json" not in files:
        if "tokenizer.json" not in files:
            files["tokenizer.json"] = standalone(files, spec)
        names = {"pad": spec.pad_id, "bos": spec.bos_id, "eos": spec.eos_id, "unk": tokenizer.unknown_id}
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right"}
        config |= {f"{role}_token": tokenizer.piece_of(i) for role, i in names.items() if i is not None}
        files["tokenizer_config.json"] = _json(config | {"model_max_length": spec.context})
    return files


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in a file; an empty one where it is absent. Raises `BadConfig` naming the file."""
    try:
        found = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise BadConfig(f"{name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadConfig(f"{name} must hold an object; got {type(found).__name__}")
    return found


def _json(value: Any) -> bytes:
    return (to_json(value, indent=2, ensure_ascii=False) + "\n").encode()


def _rows(images: Images) -> list[Sequence[Any]]:
    """The images of each row, whichever way they were given."""
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return [[image] for image in images]
    if not isinstance(images, list | tuple):
        return [[images]]
    nested = [isinstance(image, list | tuple) for image in images]
    if any(nested) and not all(nested):
        raise BadImage(f"images and lists of images are mixed: row {nested.index(not nested[0])} differs")
    return [list(image) if isinstance(image, list | tuple) else [image] for image in images]


def _check_alike(batch: Mapping[str, Tensor], *names: str) -> None:
    sizes = {name: len(batch[name]) for name in names if name in batch}
    if len(set(sizes.values())) > 1:
        raise UsageError("a batch needs one of each: " + ", ".join(f"{n} {name}" for name, n in sizes.items()))


def _check_one_image_a_row(counts: list[int] | None) -> None:
    for i, count in enumerate(counts or ()):
        if count != 1:
            raise BadImage(f"row {i} has {count} images; a dual encoder takes one image per row")


def _of_owners(counts: list[int] | None, owners: Sequence[int] | None) -> list[int] | None:
    """How many images each prompt has."""
    if counts is None or owners is None:
        return counts
    for i, owner in enumerate(owners):
        if not 0 <= owner < len(counts):
            raise UsageError(f"owners[{i}] is {owner}; there are {len(counts)} rows of images, 0 to {len(counts) - 1}")
    return [counts[owner] for owner in owners]


def _before_answers(each: list[int] | None, targets: Prompt | Sequence[Prompt] | None) -> list[int] | None:
    """How many images the prompts have, where the last ones of a row are in its answer."""
    answers = [] if targets is None else [targets] if isinstance(targets, str | Pieces) else list(targets)
    marks = [one.marks if isinstance(one, Pieces) else 0 for one in answers]
    if each is None or len(marks) != len(each) or not any(marks):
        return each
    for row, (images, mine) in enumerate(zip(each, marks, strict=True)):
        if mine > images:
            raise BadText(f"answer {row} has marks for {mine} images, of {images} in its row")
    return [images - mine for images, mine in zip(each, marks, strict=True)]


def _spread(
    texts: Prompt | Sequence[Prompt], each: list[int] | None, rows: list[int] | None
) -> Prompt | Sequence[Prompt]:
    """One prompt for every row of images."""
    if each is None:
        return texts
    if isinstance(texts, str | Pieces):
        return [texts] * len(each)
    if len(texts) != len(each):
        if rows is None:
            raise UsageError(f"{len(texts)} prompts and {len(each)} owners: there must be one owner per prompt")
        raise BadText(f"{len(texts)} prompts for {len(rows)} rows of images: there must be one prompt per row")
    return texts


def _regions(regions: Tensor | np.ndarray | Sequence[Tensor | np.ndarray]) -> tuple[Tensor, Tensor]:
    """Detector features (R_b, D) of each row, padded to (B, R, D), and which are real, (B, R) bool."""
    one = isinstance(regions, np.ndarray | Tensor) and regions.ndim == 2
    rows = [torch.as_tensor(row, dtype=torch.float32) for row in ([regions] if one else regions)]
    if any(row.ndim != 2 or row.shape[1] != rows[0].shape[1] for row in rows):
        raise UsageError(f"regions of a row must be (R, D), D alike: got {[tuple(row.shape) for row in rows]}")
    mask = torch.arange(max(map(len, rows), default=0)) < torch.tensor([len(row) for row in rows])[:, None]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask
