"""The page: correct answers come first, mistakes are shown as they are, and text is escaped."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from rebus.core.answers import Box, Mask, Ranking, TextLine
from rebus.data.scenes import SHAPES
from rebus.data.scenes.writing import QUESTION
from rebus.tour import RELEASED, Line, Tour, names, page, plan
from rebus.tour.parts import _writing_lines
from rebus.tour.photos import caption_photos, look_at_photos, samples
from rebus.tour.scenes import draw_scenes, match_scenes, write_scenes


class Knows:
    """A model that knows every scene; `wrong`: the tasks whose answers are wrong."""

    tasks = frozenset({"caption", "ask", "detect", "segment", "match"})
    card = SimpleNamespace(name="<knows>")

    def __init__(self, scenes, wrong=()):
        self.scenes = {s.image.tobytes(): s for s in scenes}
        self.wrong = wrong

    def caption(self, images):
        said = [self.scenes[i.tobytes()].captions[0] for i in images]
        return ["large " + text.split(" ", 1)[1] for text in said] if "caption" in self.wrong else said

    def ask(self, images, questions):
        return [self.answer(i.tobytes(), q) for i, q in zip(images, questions, strict=True)]

    def answer(self, image, question):
        if question == QUESTION:
            (text,) = {s.writing.spelled for s in self.scenes.values() if s.writing.image.tobytes() == image}
            return "no <idea>" if "read" in self.wrong else text
        return dict(self.scenes[image].questions)[question]

    def detect(self, images, labels):
        assert list(labels) == list(SHAPES)
        found = [[Box(o.box, o.shape, 0.9) for o in self.scenes[i.tobytes()].objects] for i in images]
        return [row + row[:1] for row in found] if "detect" in self.wrong else found

    def segment(self, images, phrases):
        rows = []
        for image, phrase in zip(images, phrases, strict=True):
            s = self.scenes[image.tobytes()]
            thing = s.objects[dict(s.phrases)[phrase]]
            rows.append([] if "segment" in self.wrong else [Mask(thing.mask, thing.box, phrase, 0.9)])
        return rows

    def match(self, images, texts):
        return np.array([[float(self.scenes[i.tobytes()].captions[0] == t) for t in texts] for i in images])


@pytest.fixture
def scenes(monkeypatch):
    from rebus.data.scenes import scene
    from rebus.tour import scenes as module

    monkeypatch.setattr(module, "NUM_WRITTEN", 2)
    monkeypatch.setattr(module, "NUM_MATCHED", 4)
    return [scene(module.FIRST_SEED + i, "test") for i in range(4)]


def test_all_right(scenes):
    writing = write_scenes(Knows(scenes))
    assert len(writing.rows) == 2
    for row in writing.rows:
        assert len(row.attributes) > 0
        assert len(row.answers) > 0
        assert all(truth is None for _, truth in row.attributes)
        assert row.found == len(row.scene.objects)
        assert row.overlap == 1
        assert all(truth == said for _, truth, said in row.answers)
        assert row.read == row.scene.writing.text
    matched = match_scenes(Knows(scenes))
    assert (matched.to_text, matched.to_image) == (4, 4)
    text = page(Tour(matched=[matched], writing=[writing]), "1")
    assert "<del>" not in text
    assert "&lt;knows&gt;" in text
    assert "<knows>" not in text


def test_misses_are_shown(scenes):
    writing = write_scenes(Knows(scenes, wrong=("caption", "detect", "segment", "read")))
    assert {row.read for row in writing.rows} == {"no<idea>"}
    row = writing.rows[0]
    assert len(row.boxes) == row.found + 1
    assert row.overlap == 0
    text = page(Tour(writing=[writing]), "1")
    assert "1 wrong" in text
    assert "<b>no&lt;idea&gt;</b> <em>it is" in text
    assert "IoU 0.00" in text
    assert ("<del>large</del>" in text) == any(r.scene.objects[0].size != "large" for r in writing.rows)


def test_what_is_read_is_counted(scenes):
    class Reads:
        tasks, card = frozenset({"read"}), SimpleNamespace(name="reads")

        def read(self, images):
            texts = {s.writing.image.tobytes(): s.writing.spelled for s in scenes if s.writing is not None}
            said = [texts[image.tobytes()] for image in images]
            return [[TextLine(said[0], ((0, 0), (9, 0), (9, 9), (0, 9)), 0.9)], *([] for _ in said[1:])]

    writing = write_scenes(Reads())
    truths = [s.writing.text for s in scenes[:2] if s.writing is not None]
    assert [row.read for row in writing.rows if row.read is not None] == [truths[0], *("" for _ in truths[1:])]
    (line,) = _writing_lines(writing)
    assert (line.task, line.right, line.of) == ("read", 1, len(truths))


def test_names_from_examples(monkeypatch):
    monkeypatch.setattr(names, "NUM_EPISODES", 2)

    class Guesses:
        card = SimpleNamespace(name="guesses")

        def classify(self, image, labels, examples):
            assert len(examples) == 8
            return Ranking(tuple(labels), (1.0, *[0.0] * (len(labels) - 1)))

    named = names.name_scenes(Guesses())
    right = [one.query.name == one.names[0] for one, _ in named.rows]
    assert named.right == sum(right)
    text = page(Tour(named=[named]), "1")
    assert text.count("a miss: it is") == 2 - sum(right)
    assert f"“{named.rows[0][1]}”" in text


def test_photos():
    photos = samples()[:2]
    if len(photos) < 2:
        pytest.skip("scikit-image is not installed")

    class Sorts:
        card = SimpleNamespace(name="sorts")

        def classify(self, images, labels):
            return [Ranking((labels[0], *labels[1:]), (0.5, *[0.5 / (len(labels) - 1)] * (len(labels) - 1)))] * 2

        def match(self, images, texts):
            return np.eye(len(images), len(texts))

    seen = look_at_photos(Sorts(), photos)
    assert [image.right for image in seen.images] == [True, False]
    line = Line("sorts", "classify", "photos", 1, 2, 0.1)
    text = page(Tour(photos=[seen], lines=[line], missing=["a <b> is missing"]), "1")
    assert "a miss: it is a cup of coffee" in text
    assert text.index("alt='a cat'") < text.index("Photos, mistakes") < text.index("a miss: it is")
    assert "1 of 2" in text
    assert "a &lt;b&gt; is missing" in text
    assert "src='http" not in text


def test_the_most_accurate_comes_first_and_what_is_missing_is_said(scenes, monkeypatch):
    from rebus.tour import parts

    models = {"bad/scenes": Knows(scenes, wrong=("caption", "detect", "segment", "read")), "good/scenes": Knows(scenes)}
    for name, model in models.items():
        model.card = SimpleNamespace(name=name)
    monkeypatch.setattr(parts, "load", models.__getitem__)
    seen = parts.tour([parts.Section(name, "write") for name in models])
    assert [line.accuracy for line in seen.lines] == sorted((line.accuracy for line in seen.lines), reverse=True)
    assert seen.lines[-1].model == "bad/scenes"
    assert seen.lines[-1].accuracy < parts.WEAK
    text = page(seen, "1")
    assert text.rindex("<h2>Scenes, captioned and searched <small>bad") > text.rindex("searched <small>good")
    assert "A released CLIP was not run" in text


def test_a_released_clip_runs_beside_the_starter_where_it_is_cached():
    if not samples():
        pytest.skip("scikit-image is not installed")
    named = [section.model for section in plan(True, released=True) if section.kind == "photos"]
    assert named == ["asif/starter", RELEASED]
    assert RELEASED not in [section.model for section in plan(True)]


def test_captions_of_photos_stand_beside_what_is_said_without_a_guide():
    photos = samples()[:2]
    if len(photos) < 2:
        pytest.skip("scikit-image is not installed")

    class Describes:
        card = SimpleNamespace(name="describes")

        def caption(self, images, beta=None):
            return "<nothing>" if beta == 0 else ["A cat looks at you ."] * len(images)

    seen = caption_photos(Describes(), photos, guided=True)
    assert seen.named == 1
    text = page(Tour(captioned=[seen]), "1")
    assert text.count("A cat looks at you .") == 2
    assert "&lt;nothing&gt;" in text
    plain = caption_photos(Describes(), photos, guided=False)
    text = page(Tour(captioned=[plain]), "1")
    assert text.count("A cat looks at you .") == 2
    assert "guide" not in text.split("captioned")[1]


def test_captions_of_photos_are_of_two_models_one_of_them_guided():
    if not samples():
        pytest.skip("scikit-image is not installed")
    named = [(section.model, section.kind) for section in plan(True, captions=True) if "caption" in section.kind]
    assert named == [("flamingo/photos", "caption"), ("magic/starter", "guided caption")]


def test_drawings_are_judged_by_what_a_detector_is_sure_of(scenes):
    from rebus.data.scenes import scene
    from rebus.tour import scenes as module

    asked = [scene(module.FIRST_SEED + i, "test", count=1 + i % 2) for i in range(module.NUM_DRAWN)]

    class Draws:
        card = SimpleNamespace(name="<draws>")

        def imagine(self, prompts, seed):
            assert prompts == [s.captions[0] for s in asked]
            return [Image.new("RGB", (48, 48), (i, 0, 0)) for i in range(len(prompts))]

    class Sees:
        card = SimpleNamespace(name="<sees>")

        def detect(self, images, labels):
            assert all(image.size == (96, 96) for image in images)
            found = [asked[image.getpixel((0, 0))[0]].labels for image in images]
            rows = [[Box((0, 0, 9, 9), label, 0.95) for label in labels_] for labels_ in found]
            rows[0].append(Box((0, 0, 9, 9), "red circle", 0.3))  # too unsure to count
            rows[1].append(Box((0, 0, 9, 9), "white heart", 0.9))
            return rows

    drawing = draw_scenes(Draws(), Sees())
    assert drawing.right == (True, False, *[True] * (module.NUM_DRAWN - 2))
    text = page(Tour(drawing=[drawing]), "1")
    assert text.count("a miss: found are") == 1
    assert "white heart" in text
    assert "&lt;draws&gt;" in text
    assert "<sees>" not in text
