"""The scenes benchmark with models that know everything, or nothing."""

from typing import Any

import numpy as np
import pytest

import rebus
from rebus.codec.text import TextPipeline
from rebus.core.answers import Box, Mask, Ranking, TextLine
from rebus.core.box_overlap import box_iou
from rebus.core.errors import UsageError
from rebus.core.specs import Prompts, TextSpec
from rebus.data.scene_tokenizer import scenes_tokenizer
from rebus.data.scenes import NOVEL_LABELS, Scene, Writing, language, scene
from rebus.data.scenes.writing import QUESTION
from rebus.evaluate import evaluate
from rebus.evaluate.metrics import mask_iou
from rebus.evaluate.scenes import few_shot_accuracy


class Oracle:
    """Looks the scene up by its pixels."""

    tasks = frozenset({"match", "classify", "ask", "caption", "detect", "segment"})

    def __init__(self) -> None:
        drawn = [scene(i, "test") for i in range(100)] + [scene(i, "test", count=1) for i in range(100)]
        self.known = {s.image.tobytes(): s for s in drawn}
        self.written = {s.writing.image.tobytes(): s.writing for s in drawn[:100] if s.writing is not None}

    def see(self, images: Any) -> list[Scene]:
        return [self.known[image.tobytes()] for image in images]

    def match(self, images: Any, texts: list[str]) -> np.ndarray:
        return np.array([[float(s.captions[0] == text) for text in texts] for s in self.see(images)])

    def classify(self, images: Any, labels: list[str]) -> list[Ranking]:
        return [Ranking((str(s.label),), (1.0,)) for s in self.see(images)]

    def ask(self, images: Any, questions: str | list[str]) -> list[str]:
        if questions == QUESTION:
            return [self.read(self.written[image.tobytes()]) for image in images]
        return [str(language.answer(q, s.objects)) for s, q in zip(self.see(images), questions, strict=True)]

    def read(self, writing: Writing) -> str:
        return writing.spelled

    def caption(self, images: Any) -> list[str]:
        return [s.captions[0] for s in self.see(images)]

    def detect(self, images: Any, labels: list[str]) -> list[list[Box]]:
        return [[Box(o.box, o.shape, 0.9) for o in s.objects] for s in self.see(images)]

    def segment(self, images: Any, phrases: list[str]) -> list[list[Mask]]:
        found = [(s.objects[s.matching(p)[0]], p) for s, p in zip(self.see(images), phrases, strict=True)]
        return [[Mask(o.mask, o.box, p, 0.9)] for o, p in found]


def test_who_knows_everything_scores_one() -> None:
    scores = evaluate(Oracle(), "scenes", number=100)
    for name in (
        "image_to_text", "text_to_image", "classify", "questions", "captions", "caption_attributes", "detection_ap50",
        "segmentation_miou", "reading", "reading_numbers", "reading_words",
    ):  # fmt: skip
        assert scores[name] == 1.0, name


def test_a_wrong_word_spoils_a_caption() -> None:
    class Hasty(Oracle):
        tasks = frozenset({"caption"})

        def caption(self, images: Any) -> list[str]:
            return [text.replace("solid", "striped") for text in super().caption(images)]

    scores = evaluate(Hasty(), "scenes", number=100)
    assert scores["captions"] < 0.6
    assert 0.8 < scores["caption_attributes"] < 1
    assert "questions" not in scores


def test_who_only_says_whether_a_text_fits_is_asked_for_no_labels() -> None:
    class PairReader(Oracle):
        tasks = frozenset({"match"})
        classify = None  # type: ignore[assignment]

    scores = evaluate(PairReader(), "scenes", number=100)
    assert (scores["image_to_text"], "classify" in scores) == (1.0, False)


def test_a_bundled_model_is_measured_on_what_its_head_gives() -> None:
    """All of VisualBERT's heads have one class; this one answers questions and cannot match."""
    scores = evaluate(rebus.load("visualbert/scenes", device="cpu"), "scenes", number=100)
    assert scores["questions"] > 0.9
    assert not {"image_to_text", "detection_ap50"} & scores.keys()


def test_reading_is_measured_of_models_that_know_the_question() -> None:
    class Illiterate(Oracle):
        tasks = frozenset({"ask"})

        def read(self, writing: Writing) -> str:
            return writing.text.upper() if not writing.is_number else "0"

    scores = evaluate(Illiterate(), "scenes", number=100)
    assert scores["reading_words"] == 1.0
    assert scores["reading_numbers"] < 0.2
    assert scores["reading_numbers"] < scores["reading"] < 1.0

    class Unasked(Illiterate):
        class processor:  # noqa: N801
            text = TextPipeline(scenes_tokenizer(locations=True), TextSpec(context=64, pad_id=0, generates=True))

    assert not [name for name in evaluate(Unasked(), "scenes", number=100) if "reading" in name]


