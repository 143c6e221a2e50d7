"""The sets of sentences against those that open_clip ships."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from rebus.codec.processor import load_processor
from rebus.codec.text import ImageMark, Pieces
from rebus.core.specs import ImageSpec, TextSpec
from rebus.tasks.prompts import IMAGENET, IMAGENET_BEST

pytestmark = pytest.mark.parity


def test_imagenet_sentences():
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert {template("X") for template in metadata.OPENAI_IMAGENET_TEMPLATES} == {t.format("X") for t in IMAGENET}
    assert [template("X") for template in metadata.SIMPLE_IMAGENET_TEMPLATES] == [t.format("X") for t in IMAGENET_BEST]


def test_images_inside_a_prompt_stand_where_the_released_processor_puts_them(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.parity.finetuning import write_directory

    write_directory(tmp_path, ["what is between these two"], width=8, layers=1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    image_processor = transformers.SiglipImageProcessor.from_pretrained(tmp_path)
    image_processor.image_seq_length = 9
    theirs = transformers.PaliGemmaProcessor(image_processor, tokenizer)
    place = tokenizer.convert_tokens_to_ids("<image>")
    spec = TextSpec(
        context=64,
        generates=True,
        pad_id=0,
        bos_id=2,
        eos_id=1,
        separator="\n",
        image_token_id=place,
        num_image_tokens=9,
    )
    ours = load_processor(tmp_path, ImageSpec(size=(48, 48)), spec)
    images = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    for parts in (("what is", ImageMark(), "between", ImageMark(), "these two"), (ImageMark(), ImageMark(), "what is")):
        text = " ".join("<image>" if isinstance(part, ImageMark) else part for part in parts)
        expected = theirs(images=[images], text=[text], return_tensors="pt")
        found = ours(images=[images], texts=[Pieces(*parts)])
        space = tokenizer.convert_tokens_to_ids(["<unk>"])[0]
        assert space not in found["tokens"]
        assert torch.equal(found["tokens"], expected["input_ids"])
        torch.testing.assert_close(found["pixels"][0], expected["pixel_values"].view_as(found["pixels"][0]))
