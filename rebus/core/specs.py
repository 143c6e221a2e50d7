"""How a checkpoint wants its images and its words: plain data, read from the released files and written back."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Image → pixels. `size` is (height, width) in pixels; values are scaled to [0, 1], then normalised."""

    size: tuple[int, int]
    fit: Literal["squash", "crop", "naflex"] = "squash"  # crop: shorter side to size, then the centre
    resample: Literal["bilinear", "bicubic", "lanczos", "nearest"] = (
        "bicubic"  # always antialiased, on uint8, as PIL does
    )
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    shorter_side: int | None = None  # crop only: resized to this before the crop; None: to the crop itself
    crop_offset: Literal["down", "even"] = "down"  # odd margins: transformers rounds down, torchvision half to even
    alpha: Literal["white", "drop"] = "white"  # transparent: laid on white (transformers 5) or its colours bared
    patch_size: int | None = None  # naflex only: patches are cut by the processor
    max_patches: int | None = None  # naflex only


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """Words → tokens, on top of the released tokenizer file. Ids are of that file."""

    context: int  # most tokens of one text, special ones included
    pad_id: int
    eos_id: int | None = None  # appended to texts of two-tower models and to writers' targets
    bos_id: int | None = None  # put before a text or prompt
    pad_to_context: bool = False  # always (n, context): SigLIP was trained so and reads the last position
    lower: bool = False
    canonical: bool = False  # SigLIP v1: strip ASCII punctuation, collapse white space
    clean: bool = False  # CLIP: ftfy where installed, HTML entities, white space
    truncate: bool = True  # False: a text that is too long raises BadText
    separator: str = ""  # PaliGemma: tokenised alone and put after the prompt ("\n")
    image_token_id: int | None = None  # placeholder put in front of the prompt, `num_image_tokens` times an image
    num_image_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts by which a generative model is asked for each task; a task without a prompt is one it cannot do."""

    caption: str | None = None
    ask: str | None = None  # holds {question}
    detect: str | None = None  # holds {labels}, joined by " ; "
    segment: str | None = None  # holds {phrase}
    classify: str | None = None  # the prompt under which the likelihood of a label is measured
    complete: str | None = None  # holds {document}, text and images in turn
    imagine: str | None = None  # holds {prompt}


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """How a generative model writes an image: `begin`, then `each` codes from `first` to `last`, then `end`. Ids."""

    begin: int
    end: int
    first: int
    last: int
    each: int
