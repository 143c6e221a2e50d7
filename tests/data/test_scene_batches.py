"""Training batches of scenes: the same tokens, pixels and boxes as the processors give, the same records as files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.boxes import LOC_1024, parse_boxes
from rebus.codec.images import ImagePipeline, normalised
from rebus.codec.masks import parse_segments, paste_mask
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import BadText, UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.data import scenes
from rebus.data.file_records import Files, file_batches
from rebus.data.forms import FORMS, Given
from rebus.data.layouts import open_layout
from rebus.data.model_inputs import ModelInputs
from rebus.data.record_batches import Batches
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_masks import SceneMasks, load_codebook, mask_codes
from rebus.data.scene_tasks import SceneTasks
from rebus.data.scene_tokenizer import BOS, EOS, IMAGE, PAD, SPECIALS, scenes_processor, scenes_tokenizer
from rebus.data.scenes.reader import scene_at, scene_record

WRITER = TextSpec(
    context=512,
    generates=True,
    pad_id=PAD,
    bos_id=BOS,
    eos_id=EOS,
    separator="\n",
    image_token_id=IMAGE,
    num_image_tokens=64,
)
PROMPTS = Prompts(
    caption="caption en", ask="answer en {question}", detect="detect {labels}", segment="segment {phrase}"
)


def writer(prompts: Prompts = PROMPTS, locations: LocationNotation | None = LOC_1024) -> ModelInputs:
    return ModelInputs("writer", WRITER, prompts=prompts, locations=locations)


def opened(data: SceneCaptions | SceneTasks | SceneMasks) -> Batches:
    """What gives the batches of `data`, for the model above."""
    return data.open(writer())


def test_quick_look_up_equals_the_tokenizer() -> None:
    quick = scenes_tokenizer(locations=True)
    plain = word_level_tokenizer((*scenes.vocabulary(), "\n"), SPECIALS, locations=1024, segments=128)
    for seed in range(30):
        s = scenes.scene(seed, "val")
        said = [*s.captions, *(t for pair in s.questions for t in pair), *(p for p, _ in s.phrases)]
        assert quick.encode_batch(said) == plain.encode_batch(said)
        assert [quick.decode(quick.encode(text)) for text in said] == said
    for odd in ("a red zebra", "", " ", "a\nred", "a  red;circle ", "Red circle", "<image> red", "red'circle", "."):
        assert quick.encode(odd) == plain.encode(odd), odd
        assert quick.encode_answer("<loc0003>" + odd) == plain.encode_answer("<loc0003>" + odd)
    assert quick.encode_batch(["red", "zebra", "blue"]) == plain.encode_batch(["red", "zebra", "blue"])
    with pytest.raises(BadText):
        quick.encode("red \0")
    assert quick.files == plain.files
    assert quick.id_of("<image>") == IMAGE
    assert (quick.id_of("<pad>"), quick.id_of("<eos>")) == (PAD, EOS)


@pytest.mark.parametrize("begin", [True, False])
def test_captions_equal_what_the_text_pipeline_makes_of_them(begin: bool) -> None:
    batch = SceneCaptions(begin=begin, full=1.0, named=0.0).open(writer()).batch(3, 5, 6, "val")
    spec = TextSpec(context=32, pad_id=PAD, eos_id=EOS, bos_id=BOS if begin else None, pad_to_context=True, lower=True)
    drawn = [scene_at(3, 30 + i, "val", 96) for i in range(6)]
    tokens, mask = TextPipeline(scenes_tokenizer(), spec)([s.captions[0] for s in drawn])
    assert torch.equal(batch["tokens"], tokens)
    assert torch.equal(batch["mask"], mask)
    assert batch["pixels"].shape == (6, 3, 96, 96)
    assert torch.equal(batch["pixels"][2], torch.from_numpy(drawn[2].pixels).permute(2, 0, 1))
    assert batch.keys() == {"pixels", "tokens", "mask"}


def test_pixels_are_normalised_as_the_pipeline_does_it() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    assert normalised(pixels, ImageSpec(size=(1, 2))).unique().tolist() == [-1.0, 1.0]
    spec = ImageSpec(size=(96, 96), mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
    s = scenes.scene(4, "val")
    exact = ImagePipeline(spec)([s.image])["pixels"]
    torch.testing.assert_close(normalised(torch.from_numpy(s.planes)[None], spec), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("data", [SceneCaptions(), SceneTasks(), SceneMasks(sizes=(96,))], ids=lambda d: d.kind)
def test_a_batch_is_a_function_of_seed_and_number(data: SceneCaptions | SceneTasks | SceneMasks) -> None:
    one, again, other = (opened(data).batch(1, number, 4) for number in (2, 2, 3))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("data", [SceneCaptions(), SceneTasks(), SceneMasks(sizes=(96,))], ids=lambda d: d.kind)
def test_ranks_share_a_batch(data: SceneCaptions | SceneTasks | SceneMasks) -> None:
    batches = opened(data)
    whole, parts = batches.batch(1, 2, 6), [batches.batch(1, 2, 6, share=(i, 3)) for i in range(3)]
    for name, value in whole.items():
        if name == "owners":
            found = torch.cat([part[name] + 2 * i for i, part in enumerate(parts)])
        elif name in ("tokens", "mask", "targets"):  # each part is as wide as its longest row
            padding = -100 if name == "targets" else 0
            widest = value.shape[1]
            found = torch.cat(
                [torch.nn.functional.pad(p[name], (0, widest - p[name].shape[1]), value=padding) for p in parts]
            )
        else:
            found = torch.cat([part[name] for part in parts])
        assert torch.equal(found, value), name


def test_prompts_and_answers_are_paligemmas() -> None:
    data = SceneTasks()
    batches = data.open(writer())
    tokenizer = scenes_tokenizer(locations=True)
    pipeline = TextPipeline(tokenizer, WRITER)
    kinds = set()
    for number in range(6):
        batch = batches.batch(0, number, 8, "val")
        assert batch["owners"].tolist() == [i // 2 for i in range(16)]
        for owner, tokens, mask, targets in zip(
            batch["owners"].tolist(), batch["tokens"], batch["mask"], batch["targets"], strict=True
        ):
            s = scene_at(0, number * 16 + owner, "val", 96)
            ids = tokens[mask].tolist()
            prompt = tokenizer.decode([i for i in ids if i not in (IMAGE, BOS)]).strip()
            assert pipeline(prompt, images=1)[0][0].tolist() == ids
            assert targets[targets >= 0][-1] == EOS
            answer = pipeline.decode([targets.tolist()])[0]
            assert pipeline.targets(answer)[0].tolist() == targets[targets >= 0].tolist()
            kind, _, asked = prompt.partition(" ")
            kinds.add(kind)
            if kind == "caption":
                assert answer == s.captions[0]
            elif kind == "detect":
                check_boxes(answer, asked, s)
            elif kind == "segment":
                (found,), rejected = parse_segments(LOC_1024, answer)
                one = s.objects[s.matching(asked)[0]]
                assert not rejected
                assert found.label == asked
                assert found.codes == mask_codes(one.mask, one.box, data.codebook)
    assert kinds == {"caption", "detect", "answer", "segment"}


def test_tasks_that_a_model_cannot_be_asked_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no prompt for segment: --set data\.segment=0"):
        SceneTasks().open(writer(Prompts(caption="c", ask="{question}", detect="{labels}")))
    SceneTasks(segment=0.0).open(writer(Prompts(caption="c", ask="{question}", detect="{labels}")))
    with pytest.raises(UsageError, match=r"makes 36 patches; the model has 64 an image"):
        SceneTasks(patch=16).open(writer(locations=None))
    with pytest.raises(UsageError, match=r"has no location tokens, as detect requires: --set data\.detect=0"):
        SceneTasks().open(writer(locations=None))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes as a data set on disk, one question each."""
    where = tmp_path_factory.mktemp("scenes")
    rows: list[dict[str, Any]] = []
    for i in range(8):
        s = scene_at(7, i, "val", 96)
        s.image.save(where / f"{i}.png")
        boxes = [{"label": label, "xyxy": list(box)} for label, box in zip(s.labels, s.boxes, strict=True)]
        (question, answer), kind = s.questions_by_kind[0]
        asked = {"question": question, "answer": answer, "type": kind}
        rows.append({"file": f"{i}.png", "captions": s.captions, "boxes": boxes, **asked})
    (where / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return where


def test_scenes_give_the_records_that_files_give(written: Path) -> None:
    reader = open_layout(written, "folder", None)
    drawn = [scene_record(scene_at(7, i, "val", 96)) for i in range(8)]
    drawn = [replace(record, questions=record.questions[:1]) for record in drawn]
    stored = [reader.read(0, row) for row in range(8)]
    for a, b in zip(drawn, stored, strict=True):
        with Image.open(b.image) as picture:  # type: ignore[arg-type]
            assert np.array_equal(np.asarray(a.image), np.asarray(picture))
        assert a.captions == b.captions
        assert [(q.text, q.answers, q.kind) for q in a.questions] == [(q.text, q.answers, q.kind) for q in b.questions]
        assert [(t.label, t.box) for t in a.things] == [(t.label, t.box) for t in b.things]
        for name, prompt in (("pairs", None), ("caption", "caption en"), ("ask", "{question}"), ("detect", "{labels}")):
            texts = [
                FORMS[name]
                .make(record, Given(np.zeros((96, 96, 3), np.uint8), prompt, np.random.default_rng(5), LOC_1024))
                .texts
                for record in (a, b)
            ]
            assert texts[0] == texts[1], name
    only = scene_record(scene_at(7, 0, "val", 96), ("phrases",))
    assert only.phrases
    assert (only.captions, only.questions, only.things) == ((), (), ())


def test_files_and_scenes_end_in_the_same_batch(written: Path) -> None:
    spec = TextSpec(context=32, pad_id=PAD, eos_id=EOS, pad_to_context=True)
    files = file_batches(
        Files(path=str(written), layout="folder", split=None, form="pairs", fast=False),
        scenes_processor(spec, 96),
        Prompts(),
    )
    batch, scene_batch = files.batch(0, 0, 8), SceneCaptions().open(writer()).batch(7, 0, 8, "val")
    assert batch.pop("groups").shape == (8, 2)  # files may hold an image or a caption twice
    assert batch.keys() == scene_batch.keys()
    assert {name: value.shape for name, value in batch.items()} == {n: v.shape for n, v in scene_batch.items()}
    pixels = normalised(scene_batch["pixels"], ImageSpec(size=(96, 96)))
    for image in batch["pixels"]:  # in another order
        assert min(float((image - other).abs().max()) for other in pixels) < 1e-6


def check_boxes(answer: str, asked: str, s: scenes.Scene) -> None:
    boxes, rejected = parse_boxes(LOC_1024, answer, (96, 96))
    assert not rejected
    labels = s.labels if asked == "object" else asked.split(" ; ")
    wanted = [o.box for o in s.objects if any(set(label.split()) <= set(o.attributes) for label in labels)]
    assert len(boxes) == len(wanted)
    for box, truth in zip(boxes, wanted, strict=True):
        assert box.label in labels
        assert max(abs(a - b) for a, b in zip(box.xyxy, truth, strict=True)) <= 96 / 2046 + 1e-6


def test_the_bundled_codebook_draws_every_shape() -> None:
    network = load_codebook("mask_vqvae/scenes")
    for shape in scenes.SHAPES:
        s = next(s for s in (scenes.scene(i, "test", count=1) for i in range(99)) if s.objects[0].shape == shape)
        one = s.objects[0]
        codes = torch.tensor([mask_codes(one.mask, one.box, "mask_vqvae/scenes")])
        drawn = paste_mask(network.decode(codes).detach().numpy()[0], one.box, (96, 96))
        assert (drawn & one.mask).sum() / (drawn | one.mask).sum() > 0.85
