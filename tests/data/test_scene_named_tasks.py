"""Scenes as a system's named tasks: prompts and answers are what the task's sentence and notation say, and true."""

from dataclasses import replace

import numpy as np
import pytest

from rebus import catalog
from rebus.codec.boxes import LOC_1000, QUADS_1000, in_pixels, parse_boxes
from rebus.codec.masks import fill_polygons
from rebus.codec.named_prompts import named_prompt
from rebus.codec.polygons import PolygonTokens
from rebus.codec.text import TextPipeline
from rebus.core.errors import UnknownName, UsageError
from rebus.core.specs import NamedTask, TextSpec
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_answers import ANSWERS, Notations
from rebus.data.scene_named_tasks import SceneNamedTasks, Share
from rebus.data.scene_tokenizer import BOS, EOS, IMAGE, PAD
from rebus.data.scenes import SHAPES, scene
from rebus.data.scenes.corners import corners
from rebus.data.scenes.reader import scene_at
from rebus.evaluate.metrics import mask_iou
from rebus.recipes import recipe

HOW = Notations(LOC_1000, QUADS_1000, PolygonTokens())
TEXT = TextSpec(
    context=256,
    generates=True,
    pad_id=PAD,
    bos_id=BOS,
    eos_id=EOS,
    eos_after_prompt=True,
    bos_before_answer=True,
    image_token_id=IMAGE,
    num_image_tokens=3,
)
ASKED = {None: "tell all", "text": "tell of {text}!", "region": "tell of {region}?"}
INPUTS = ModelInputs(
    "teller",
    TEXT,
    locations=LOC_1000,
    lines=QUADS_1000,
    outlines=PolygonTokens(),
    named_tasks={name: NamedTask(prompt=ASKED[form.asks]) for name, form in ANSWERS.items()},
)
ALL = SceneNamedTasks(tasks=tuple(Share(name, name, 1.0) for name in ANSWERS), per_image=3)


