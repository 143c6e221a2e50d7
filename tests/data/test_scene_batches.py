"""Training batches of scenes: the same words, pixels and boxes as the processors give."""

import pytest
import torch
from rebus.data.scene_batches import (
    BOS,
    EOS,
    IMAGE,
    PAD,
    SceneCaptions,
    Words,
    normalise,
    scene_at,
    scenes_tokenizer,
)

from rebus.codec.boxes import parse_boxes
from rebus.codec.masks import parse_segments, paste_mask
from rebus.codec.text import TextPipeline
from rebus.core.specs import TextSpec
from rebus.data import scenes
from rebus.data.scene_masks import SceneMasks, load_codebook, mask_codes
from rebus.data.scene_tasks import SceneTasks

WRITER = TextSpec(
    context=512, pad_id=PAD, bos_id=BOS, eos_id=EOS, separator="\n", image_token_id=IMAGE, num_image_tokens=64
)


def test_quick_look_up_equals_the_tokenizer() -> None:
    tokenizer = scenes_tokenizer()
    words = Words(tokenizer)
    for seed in range(30):
        s = scenes.scene(seed, "val")
        for text in [*s.captions, *(t for pair in s.questions for t in pair), *(p for p, _ in s.phrases)]:
            assert words(text) == tokenizer.encode(text)
            assert tokenizer.decode(words(text)) == text
    assert tokenizer.id_of("<image>") == IMAGE
    assert (tokenizer.id_of("<pad>"), tokenizer.id_of("<eos>")) == (PAD, EOS)


@pytest.mark.parametrize("begin", [True, False])
def test_captions_equal_what_the_text_pipeline_makes_of_them(begin: bool) -> None:
    data = SceneCaptions(begin=begin, full=1.0, named=0.0)
    batch = data.batch(3, 5, 6, "val")
    spec = TextSpec(context=32, pad_id=PAD, eos_id=EOS, bos_id=BOS if begin else None, pad_to_context=True, lower=True)
    drawn = [scene_at(3, 30 + i, "val", 96) for i in range(6)]
    tokens, mask = TextPipeline(scenes_tokenizer(), spec)([s.captions[0] for s in drawn])
    assert torch.equal(batch["tokens"], tokens)
    assert torch.equal(batch["mask"], mask)
    assert batch["pixels"].shape == (6, 3, 96, 96)
    assert torch.equal(batch["pixels"][2], torch.from_numpy(drawn[2].pixels).permute(2, 0, 1))


def test_pixels_are_normalised_to_plus_minus_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert normalise(pixels).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("data", [SceneCaptions(), SceneTasks(), SceneMasks(sizes=(96,))], ids=lambda d: d.kind)
def test_a_batch_is_a_function_of_seed_and_number(data: SceneCaptions | SceneTasks | SceneMasks) -> None:
    one, again, other = (data.batch(1, number, 4) for number in (2, 2, 3))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)


def test_prompts_and_answers_are_paligemmas() -> None:
    data = SceneTasks()
    tokenizer = scenes_tokenizer(locations=True)
    pipeline = TextPipeline(tokenizer, WRITER)
    kinds = set()
    for number in range(6):
        batch = data.batch(0, number, 8, "val")
        for row, (tokens, mask, targets) in enumerate(
            zip(batch["tokens"], batch["mask"], batch["targets"], strict=True)
        ):
            s = scene_at(0, number * 16 + row // 2, "val", 96)
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
                (found,), rejected = parse_segments(answer)
                one = s.objects[s.matching(asked)[0]]
                assert not rejected
                assert found.label == asked
                assert found.codes == mask_codes(one.mask, one.box, data.codebook)
    assert kinds == {"caption", "detect", "answer", "segment"}


def check_boxes(answer: str, asked: str, s: scenes.Scene) -> None:
    boxes, rejected = parse_boxes(answer, (96, 96))
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
