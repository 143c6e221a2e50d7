"""Continuation of an interleaved document of text and images: a web page, few-shot examples, frames of a video."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from rebus.codec.images import ImageSource
from rebus.codec.text import ImageMark, Pieces, Unfinished
from rebus.core.errors import RebusError, UsageError
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions
from rebus.tasks.image_generation import image_decoder, writes_images
from rebus.tasks.interleaved import interleaved
from rebus.tasks.location_scores import open_shown
from rebus.tasks.task_model import TaskModel, decoding_for, prompt_for
from rebus.tasks.text_generation import Pair, generate_batch, generation_batch, in_seeded_batches

Document = Sequence[str | ImageSource]
Completion = str | list[str | Image.Image]
_Parts = tuple[int, list[ImageSource], Pieces]  # its number in the call, its images, its prompt


def complete(
    model: TaskModel,
    document: str | Document | Sequence[Document],
    *,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> Completion | list[Completion]:
    """The continuation of a document, or of each of several.

    A document is a text, or a list of texts and images; in it every `str` is text, so that an image in a file is given
    as a `pathlib.Path`. Texts are taken as they are, white space included. The answer is a text; of a system that
    writes images (`System.image_tokens`) it is a list of texts and images in turn, `max_new_tokens` counts its text
    alone, and `guidance` and `best_of` are those of `imagine`, which compares images by the text right before them. No
    image is begun that does not fit into the context.

    Raises `UsageError` for an empty document, `BadText` or `BadImage` naming the document that is meant.
    """
    documents, many = many_documents(document)
    parts = [_parts(model, number, one) for number, one in enumerate(documents)]
    options = decoding_for(model, "complete", decoding)
    draws = writes_images(model)
    if draws:
        image_decoder(model)  # what is missing is said before any work

    def work(batch: Sequence[_Parts], options: Mapping[str, Any]) -> Sequence[Completion]:
        pairs = [_opened(model, *one) for one in batch]
        if draws:
            return interleaved(model, pairs, options)
        return [answer.text for answer in generate_batch(model, pairs, options)]

    answers = in_seeded_batches(parts, options, generation_batch(model), work, what="documents", batching=batching)
    return answers if many else answers[0]


def many_documents(document: str | Document | Sequence[Document]) -> tuple[list[Document], bool]:
    """The documents as a list, and whether many were given. Raises `UsageError` for what is no document."""
    if isinstance(document, str):
        return [[document]], False
    if not isinstance(document, list | tuple):
        raise UsageError(
            "a document is a text, or a list of texts and images (files as pathlib.Path); "
            f"got {type(document).__name__}"
        )
    nested = [isinstance(part, list | tuple) for part in document]
    if any(nested) and not all(nested):
        raise UsageError(
            f"documents and their parts are mixed: entry {nested.index(not nested[0])} "
            f"{'is no list' if nested[0] else 'is a list'}"
        )
    documents: list[Any] = list(document) if any(nested) else [document]
    return documents, any(nested)


def document_pair(model: TaskModel, document: str | Document) -> Pair:
    """The images and the prompt of a single document. Raises `UsageError` for several."""
    documents, many = many_documents(document)
    if many:
        raise UsageError("a stream is of one document; got several")
    return _opened(model, *_parts(model, 0, documents[0]))


def _parts(model: TaskModel, number: int, document: Document) -> _Parts:
    """Texts that follow each other stay apart; those of the system's prompt stand around the document."""
    if not any(not isinstance(part, str) or part.strip() for part in document):
        raise UsageError(f"document {number} is empty: give texts and images")
    before, _, after = prompt_for(model, "complete").partition("{document}")
    images: list[ImageSource] = [part for part in document if not isinstance(part, str)]
    text = model.processor.text
    if (
        text is not None
        and text.spec.image_token_id is None
        and not any(isinstance(part, str) for part in document[: len(images)])
    ):
        document = document[len(images) :]  # images that come first need no place in texts that have none for them
    pieces = [part if isinstance(part, str) else ImageMark() for part in (before, *document, after)]
    kind = Unfinished if "complete" in model.system.prompts.unfinished else Pieces
    return number, images, kind(*(piece for piece in pieces if piece != ""))


def _opened(model: TaskModel, number: int, images: list[ImageSource], prompt: Pieces) -> Pair:
    """Opened here, so that an image that cannot be read is named by its document and its place there."""
    try:
        return (open_shown(model, images) if images else []), prompt  # type: ignore[return-value]
    except RebusError as error:
        error.args = (f"document {number}, {error}", *error.args[1:])
        raise