def test_a_batch_holds_each_task_in_the_words_of_the_system():
    batches = ALL.open(INPUTS)
    pipeline = TextPipeline(ALL.tokenizer(INPUTS), TEXT)
    drawn = batches.texts(0, 5, 40)
    assert len(drawn) == 120
    batch = batches.batch(0, 5, 40)
    assert batch["owners"].tolist() == [i // 3 for i in range(120)]
    prompts, _ = pipeline([row.prompt for row in drawn], images=1)
    assert batch["tokens"].tolist() == prompts.tolist()
    assert pipeline.tokenizer.unknown_id not in batch["tokens"]
    assert pipeline.tokenizer.unknown_id not in batch["targets"]
    for row, targets in zip(drawn, batch["targets"], strict=True):
        assert pipeline.decode([targets.tolist()])[0].replace(" <", "<").replace("> ", ">") == row.text


@pytest.mark.parametrize("answer", ["objects", "descriptions", "phrases", "found"])
def test_boxes_are_where_the_objects_are(answer):
    empty = 0
    for seed in range(30):
        s = scene(seed, "val")
        said, text, _ = ANSWERS[answer].make(s, np.random.default_rng(seed), HOW)
        boxes, rejected = parse_boxes(LOC_1000, said, (96, 96))
        assert not rejected
        wanted = s.matching(text) if answer == "found" else range(len(s.objects))
        assert len(boxes) == len(wanted)
        empty += not boxes
        for box, i in zip(boxes, wanted, strict=True):
            np.testing.assert_allclose(box.xyxy, s.objects[i].box, atol=0.05)
            assert set(box.label.split()) <= {*s.objects[i].attributes, "object"}
            assert text is None or box.label in text
    assert (empty > 0) == (answer == "found")


def test_proposals_have_no_names():
    s = scene(3, "val")
    found, _ = LOC_1000.parse(ANSWERS["proposals"].make(s, np.random.default_rng(0), HOW).said)
    assert [place.label for place in found] == [""] * len(s.objects)


@pytest.mark.parametrize("answer", ["outline", "region outline"])
def test_polygons_cover_the_objects(answer):
    for seed in range(15):
        s = scene(seed, "val")
        said, text, region = ANSWERS[answer].make(s, np.random.default_rng(seed), HOW)
        (place,), rejected = PolygonTokens().parse(said)
        one = s.objects[s.matching(text)[0] if text else s.boxes.index(region)]
        points = [(x * 96, y * 96) for x, y in place.outlines[0]]
        assert not rejected
        assert mask_iou(fill_polygons([points], (96, 96)), one.mask) > 0.8


def test_corners_of_every_shape():
    for shape in SHAPES:
        objects = [o for seed in range(60) for o in scene(seed, "val").objects if o.shape == shape]
        overlaps = [mask_iou(fill_polygons([corners(one)], (96, 96)), one.mask) for one in objects]
        assert np.mean(overlaps) > 0.9, shape


def test_writing_is_in_the_image_that_asks_for_it():
    data = SceneNamedTasks(tasks=(Share("lines", "lines", 1.0),), per_image=1)
    batches = data.open(INPUTS)
    batch = batches.batch(0, 0, 12)
    written = 0
    for i, (pixels, row) in enumerate(zip(batch["pixels"], batches.texts(0, 0, 12), strict=True)):
        s = scene_at(0, i, "train", 96)
        one = s.writing
        assert np.array_equal(pixels.numpy(), s.planes if one is None else one.planes)
        found, _ = QUADS_1000.parse(row.text)
        assert [place.label for place in found] == ([] if one is None else [one.spelled])
        for place in found:
            np.testing.assert_allclose(in_pixels(place.xyxy, (96, 96)), one.box, atol=0.05)
        written += one is not None
    assert written > 6


def test_regions_are_asked_for_by_control_tokens():
    s = scene(1, "val")
    said, _, region = ANSWERS["region description"].make(s, np.random.default_rng(0), HOW)
    prompt = named_prompt(INPUTS.named_tasks["region description"], LOC_1000, (96, 96), region=region)
    tokens = ALL.open(INPUTS).text([prompt], images=1)[0][0].tolist()
    names = [ALL.tokenizer(INPUTS).piece_of(token) for token in tokens]
    assert "".join(name for name in names if name.startswith("<loc_")) == LOC_1000.box_tokens(region, (96, 96))
    assert said.split() == list(s.objects[s.boxes.index(region)].attributes)


def test_what_does_not_fit_is_refused():
    def opened(task, answer, **changes):
        SceneNamedTasks(tasks=(Share(task, answer, 1.0),), per_image=1).open(replace(INPUTS, **changes))

    opened("caption", "caption")
    with pytest.raises(UsageError, match="has no task captoin"):
        opened("captoin", "caption")
    with pytest.raises(UnknownName, match='"caption"'):
        opened("caption", "captoin")
    with pytest.raises(UsageError, match=r"found is asked about text, 'caption' about None"):
        opened("found", "caption")
    with pytest.raises(UsageError, match="states no outlines in text"):
        opened("outline", "outline", outlines=None)
    with pytest.raises(UsageError, match=r"per_image=2 different tasks an image, of 1"):
        SceneNamedTasks(tasks=(Share("caption", "caption", 1.0),)).open(INPUTS)


def test_the_recipe_fits_its_world():
    config = recipe("florence2_scenes")
    first, number = config.objective.places
    system = catalog.system("florence2")
    tokenizer = config.data.tokenizer(ModelInputs.of(system))
    assert [tokenizer.piece_of(first), tokenizer.piece_of(first + number - 1)] == ["<loc_0>", "<loc_999>"]
    assert {share.task for share in config.data.tasks} == system.named_tasks.keys()
    assert config.model.num_image_tokens == 1 + (96 // config.data.patch) ** 2
