"""What encoders that read image and text together learn from: caption pairs with blanks, questions with scores."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.processor import Processor
from rebus.codec.region_files import save_regions
from rebus.codec.regions import ImageRegions
from rebus.codec.text import Control, Pieces, TextPipeline, filled_prompt
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import RebusError, UsageError
from rebus.core.labels import IGNORED
from rebus.core.specs import Prompts, TextSpec
from rebus.data.file_records import Files, file_batches
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_readings import SceneCaptionPairs, SceneQuestions, scene_answers
from rebus.data.scene_tokenizer import BOS, EOS, PAD
from rebus.data.scenes import answer_kinds
from rebus.data.scenes.language import ask
from rebus.data.scenes.reader import scene_at

SPEC = TextSpec(context=64, pad_id=PAD, bos_id=BOS, eos_id=EOS, beside_images=True)
PROMPTS = Prompts(ask="{question} ? [MASK]", controls=("[MASK]",), drops=",?")


def test_captions_are_blanked_and_every_second_one_belongs_to_its_neighbour():
    data = SceneCaptionPairs(alone=0.0).open(ModelInputs("reader", SPEC))
    tokenizer = data.text.tokenizer
    mask_id = tokenizer.id_of("[MASK]")
    fits, shares = [], []
    for index in range(6):
        batch = data.batch(3, index, 8)
        asked = batch["blanks"] != IGNORED
        whole = torch.where(asked, batch["blanks"], batch["tokens"])
        for row in range(8):
            captions = scene_at(3, index * 8 + row, "train", 96).captions
            others = scene_at(3, index * 8 + (row ^ 1), "train", 96).captions
            words = whole[row][batch["mask"][row]].tolist()
            cut = words.index(EOS)
            first, second = tokenizer.decode(words[1:cut]), tokenizer.decode(words[cut + 1 : -1])
            assert first in captions
            assert second in (captions if batch["fits"][row] else others)
            types = batch["types"][row][batch["mask"][row]]
            assert types.tolist() == [0] * (cut + 1) + [1] * (len(words) - cut - 1)
        fits += batch["fits"].tolist()
        special = torch.isin(whole, torch.tensor([PAD, BOS, EOS]))
        assert not (asked & special).any()
        shares.append((asked.sum() / (~special).sum()).item())
        blank = batch["tokens"][asked]
        assert 0.6 < (blank == mask_id).float().mean() < 0.95
    assert 0.3 < np.mean(fits) < 0.7
    assert 0.12 < np.mean(shares) < 0.18


def test_a_batch_is_the_same_in_parts():
    data = SceneCaptionPairs().open(ModelInputs("reader", SPEC))
    whole = data.batch(0, 5, 8)
    for part in range(2):
        mine = data.batch(0, 5, 8, share=(part, 2))
        for name in ("fits", "pixels"):
            assert torch.equal(mine[name], whole[name][4 * part : 4 * part + 4])
        for name in ("tokens", "blanks", "types"):  # padded to its own longest
            width = mine[name].shape[1]
            assert torch.equal(mine[name], whole[name][4 * part : 4 * part + 4, :width])
    with pytest.raises(UsageError, match="rows swap captions with their neighbours"):
        data.batch(0, 5, 6, share=(0, 2))


def test_a_caption_alone_is_one_segment():
    batch = SceneCaptionPairs(alone=1.0).open(ModelInputs("reader", SPEC)).batch(0, 0, 8)
    assert not batch["types"].any()
    assert ((batch["tokens"] == EOS).sum(1) == 1).all()


def test_questions_of_scenes_are_asked_before_a_blank_and_scored():
    data = SceneQuestions(per_image=3).open(ModelInputs("reader", SPEC, prompts=PROMPTS, answers_file="list.txt"))
    batch = data.batch(0, 0, 4)
    assert batch["owners"].tolist() == [i for i in range(4) for _ in range(3)]
    assert (batch["scores"].sum(1) == 1).all()
    tokenizer = data.text.tokenizer
    for text, real in zip(batch["tokens"], batch["mask"], strict=True):
        ids = text[real].tolist()
        assert [tokenizer.piece_of(i) for i in ids[-3:]] == ["?", "[MASK]", "<eos>"]
    assert data.processor.files()["list.txt"].decode().splitlines() == list(scene_answers())


def test_every_answer_about_a_scene_is_listed():
    rng, listed = np.random.default_rng(0), set(scene_answers())
    assert len(listed) == len(scene_answers())
    for seed in range(60):
        s = scene_at(1, seed, "train", 96)
        for kind in answer_kinds():
            pair = ask(kind, s.objects, rng, s.scale)
            assert pair is None or pair[1] in listed


def test_fault_14_a_typed_mask_is_text():
    prompt = filled_prompt(PROMPTS, "ask", question="what, is [MASK]?")
    assert prompt == Pieces("what is [MASK] ? ", Control("[MASK]"))
    assert filled_prompt(Prompts(ask="answer {question}"), "ask", question="{question}?") == "answer {question}?"


# Data sets on disk.

WORDS = "a an the red blue cat dog what is this how many ? , . two".split()


def on_disk(folder, rows, **files):
    for i, row in enumerate(rows):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
        row["file_name"] = f"{i}.png"
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = word_level_tokenizer(WORDS, ("<pad>", "<eos>", "<bos>", "<unk>", "[MASK]"))
    answers = files.pop("listed", None)
    processor = Processor(None, TextPipeline(tokenizer, SPEC), reads_regions=True)
    regions = {str(i): ImageRegions(np.full((i + 1, 4), i, np.float32)) for i in range(len(rows))}
    archive = save_regions(folder.parent / "features.npz", regions)
    data = Files(path=str(folder), regions=str(archive), val_split=None, **files)
    return file_batches(data, processor, PROMPTS, measured=False, answers=answers)


def test_answers_of_people_are_scored_and_regions_come_from_their_file(tmp_path):
    (tmp_path / "set").mkdir()
    answers = ["red", "red", "Red ", "blue", "two", *["the"] * 5]
    rows = [{"question": "what is this?", "answers": answers}, {"question": "how many?", "answer": "two"}]
    batch = on_disk(tmp_path / "set", rows, listed=["<unk>", "red", "blue", "two"]).batch(0, 0, 2)
    first = int((batch["scores"][:, 1] > 0).nonzero()[0])
    torch.testing.assert_close(batch["scores"][first], torch.tensor([0.0, 0.9, 0.3, 0.3]))
    torch.testing.assert_close(batch["scores"][1 - first], torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert batch["regions"].shape == (2, 2, 4)
    assert batch["region_mask"].sum(1).tolist() == ([1, 2] if first == 0 else [2, 1])
    assert batch["regions"][1 - first, 0].tolist() == [1.0] * 4


def test_what_cannot_be_learned_is_said(tmp_path):
    (tmp_path / "set").mkdir()
    rows = [{"question": "what is this?", "answer": "cat"}]
    with pytest.raises(UsageError, match="not one answer of the batch is among the 2 listed, such as 'cat'"):
        on_disk(tmp_path / "set", rows, listed=["<unk>", "red"]).batch(0, 0, 1)
    with pytest.raises(UsageError, match="expects a model that picks from a list of answers"):
        on_disk(tmp_path / "set", rows, form="answers")
    with pytest.raises(UsageError, match="regions are of whole images"):
        on_disk(tmp_path / "set", rows, flip=True)
    data = on_disk(tmp_path / "set", [{"text": "a cat"}, {"text": "a dog"}])
    save_regions(tmp_path / "features.npz", {"7": ImageRegions(np.ones((1, 4)))})
    data.source._regions = type(data.source._regions)(tmp_path / "features.npz")
    with pytest.raises(RebusError, match=r"no regions of image \d among 1"):
        data.batch(0, 0, 2)


def test_captions_on_disk_become_pairs(tmp_path):
    (tmp_path / "set").mkdir()
    rows = [{"text": ["a red cat", "the cat"]}, {"text": ["a dog", "this is a dog"]}]
    batch = on_disk(tmp_path / "set", rows).batch(0, 0, 2)
    assert {"tokens", "mask", "types", "blanks", "fits", "regions", "region_mask"} == set(batch)
    assert batch["types"].any()


def test_questions_with_their_answers_are_blanked(tmp_path):
    (tmp_path / "set").mkdir()
    rows = [{"question": "what, is this?", "answer": "cat"}, {"question": "how many?", "answer": "two"}]
    data = on_disk(tmp_path / "set", rows, form="answer blanks")
    tokenizer, said, asked = data.processor.text.tokenizer, set(), 0
    for index in range(30):
        batch = data.batch(0, index, 2)
        assert set(batch) == {"tokens", "mask", "types", "blanks", "regions", "region_mask"}
        assert not batch["types"].any()
        whole = torch.where(batch["blanks"] == IGNORED, batch["tokens"], batch["blanks"])
        said |= {tokenizer.decode(row[1 : int(mask.sum()) - 1].tolist()) for row, mask in zip(whole, batch["mask"])}
        asked += int((batch["blanks"] != IGNORED).sum())
    assert said == {"what is this? cat", "how many? two"}
    assert asked > 0
