"""The tasks as typed methods of a model: one item gives one answer, many give a list.

Every method takes `batch_size` (None: chosen for the device), `progress` (True or False: always or never show a
progress bar; None: only for work that takes seconds) and `on_error`: with "skip" an item that fails is logged and has
no answer, None in a list and a row of NaN in a tensor.

Images are paths, bytes, PIL images, arrays (H, W, C) uint8 or tensors (3, H, W) in [0, 1]; many are a list, a
generator, a stack, or the path of a folder, whose images come in the order of `rebus.images_in`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from rebus.core.answers import Ranking, TextLine
from rebus.tasks.call_options import Classifying, Decoding, Drawing, OnError, Showing, divided
from rebus.tasks.comparing_methods import Comparing

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from rebus.codec.clips import Clip
    from rebus.codec.regions import ImageRegions
    from rebus.codec.text import Prompt
    from rebus.tasks.classify import Classifier
    from rebus.tasks.detect import Detector
    from rebus.tasks.few_shot import Shots
    from rebus.tasks.found import Boxes, Masks

    OneImage = str | bytes | os.PathLike[str] | Image.Image | np.ndarray | Tensor | ImageRegions | Clip
    Images = OneImage | Iterable[OneImage]


class Tasks(Comparing):
    """The task methods of a model. `rebus.api.Model` is one; `_can` returns the model, or raises `UnsupportedTask`."""

    @overload
    def classify(
        self,
        images: "OneImage",
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        multi: bool = False,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Classifying],
    ) -> Ranking: ...
    @overload
    def classify(
        self,
        images: "Iterable[OneImage]",
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        multi: bool = False,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Classifying],
    ) -> list[Ranking]: ...
    @overload
    def classify(
        self,
        images: "Images",
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        multi: bool = False,
        *,
        on_error: Literal["skip"],
        **options: Unpack[Classifying],
    ) -> list[Ranking | None]: ...
    def classify(
        self,
        images: Any,
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        multi: bool = False,
        *,
        on_error: OnError = "raise",
        **options: Unpack[Classifying],
    ) -> Any:
        """Zero-shot classification: labels with probabilities, best first. `templates`: prompts with `{}`, or the name
        of a published set. `multi`: independent probabilities, of models with a sigmoid. `examples`: few-shot (image,
        label).
        """
        from rebus.tasks.classify import classify

        batching, shown = divided(options, on_error)
        return classify(self._can("classify"), images, labels, templates, multi, batching=batching, **shown)

    def classifier(self, labels: Sequence[str], templates: Any = None, multi: bool = False, **how: Any) -> "Classifier":
        """`classify` for a fixed set of labels: they are encoded once; call the result with images."""
        from rebus.tasks.classify import Classifier

        return Classifier(self._can("classify"), labels, templates, multi, **how)

    @overload
    def caption(
        self,
        images: "OneImage",
        prompt: "Prompt | None" = None,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Showing],
    ) -> str: ...
    @overload
    def caption(
        self,
        images: "Iterable[OneImage]",
        prompt: "Prompt | Sequence[Prompt] | None" = None,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Showing],
    ) -> list[str]: ...
    @overload
    def caption(
        self,
        images: "Images",
        prompt: "Prompt | Sequence[Prompt] | None" = None,
        *,
        on_error: Literal["skip"],
        **options: Unpack[Showing],
    ) -> list[str | None]: ...
    def caption(
        self, images: Any, prompt: Any = None, *, on_error: OnError = "raise", **options: Unpack[Showing]
    ) -> Any:
        """A caption of the image. `examples`: few-shot (image, caption)."""
        from rebus.tasks.caption import caption

        batching, decoding = divided(options, on_error)
        return caption(self._can("caption"), images, prompt, batching=batching, **decoding)

    @overload
    def ask(
        self,
        images: "OneImage",
        questions: str,
        prompt: str | None = None,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Showing],
    ) -> str: ...
    @overload
    def ask(
        self,
        images: "Images",
        questions: str | Sequence[str],
        prompt: str | None = None,
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Showing],
    ) -> list[str]: ...
    @overload
    def ask(
        self,
        images: "Images",
        questions: str | Sequence[str],
        prompt: str | None = None,
        *,
        on_error: Literal["skip"],
        **options: Unpack[Showing],
    ) -> list[str | None]: ...
    def ask(
        self,
        images: Any,
        questions: Any,
        prompt: str | None = None,
        *,
        on_error: OnError = "raise",
        **options: Unpack[Showing],
    ) -> Any:
        """The answer to a question about the image. `prompt`: replaces the model's own, with {question} in it.
        `examples`: few-shot (image, question, answer)."""
        from rebus.tasks.ask import ask

        batching, decoding = divided(options, on_error)
        return ask(self._can("ask"), images, questions, prompt, batching=batching, **decoding)

    @overload
    def detect(
        self,
        images: "OneImage",
        labels: str | Sequence[str | Sequence[str]] | None = None,
        templates: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Decoding],
    ) -> "Boxes": ...
    @overload
    def detect(
        self,
        images: "Iterable[OneImage]",
        labels: str | Sequence[str | Sequence[str]] | None = None,
        templates: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Decoding],
    ) -> "list[Boxes]": ...
    @overload
    def detect(
        self,
        images: "Images",
        labels: str | Sequence[str | Sequence[str]] | None = None,
        templates: str | Sequence[str] | None = None,
        *,
        threshold: float | None = None,
        on_error: Literal["skip"],
        **options: Unpack[Decoding],
    ) -> "list[Boxes | None]": ...
    def detect(
        self,
        images: Any,
        labels: Any = None,
        templates: Any = None,
        *,
        threshold: float | None = None,
        on_error: OnError = "raise",
        **options: Unpack[Decoding],
    ) -> Any:
        """Boxes of the labelled objects, in pixels of the input image; with `threshold` those of at least that score. A
        list in place of a label: synonyms. `templates`, of detectors: prompts with `{}`, or the name of a set."""
        from rebus.tasks.detect import detect

        batching, decoding = divided(options, on_error)
        given = {"templates": templates, "threshold": threshold, **decoding}
        return detect(self._can("detect"), images, labels, batching=batching, **given)

    def detector(
        self,
        labels: str | Sequence[str | Sequence[str]] | None = None,
        templates: str | Sequence[str] | None = None,
    ) -> "Detector":
        """`detect` for a fixed set of labels: they are encoded once; call the result with images."""
        from rebus.tasks.detect import Detector

        return Detector(self._can("detect"), labels, templates)

    @overload
    def segment(
        self, images: "OneImage", phrases: str, *, on_error: Literal["raise"] = ..., **options: Unpack[Decoding]
    ) -> "Masks": ...
    @overload
    def segment(
        self,
        images: "Images",
        phrases: str | Sequence[str],
        *,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Decoding],
    ) -> "list[Masks]": ...
    @overload
    def segment(
        self, images: "Images", phrases: str | Sequence[str], *, on_error: Literal["skip"], **options: Unpack[Decoding]
    ) -> "list[Masks | None]": ...
    def segment(self, images: Any, phrases: Any, *, on_error: OnError = "raise", **options: Unpack[Decoding]) -> Any:
        """Masks of the objects that the phrases describe, of the size of the input image."""
        from rebus.tasks.segment import segment

        batching, decoding = divided(options, on_error)
        return segment(self._can("segment"), images, phrases, batching=batching, **decoding)

    @overload
    def read(
        self, images: "OneImage", *, on_error: Literal["raise"] = ..., **options: Unpack[Decoding]
    ) -> list[TextLine]: ...
    @overload
    def read(
        self, images: "Iterable[OneImage]", *, on_error: Literal["raise"] = ..., **options: Unpack[Decoding]
    ) -> list[list[TextLine]]: ...
    @overload
    def read(
        self, images: "Images", *, on_error: Literal["skip"], **options: Unpack[Decoding]
    ) -> list[list[TextLine] | None]: ...
    def read(self, images: Any, *, on_error: OnError = "raise", **options: Unpack[Decoding]) -> Any:
        """OCR: lines of text in reading order, with their four corners in pixels of the input image."""
        from rebus.tasks.read import read

        batching, decoding = divided(options, on_error)
        return read(self._can("read"), images, batching=batching, **decoding)

    def perform(
        self,
        images: "Images",
        task: str,
        text: str | None = None,
        region: tuple[float, float, float, float] | None = None,
        *,
        on_error: OnError = "raise",
        **options: Unpack[Decoding],
    ) -> Any:
        """A task by the name in its release (`"<DENSE_REGION_CAPTION>"`): text, boxes, lines of text or masks. `text`:
        the caption or phrase that some tasks need; `region`: the xyxy in pixels that others need.
        """
        from rebus.tasks.perform import perform

        batching, decoding = divided(options, on_error)
        return perform(self._can("perform"), images, task, text, region, batching=batching, **decoding)

    def shots(self, task: str, examples: Any, **how: Any) -> "Shots":
        """Few-shot examples for many calls of "caption", "ask" or "classify": encoded once, or with `encoder` and
        `number` the nearest ones for each image (`rebus.tasks.few_shot.Shots`)."""
        from rebus.tasks.few_shot import Shots

        return Shots(self._can(task), task, examples, **how)

    def complete(self, document: Any, *, on_error: OnError = "raise", **options: Unpack[Drawing]) -> Any:
        """The continuation of a list of text and images, files as `pathlib.Path`: text, or interleaved text and
        images.
        """
        from rebus.tasks.complete import complete

        batching, decoding = divided(options, on_error)
        return complete(self._can("complete"), document, batching=batching, **decoding)

    @overload
    def imagine(
        self, prompts: str, *, on_error: Literal["raise"] = ..., **options: Unpack[Drawing]
    ) -> "Image.Image": ...
    @overload
    def imagine(
        self, prompts: Sequence[str], *, on_error: Literal["raise"] = ..., **options: Unpack[Drawing]
    ) -> "list[Image.Image]": ...
    @overload
    def imagine(
        self, prompts: Sequence[str], *, on_error: Literal["skip"], **options: Unpack[Drawing]
    ) -> "list[Image.Image | None]": ...
    def imagine(self, prompts: Any, *, on_error: OnError = "raise", **options: Unpack[Drawing]) -> Any:
        """Generate an image for the prompt."""
        from rebus.tasks.imagine import imagine

        batching, decoding = divided(options, on_error)
        return imagine(self._can("imagine"), prompts, batching=batching, **decoding)

    def stream(self, task: str, *args: Any, **options: Any) -> Iterator[str]:
        """The text of `caption`, `ask` or `complete`, piece by piece: `for piece in model.stream("caption", image)`."""
        from rebus.tasks.stream import stream

        self._can(task)
        return stream(self._can("stream"), task, *args, **options)
