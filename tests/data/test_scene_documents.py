"""Episodes, pages and videos of scenes, and the documents that models learn from them."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from rebus import catalog
from rebus.core.errors import UnknownName, UsageError
from rebus.core.labels import IGNORED
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_documents import SceneDocuments
from rebus.data.scene_videos import SceneVideos
from rebus.data.scenes import LABELS, MOTIONS, NAMES, NOVEL_LABELS, Scene, episode, page, scene, video
from rebus.recipes import recipe

FLAMINGO = recipe("flamingo_scenes")


def inputs() -> ModelInputs:
    system = catalog.system("flamingo")
    return ModelInputs("flamingo", system.text_spec(FLAMINGO.model), prompts=system.prompts)


def said(batches, row) -> str:
    return " ".join(batches.text.tokenizer.piece_of(token) or "" for token in row.tolist() if token > 0)


def test_scenes_of_a_label_hold_that_object_alone():
    for seed, label in enumerate(LABELS):
        assert scene(seed, "train", label=label).labels == [label]
    for seed, label in enumerate(NOVEL_LABELS):
        assert scene(seed, "novel", label=label).labels == [label]
    with pytest.raises(UnknownName, match="label of the split test"):
        scene(0, "test", label=NOVEL_LABELS[0])


def test_names_of_episodes_are_known_by_their_examples_alone():
    meant = Counter()
    for seed in range(60):
        one = episode(seed, "test", classes=3, shots=6)
        assert len(one.names) == len(set(one.meanings.values())) == 3
        assert {shown.name for shown in one.shots[:3]} == set(one.names)
        assert all(shown.scene.label == one.meanings[shown.name] for shown in (*one.shots, one.query))
        assert one.query.name in one.names
        meant.update((name, label) for name, label in one.meanings.items() if name == NAMES[0])
    assert max(meant.values()) <= 3  # of some ten episodes with that name


def test_novel_episodes_hold_what_was_held_out_and_others_nothing_of_it():
    for seed in range(20):
        assert set(episode(seed, "novel").meanings.values()) <= set(NOVEL_LABELS)
        assert not set(episode(seed, "train").meanings.values()) & set(NOVEL_LABELS)


def test_more_shots_of_an_episode_begin_with_those_of_fewer():
    few, many = episode(5, "val", shots=3), episode(5, "val", shots=9)
    assert [shown.name for shown in few.shots] == [shown.name for shown in many.shots[:3]]
    assert np.array_equal(few.shots[2].scene.planes, many.shots[2].scene.planes)
    assert np.array_equal(few.query.scene.planes, many.query.scene.planes)
    assert episode(5, "val", shots=0).shots == ()


@pytest.mark.parametrize(("classes", "shots"), [(1, 4), (8, 4), (3, -1), (3, 1000)])
def test_episodes_that_cannot_be(classes, shots):
    with pytest.raises(UsageError, match="2 to 7 classes"):
        episode(0, classes=classes, shots=shots)


def test_pages_say_of_each_scene_what_is_true():
    plain = 0
    for seed in range(40):
        parts = page(seed, "val")
        scenes = [i for i, part in enumerate(parts) if isinstance(part, Scene)]
        assert 2 <= len(scenes) <= 4
        assert scenes[-1] < len(parts) - 1
        for i in scenes:
            sentence = parts[i + 1].split(".")[0]
            assert sentence in parts[i].captions
        plain += sum(part.count(".") > 1 for part in parts if isinstance(part, str))
    assert plain > 20


def test_videos_show_the_motion_that_they_tell():
    for seed in range(30):
        found = video(seed, "val", frames=3)
        assert found.planes.shape == (3, 3, 96, 96)
        assert set(found.motions) != {"nowhere"}
        assert found.caption.count(" moves ") == len(found.labels) == len(found.questions)
        first, last = found.boxes[0], found.boxes[-1]
        for way, moved in zip(found.motions, (last - first)[:, :2], strict=True):
            there = np.array(MOTIONS[way])
            assert moved @ there > 12 or way == "nowhere"
            assert np.abs(moved - (moved @ there) * there).max() <= 1
        left, top, right, bottom = map(int, last[[way != "nowhere" for way in found.motions].index(True)])
        assert np.abs(found.planes[0].astype(int) - found.planes[-1])[:, top:bottom, left:right].max() > 40
    assert np.array_equal(video(3, "val", frames=3).planes[1], video(3, "val", frames=5).planes[2])


def test_seeds_are_exact():
    digest = hashlib.sha256()
    for seed in range(5):
        one = episode(seed, "novel")
        digest.update(repr((one.meanings, [shown.name for shown in one.shots], one.query.name)).encode())
        digest.update(one.query.scene.planes.tobytes())
        digest.update(repr([p if isinstance(p, str) else p.captions for p in page(seed)]).encode())
        digest.update(video(seed).planes.tobytes())
    assert digest.hexdigest()[:16] == "0772e6cc07d956d8"


def test_documents_are_learned_after_each_image_alone():
    batches = FLAMINGO.data.open(inputs())
    batch = batches.batch(0, 0, 8)
    assert batch["pixels"].dtype == torch.uint8
    marks = (batch["tokens"] == FLAMINGO.model.image_id).sum(dim=1)
    assert torch.equal(marks, batch["image_mask"].sum(dim=1))
    unknown = batches.text.tokenizer.unknown_id
    for index in range(4):
        assert not (batches.batch(1, index, 8)["tokens"] == unknown).any()
    assert torch.equal(batch["pixels"], batches.batch(0, 0, 8)["pixels"])
    alone = replace(FLAMINGO.data, captions=0.0, questions=0.0, worded=0.0)
    row = said(batches, alone.open(inputs()).batch(0, 0, 4)["tokens"][0])
    assert row.count("<image>") == row.count("<|endofchunk|>") == 6
    assert sum(row.count(name) for name in NAMES) == 6


def test_examples_in_words_come_before_images_and_are_not_learned():
    data = replace(FLAMINGO.data, captions=0.0, questions=0.0, worded=1.0)
    batches = data.open(inputs())
    batch = batches.batch(0, 0, 16)
    for tokens, labels, there in zip(batch["tokens"], batch["labels"], batch["image_mask"], strict=True):
        row = said(batches, tokens)
        before, *chunks = row.split("<image>")
        assert sum(map(before.split().count, NAMES)) == data.images - len(chunks) > 0
        assert len(chunks) == int(there.sum())
        assert set(before.split()) & {word for label in (*LABELS, *NOVEL_LABELS) for word in label.split()}
        first = int((tokens == FLAMINGO.model.image_id).int().argmax())
        assert (labels[:first] == IGNORED).all()
        assert (labels[first:] != IGNORED).sum() > len(chunks)


def test_language_models_read_what_is_told_and_learn_what_follows():
    data = recipe("flamingo_scenes_text").data
    batches = replace(data, pages=0.0, captions=0.0, questions=0.0, rote=0.0).open(inputs())
    batch = batches.batch(0, 0, 16)
    assert "pixels" not in batch
    learned = batch["labels"][batch["labels"] != IGNORED].tolist()
    words = {batches.text.tokenizer.piece_of(token) for token in learned}
    assert words & set(NAMES)
    assert not words & set("red blue green circle square small large solid".split())
    assert batches.text.tokenizer.vocab_size == FLAMINGO.model.vocabulary
    rote = replace(data, episodes=0.0, pages=0.0, captions=0.0, questions=0.0, rote=1.0).open(inputs()).batch(0, 0, 4)
    tokens, labels = rote["tokens"][0], rote["labels"][0]
    first = int((labels != IGNORED).nonzero()[0])
    assert labels[first] == tokens[1]


def test_documents_refuse_odds_that_are_none():
    with pytest.raises(UsageError, match="odds"):
        SceneDocuments(episodes=0.0, pages=0.0, captions=0.0, questions=0.0).open(inputs())
    with pytest.raises(UsageError, match="rote needs told"):
        SceneDocuments(rote=0.5).open(inputs())
    with pytest.raises(UsageError, match="set one of the two"):
        SceneDocuments(told=True, worded=0.5).open(inputs())


def test_videos_are_clips_of_one_image_token():
    batches = SceneVideos(frames=3).open(inputs())
    batch = batches.batch(0, 0, 4)
    assert batch["pixels"].shape == (4, 1, 3, 3, 96, 96)
    assert ((batch["tokens"] == FLAMINGO.model.image_id).sum(dim=1) == 1).all()
    assert any("where does the" in said(batches, row) for row in batch["tokens"])
    assert not (batch["tokens"] == batches.text.tokenizer.unknown_id).any()
    assert batches.text.tokenizer.vocab_size == SceneDocuments().open(inputs()).text.tokenizer.vocab_size
