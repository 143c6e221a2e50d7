"""Object detection: by location tokens in generated text, by a detector, or by phrase grounding over an image's
regions."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.images import ImageSource
from rebus.core.answers import Box
from rebus.core.capabilities import FindsRegions, GroundsPhrases
from rebus.core.errors import UsageError
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.classify import distinct
from rebus.tasks.found import Boxes, in_images
from rebus.tasks.inputs import many_images
from rebus.tasks.located_answers import boxes_of
from rebus.tasks.location_scores import open_all
from rebus.tasks.phrase_grounding import ground_phrases
from rebus.tasks.region_finding import LastSeen, RegionFinder
from rebus.tasks.task_model import TaskModel, decoding_for, no_decoding, prompt_for
from rebus.tasks.text_generation import generate_batch, generation_batch

ANYTHING = "object"  # what is looked for where no label is given
Labels = str | Sequence[str | Sequence[str]]
Templates = str | Sequence[str]


def detect(
    model: TaskModel,
    images: Any,
    labels: Labels | None = None,
    templates: Templates | None = None,
    *,
    threshold: float | None = None,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> Boxes | list[Boxes]:
    """Boxes in pixels of the (upright) input image, best first; `labels` None detects any object. `threshold`: only
    those of at least that score (boxes that the network itself drops do not come back).

    A score is the network's own where it finds regions (`FindsRegions`) or grounds phrases (`GroundsPhrases`, one box
    for each label, which is a phrase); neither takes decoding options. Of a generative model it is the geometric mean
    of the probabilities of the location tokens. Pieces of generated text that make no box (an empty one, a token too
    few) are left out. A list in place of a label gives synonyms, reported under the first; models that read labels as
    one text reject it. `templates`: prompt templates of detectors, as in `classify`.
    """
    least = _checked(threshold)
    if isinstance(model.network, FindsRegions):
        no_decoding(model, decoding)
        sources, many = many_images(images)
        finder = RegionFinder(model, _wanted(labels), templates)
        found = _given(least, finder.search(sources, finder.boxes, batching=batching), sources)
        return found if many else found[0]
    if templates is not None:
        raise UsageError(f"{model.system.name} is asked for labels by a prompt of its own; templates are not put in it")
    sources, many = many_images(images)
    wanted = _one_name_each(_wanted(labels))
    if isinstance(model.network, GroundsPhrases):
        no_decoding(model, decoding)
        answers = _given(least, ground_phrases(model, sources, wanted, batching), sources)
        return answers if many else answers[0]
    prompts = _prompts(model, None if labels is None else wanted)
    options = decoding_for(model, "detect", decoding)
    answers = in_batches(
        sources,
        lambda batch: _generated(model, batch, prompts, options),
        size=generation_batch(model),
        what="images",
        options=batching,
    )
    answers = _given(least, answers, sources)
    return answers if many else answers[0]


class Detector:
    """`detect` for a fixed set of labels, for detectors: labels are encoded once, for any number of images."""

    def __init__(
        self,
        model: TaskModel,
        labels: Labels | None = None,
        templates: Templates | None = None,
        last_seen: LastSeen | None = None,
    ):
        if not isinstance(model.network, FindsRegions):
            raise UsageError(f"{model.system.name} reads labels as part of the prompt of each image: use detect")
        self._model, self._templates, self._last_seen = model, templates, last_seen or LastSeen()
        self._finder = RegionFinder(model, _wanted(labels), templates, self._last_seen)

    def __call__(self, images: Any, threshold: float | None = None, **options: Any) -> Any:
        """A list of boxes for one image, a list of lists for many. Options: `batch_size`, `progress`, `on_error`."""
        return self.find(images, BatchOptions(**options), threshold)

    def asking(self, labels: Labels | None) -> "Detector":
        """The same for other labels. It keeps the region features of the last batch of images, so these are not encoded
        again."""
        return Detector(self._model, labels, self._templates, self._last_seen)

    def find(
        self, images: Any, batching: BatchOptions = AS_IT_SUITS, threshold: float | None = None
    ) -> Boxes | list[Boxes]:
        """The same, with the options as one object."""
        least = _checked(threshold)
        sources, many = many_images(images)
        answers = _given(least, self._finder.search(sources, self._finder.boxes, batching=batching), sources)
        return answers if many else answers[0]


def _checked(threshold: float | None) -> float | None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold expects a probability, 0 to 1; got {threshold!r}")
    return threshold


def _given(threshold: float | None, answers: Sequence[Any], sources: Sequence[Any]) -> list[Boxes]:
    """Each image's boxes, without those below the threshold; an image that was skipped stays None."""
    if threshold is not None:
        answers = [boxes and [box for box in boxes if box.score >= threshold] for boxes in answers]
    return in_images(Boxes, answers, sources)


def _wanted(labels: Labels | None) -> list[list[str]]:
    """The names of each thing. Of two things with the same first name the later is left out."""
    if labels is None:
        return [[ANYTHING]]
    listed = [labels] if isinstance(labels, str) else list(labels)
    names = [[each] if isinstance(each, str) else distinct(each) for each in listed]
    first = distinct([several[0] for several in names])
    found: dict[str, list[str]] = {}
    for several in names:
        found.setdefault(several[0].strip(), several)
    return [found[name.strip()] for name in first]


def _one_name_each(names: Sequence[Sequence[str]]) -> list[str]:
    for several in names:
        if len(several) > 1:
            raise UsageError(f"expected one name per object; got {', '.join(several)}")
    return [several[0] for several in names]


def _prompts(model: TaskModel, labels: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """What is asked of each image, and what the boxes of the answer are called; None: as it says itself."""
    every = model.system.prompts.detect_all
    if labels is None and every is not None:
        return [(every, None)]
    prompt = prompt_for(model, "detect")
    names = [ANYTHING] if labels is None else labels
    if "{phrase}" in prompt:
        return [(prompt.replace("{phrase}", name.strip()), name) for name in names]
    return [(prompt.replace("{labels}", " ; ".join(names)), None)]


def _generated(
    model: TaskModel,
    sources: Sequence[ImageSource],
    prompts: Sequence[tuple[str, str | None]],
    options: dict[str, Any],
) -> list[list[Box]]:
    images = open_all(model, sources)
    boxes: list[list[Box]] = [[] for _ in images]
    asked = [(row, prompt, label) for prompt, label in prompts for row in range(len(images))]
    generated = generate_batch(model, [(images[row], prompt) for row, prompt, _ in asked], options, likelihood=True)
    for (row, _, label), answer in zip(asked, generated, strict=True):
        boxes[row] += boxes_of(model, images[row], answer, label)
    return [sorted(own, key=lambda box: -box.score) for own in boxes]