def test_lines_want_their_text_and_their_place() -> None:
    class Reader(Oracle):
        tasks = frozenset({"read"})
        shift, more = 0.0, ""

        def read(self, images: Any) -> list[list[TextLine]]:  # type: ignore[override]
            found = [self.written[image.tobytes()] for image in images]
            return [[TextLine(one.spelled.upper() + self.more, self.corners(one), 0.9)] for one in found]

        def corners(self, one: Writing) -> tuple[tuple[float, float], ...]:
            left, top, right, bottom = one.box
            return tuple((x + self.shift, y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom)))

    class Aside(Reader):
        shift = 90.0

    class Misread(Reader):
        more = " x"

    found = [evaluate(reader(), "scenes", number=100) for reader in (Reader, Aside, Misread)]
    assert [(scores["lines"], scores["lines_text"]) for scores in found] == [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]


class Learner:
    """Takes the name of the example whose colour is nearest, without examples the first label."""

    tasks = frozenset({"classify", "caption"})

    class system:  # noqa: N801
        prompts = Prompts(classify="", after_example={"classify": ""})

    class processor:  # noqa: N801
        class text:  # noqa: N801
            @staticmethod
            def lost_words(text: str) -> list[str]:
                return []

    def caption(self, images: Any) -> list[str]:
        return ["" for _ in images]

    def classify(self, image: Any, labels: Any, examples: Any = None) -> Ranking:
        near = [(np.linalg.norm(vivid(image) - vivid(one)), name) for one, name in examples or ()]
        return Ranking((min(near)[1] if near else labels[0],), (1.0,))


def vivid(image: Any) -> np.ndarray:
    pixels = np.asarray(image).reshape(-1, 3).astype(int)
    return np.median(pixels[np.ptp(pixels, axis=1).argsort()[-30:]], axis=0)


def test_who_learns_from_examples_is_asked_for_made_up_names() -> None:
    scores = evaluate(Learner(), "scenes", number=100)
    assert scores["few_shot_8"] > 0.95
    assert 0.1 < scores["few_shot_0"] < 0.4
    assert few_shot_accuracy(Learner(), 20, 1) < 0.6  # most queries are of another class than the one example

    class Unread(Learner):
        class processor:  # noqa: N801
            class text:  # noqa: N801
                @staticmethod
                def lost_words(text: str) -> list[str]:
                    return text.split()[:1]

    assert not [name for name in evaluate(Unread(), "scenes", number=100) if "few_shot" in name]


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="multiple of 100"):
        evaluate(Oracle(), "scenes", number=50)
    with pytest.raises(UsageError, match='no benchmark "scene"; did you mean "scenes"'):
        evaluate(Oracle(), "scene")


class Finder(Oracle):
    """Finds regions by any labels, and of the held-out pairs of colour and shape every other one."""

    class network:  # noqa: N801
        @staticmethod
        def find_regions(pixels: Any, labels: Any) -> None: ...

    tasks = frozenset({"detect"})

    def __init__(self) -> None:
        drawn = [scene(i, split) for split in ("test", "novel") for i in range(100)]
        self.known = {s.image.tobytes(): s for s in drawn}

    def detect(self, images: Any, labels: list[str]) -> list[list[Box]]:
        found = []
        for s in self.see(images):
            named = [(o, label if label in labels else o.shape) for o, label in zip(s.objects, s.labels, strict=True)]
            kept = [(o, label) for o, label in named if label not in NOVEL_LABELS[::2]]
            found.append([Box(o.box, label, 0.9) for o, label in kept])
        return found


def test_networks_that_find_regions_are_asked_for_pairs_that_were_held_out() -> None:
    scores = evaluate(Finder(), "scenes", number=100)
    assert scores["detection_ap50"] == pytest.approx(1.0)
    assert scores["base_ap50"] == pytest.approx(1.0)
    assert scores["novel_ap50"] == pytest.approx(3 / 7)


def test_the_bundled_detector_finds_what_it_had_no_boxes_of() -> None:
    model, asked = rebus.load("vild/scenes", device="cpu"), list(NOVEL_LABELS[:4])
    scenes = [s for s in (scene(i, "novel") for i in range(40)) if {*s.labels} & {*asked}][:8]
    for s, boxes in zip(scenes, model.detect([s.image for s in scenes], asked), strict=True):
        novel = [i for i, label in enumerate(s.labels) if label in asked]
        best = boxes[0]
        assert best.label in {s.labels[i] for i in novel}
        assert max(box_iou(best.xyxy, s.boxes[i]) for i in novel) > 0.5
    (mask, *_) = model.segment(s.image, s.labels[novel[0]])
    assert mask_iou(mask.mask, s.masks[novel[0]]) > 0.5
