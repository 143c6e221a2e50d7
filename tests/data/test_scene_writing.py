"""Writing in scenes: where it stands, what it says, and how a model learns to read it."""

import hashlib
import re

import numpy as np
import torch

from rebus import catalog
from rebus.codec.boxes import LOC_1024
from rebus.core.specs import Prompts
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scene_tokenizer import scenes_tokenizer
from rebus.data.scenes import NOTICES, scene
from rebus.data.scenes.writing import QUESTION, dots
from rebus.recipes import recipe

PALI3 = catalog.system("pali3")
READS = SceneTasks(caption=0.2, detect=0.2, ask=0.2, segment=0.0, read=0.4)


def test_writing_is_in_nobodys_way_and_leaves_the_scene_as_it_was() -> None:
    for seed in range(40):
        s = scene(seed, "train")
        before = s.planes.copy()
        writing = s.writing
        assert writing is not None
        assert np.array_equal(s.planes, before)
        left, top, right, bottom = map(int, writing.box)
        changed = np.flatnonzero((writing.planes != before).any(axis=(0, 2)))
        assert top <= changed[0] <= changed[-1] < bottom
        plate = np.zeros(before.shape[1:], dtype=bool)
        plate[top:bottom, left:right] = True
        assert np.array_equal(writing.planes[:, ~plate], before[:, ~plate])
        for box in s.boxes:
            assert right <= box[0] or left >= box[2] or bottom <= box[1] or top >= box[3]
        again = scene(seed, "train").writing
        assert again is not None
        assert np.array_equal(again.planes, writing.planes)


def test_numbers_and_words_are_written_by_turns_and_can_be_told_apart() -> None:
    found = [scene(seed, "val").writing for seed in range(300)]
    writings = [w for w in found if w is not None]
    numbers = [w for w in writings if w.is_number]
    assert 0.4 < len(numbers) / len(writings) < 0.6
    assert {len(w.text) for w in numbers} == {1, 2, 3}
    assert {w.text for w in writings} - {w.text for w in numbers} == set(NOTICES)
    assert {w.spelled for w in numbers if w.text == "7"} == {"7"}
    assert all(w.spelled == " ".join(w.text) for w in numbers)
    glyphs = {c: tuple(dots(c).flatten()) for c in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    assert len(set(glyphs.values())) == 36


def test_larger_scenes_have_larger_writing() -> None:
    small, large = scene(3, "train").writing, scene(3, "train", size=192).writing
    assert small is not None
    assert large is not None
    assert large.text == small.text
    assert large.box[2] - large.box[0] == 2 * (small.box[2] - small.box[0])


def test_a_seed_writes_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for seed in range(10):
        writing = scene(seed, "test").writing
        assert writing is not None
        digest.update(writing.planes.tobytes())
        digest.update(repr((writing.text, writing.box)).encode())
    assert digest.hexdigest()[:16] == "c425d5dabdfe6a1c"


def test_rows_that_are_asked_what_is_written_see_it() -> None:
    spec = PALI3.text_spec(recipe("pali3_scenes").model)
    batches = READS.open(ModelInputs("pali3", spec, prompts=PALI3.prompts, locations=PALI3.locations))
    batch = batches.batch(0, 0, 16)
    tokenizer = batches.text.tokenizer
    prompts = [tokenizer.decode(row) for row in batch["tokens"].tolist()]
    answers = batches.text.decode(batch["targets"])
    asked = [row for row, prompt in enumerate(prompts) if QUESTION in prompt]
    assert asked
    assert not any("<unk>" in tokenizer.decode(row, skip_special=False) for row in batch["tokens"].tolist())
    with_writing = {int(batch["owners"][row]) for row in asked}
    for number in range(16):
        s = scene(number, "train")
        assert s.writing is not None
        planes = s.writing.planes if number in with_writing else s.planes
        assert torch.equal(batch["pixels"][number], torch.from_numpy(planes.copy()))
    for row in asked:
        writing = scene(int(batch["owners"][row]), "train").writing
        assert writing is not None
        assert answers[row] == writing.spelled
    places = [row for row, prompt in enumerate(prompts) if prompt.startswith("detect")]
    assert places
    assert all(re.match(r"(\d+ ){4}\w", answers[row]) or not answers[row] for row in places)


def test_what_was_learned_from_before_is_as_it_was() -> None:
    """Models without reading have the tokens and the batches that they were trained with."""
    prompts = Prompts(caption="caption en", ask="answer en {question}", detect="detect {labels}")
    plain = SceneTasks(caption=0.4, detect=0.4, ask=0.2, segment=0.0)
    assert plain.words(prompts, LOC_1024) == ()
    assert plain.tokenizer(prompts, LOC_1024) is scenes_tokenizer(True, more=())
    assert plain.tokenizer(prompts, LOC_1024).files == scenes_tokenizer(locations=True).files
    assert "read" not in plain._forms()


def test_the_recipes_model_fits_its_texts() -> None:
    config = recipe("pali3_scenes")
    tokenizer = config.data.tokenizer(PALI3.prompts, PALI3.locations)  # type: ignore[union-attr]
    assert config.model.text.vocab_size == tokenizer.vocab_size
    assert [tokenizer.piece_of(token) for token in tokenizer.encode("4 0 7 taxi")] == ["4", "0", "7", "taxi"]
    first = tokenizer.id_of("0")
    assert first is not None
    assert [tokenizer.id_of(str(line)) for line in range(1000)] == list(range(first, first + 1000))
    with torch.device("meta"):
        network = PALI3.network(config.model)
    assert 2 * sum(p.numel() for p in network.parameters()) < 4_000_000  # bytes of the checkpoint
