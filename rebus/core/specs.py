"""How a checkpoint expects its images and its texts: plain data, read from the released files and written back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Image → pixels: resized, cut or padded to `size`, scaled, normalised.

    `size` is (height, width) in pixels of what the network reads. What is larger after resizing is cut at the centre;
    what is smaller is padded, where `pad` says so.
    """

    size: tuple[int, int]
    # exact: both sides, whatever becomes of the shape; shorter, longer: that side, and the shape is kept;
    # patches: the shape is kept and the patches are held to `max_patches` (NaFlex)
    resize: Literal["exact", "shorter", "longer", "patches"] = "exact"
    side: int | None = None  # what the side, or both, are resized to; None: to `size`
    # the side that follows where the shape is kept: transformers cuts, open_clip's padding mode takes the nearest
    # and halves to even, SAM's processor takes the nearest and halves up
    rounding: Literal["down", "even", "up"] = "down"
    crop_offset: Literal["down", "even"] = "down"  # odd margins: transformers rounds down, torchvision half to even
    pad: Literal["end", "centre"] | None = None  # longer only; end: to the right and at the bottom
    pad_colour: tuple[int, int, int] | None = None  # 0 to 255; None: zero after normalisation, which is the mean
    # always antialiased, on uint8, as PIL does; but "bilinear_tf1", which is TensorFlow 1's: neither antialiased nor
    # rounded to bytes, and pixel 0 of the result is pixel 0 of the image, whatever their sizes
    resample: Literal["bilinear", "bicubic", "lanczos", "nearest", "bilinear_tf1"] = "bicubic"
    rescale: float = 1 / 255  # what bytes are multiplied with
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of the scaled values
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    alpha: Literal["white", "drop"] = "white"  # transparent: laid on white (transformers 5) or its colours bared
    patch_size: int | None = None  # patches only: they are cut by the processor
    max_patches: int | None = None  # patches only


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """Text → tokens, on top of the released tokenizer file. Ids are of that file.

    An encoder (`generates=False`) reads `[bos] text eos`. A generative model reads `images [bos] prompt separator` and
    learns to answer `text eos`. `truncate` says what becomes of a text that is longer than the context.
    """

    context: int  # most tokens of one text, special ones included
    pad_id: int
    generates: bool = False
    vocab_size: int | None = None  # rows of the network's token embedding, which a tokenizer must fit; None: any
    eos_id: int | None = None  # appended to the texts of encoders and to the answers of generative models
    bos_id: int | None = None  # put before a text or prompt
    own_ids: bool = (
        False  # these ids, whatever the tokenizer's files call theirs (VisualGPT starts with "<?" of GPT-2's)
    )
    read_at: int | Literal["largest"] | None = None  # encoders that read a text at one token (CLIP): the first of this
    # id, or the largest id, which must be the end token; None: they read elsewhere
    pad_to_context: bool = False  # always (n, context): SigLIP was trained so and reads the last position
    lower: bool = False
    strip_accents: bool = False  # VirTex: NFKD, without combining marks
    leading_space: bool = False  # VisualGPT: a text begins with a space, so that its first word is one inside of a text
    canonical: bool = False  # SigLIP v1: strip ASCII punctuation, collapse white space
    clean: bool = False  # CLIP: ftfy, HTML entities, white space
    added_tokens: tuple[str, ...] = ()  # control tokens that the system adds to those of the file, in this order
    # a text that is too long is cut (True) or raises BadText (False); None: encoders cut it and say so once, generative
    # models, which would answer another question or learn half an answer, raise
    truncate: bool | None = None
    separator: str = ""  # tokenised alone and put after the prompt: PaliGemma "\n", BART "</s>"
    eos_after_prompt: bool = False  # T5: prompts end with the end token, as answers do
    empty_prompts: bool = False  # encoder-decoders, whose answers begin by themselves: a prompt may hold no token at
    # all; other models are given the end token then, since a text begins where another one ends
    bos_before_answer: bool = False  # BART: answers begin with the start token too
    image_token_id: int | None = None  # placeholder put in front of the prompt, `num_image_tokens` times an image
    num_image_tokens: int = 0
    image_around_id: int | None = None  # put before and after a placeholder; neighbouring ones share it (IDEFICS)
    image_begin_id: int | None = None  # put before the placeholders of each image, and
    image_end_id: int | None = None  # after them (Chameleon)
    bos_first: bool = False  # whether the start token comes before images, too, and not after the last of them
    beside_images: bool = False  # encoders that read a text and its images together, of which a row may have several


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompt by which a generative model is asked for each task; a task without one is one it cannot do."""

    caption: str | None = None
    ask: str | None = None  # holds {question}
    match: str | None = None  # holds {text}, of networks that read image and text together
    detect: str | None = None  # holds {labels}, joined by " ; ", or {phrase} where one is looked for at a time
    detect_all: str | None = None  # where no labels are given; None: as if "object" were
    segment: str | None = None  # holds {phrase}
    read: str | None = None  # the writing in an image, with its place
    classify: str | None = None  # the prompt under which the likelihood of a label is measured
    complete: str | None = None  # holds {document}, text and images in turn
    imagine: str | None = None  # holds {prompt}
    after_example: Mapping[str, str] = field(default_factory=dict)  # task → what follows the answer of an example, of
    # models that learn a task from examples in the prompt
    controls: tuple[str, ...] = ()  # what in these prompts is a control token, such as [MASK]
    unfinished: tuple[str, ...] = ()  # tasks whose prompts the answer goes on with, without `TextSpec.separator`
    drops: str = ""  # characters that are left out of questions, as they were in training


@dataclass(frozen=True, kw_only=True)
class NamedTask:
    """A task that a release gives a name of its own (`<OD>`): what is asked, and what is answered."""

    prompt: str  # holds {text}, the caller's, or {region}, the location tokens of a box, where it needs one
    answer: Literal["text", "boxes", "lines", "masks", "boxes or masks"] = "text"
    skip: frozenset[str] = frozenset()  # labels of boxes that name nothing
    label: str | None = None  # what every box is called; None: as the text says


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """How a generative model writes an image: `begin`, then `each` codes from `first` to `last`, then `end`. Ids."""

    begin: int
    end: int
    first: int
    last: int
    each: int
