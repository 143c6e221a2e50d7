"""Both pipelines behind one call; the files they come from and go to."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor, load_processor
from rebus.codec.text import Control, ImageMark, Pieces, TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import BadCheckpoint, BadConfig, BadImage, BadText, MissingFile, UsageError
from rebus.core.specs import ImageSpec, TextSpec

from .vocabularies import WORDS, bert_folder, clip_folder

TOKENIZER = word_level_tokenizer(WORDS, ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", "\n"], locations=8)
IMAGE = ImageSpec(size=(4, 6))
TOWER = TextSpec(context=6, pad_id=0, bos_id=2, eos_id=1)
WRITER = TextSpec(
    context=64, generates=True, pad_id=0, bos_id=2, eos_id=1, separator="\n", image_token_id=4, num_image_tokens=3
)


def picture(value: int = 100) -> Image.Image:
    return Image.new("RGB", (9, 7), (value, 0, 255))


def processor(spec: TextSpec = WRITER) -> Processor:
    return Processor(ImagePipeline(IMAGE), TextPipeline(TOKENIZER, spec))


def test_two_towers_read_pictures_and_texts_apart():
    batch = processor(TOWER)(images=[picture()] * 3, texts=["a", "a red circle"])
    assert {name: tuple(t.shape) for name, t in batch.items()} == {
        "pixels": (3, 3, 4, 6),
        "tokens": (2, 5),
        "mask": (2, 5),
    }


def test_a_writer_gets_a_picture_a_prompt_and_an_answer():
    batch = processor()(images=picture(), texts="what is the circle?", targets="a red circle")
    assert {name: tuple(t.shape) for name, t in batch.items()} == {
        "pixels": (1, 3, 4, 6),
        "tokens": (1, 10),
        "mask": (1, 10),
        "targets": (1, 4),
    }
    assert processor().decode(batch["targets"]) == ["a red circle"]


@pytest.mark.parametrize("prompt", ["a", Pieces("a", Control("<loc0001>"))])
def test_one_prompt_is_asked_of_every_picture(prompt):
    batch = processor()(images=[picture(), picture(7)], texts=prompt)
    assert len(batch["tokens"]) == len(batch["pixels"]) == 2
    assert torch.equal(batch["tokens"][0], batch["tokens"][1])


def test_several_pictures_to_a_prompt():
    same = processor()(images=[[picture(), picture(7)]] * 3, texts="a")
    assert same["pixels"].shape == (3, 2, 3, 4, 6)
    assert (same["tokens"] == 4).sum(1).tolist() == [6, 6, 6]
    other = processor()(images=[[picture()], [picture(), picture(7)], []], texts=["a", "a", "a"])
    assert other["pixels"].shape == (3, 2, 3, 4, 6)
    assert other["image_mask"].tolist() == [[True, False], [True, True], [False, False]]
    assert (other["tokens"] == 4).sum(1).tolist() == [3, 6, 0]
    assert torch.equal(other["pixels"][1], same["pixels"][0])
    assert torch.equal(other["pixels"][0, 0], same["pixels"][0, 0])
    assert same["image_mask"].all()
    none = processor()(images=[[], []], texts="a")
    assert (none["pixels"].shape, none["image_mask"].shape) == ((2, 0, 3, 4, 6), (2, 0))


def test_several_prompts_to_an_image():
    images = [[picture()], [picture(7), picture(9)]]
    batch = processor()(images=images, texts=["a", "red", "blue"], targets=["a", "a", "a"], owners=[1, 0, 1])
    assert batch["owners"].tolist() == [1, 0, 1]
    assert (batch["tokens"] == 4).sum(1).tolist() == [6, 3, 6]
    assert len(batch["pixels"]) == 2
    with pytest.raises(UsageError, match=r"owners\[1\] is 2; there are 2 rows of images, 0 to 1"):
        processor()(images=images, texts=["a", "a"], owners=[0, 2])
    with pytest.raises(UsageError, match="3 prompts and 2 owners"):
        processor()(images=images, texts=["a", "a", "a"], owners=[0, 1])
    with pytest.raises(UsageError, match="3 tokens, 2 targets, 3 owners"):
        processor()(images=images, texts=["a"] * 3, targets=["a"] * 2, owners=[0, 1, 1])
    with pytest.raises(UsageError, match="2 pixels, 3 regions"):
        processor()(images=images, texts=["a"] * 3, owners=[0, 1, 1], regions=np.ones((3, 2, 5)))
    with pytest.raises(UsageError, match="owners are only for its loss"):
        processor(TOWER)(images=[picture()], texts=["a", "a"], owners=[0, 0])
    with pytest.raises(BadImage, match="row 1 has 2 images; a dual encoder takes one"):
        processor(TOWER)(images=images, texts=["a", "a"])


def test_images_stand_where_their_marks_are():
    document = Pieces("a red", ImageMark(), "what", ImageMark(), "blue")
    batch = processor()(images=[[picture(), picture(7)]], texts=[document])
    word = {w: TOKENIZER.id_of(w) for w in ("a", "red", "what", "blue")}
    wanted = [word["a"], word["red"], 4, 4, 4, word["what"], 4, 4, 4, 2, word["blue"], TOKENIZER.id_of("\n")]
    assert batch["tokens"].tolist() == [wanted]  # the start token comes after the last image
    front = processor()(images=[[picture(), picture(7)]], texts=[Pieces(ImageMark(), ImageMark(), "blue")])
    assert torch.equal(front["tokens"], processor()(images=[[picture(), picture(7)]], texts=["blue"])["tokens"])


def test_marks_and_images_agree_row_by_row():
    two, none = Pieces(ImageMark(), "a", ImageMark()), Pieces("a")
    for texts, images, said in (
        ([two, none], [[picture()], [picture()]], "prompt 0 has marks for 2 images and 1 image beside it"),
        ([none, two], [[], []], "prompt 1 has marks for 2 images and 0 images beside it"),
        ([none, Pieces(ImageMark(), "a")], [[], [picture()] * 2], "prompt 1 has marks for 1 image and 2 images beside"),
    ):
        with pytest.raises(BadText, match=said):
            processor()(images=images, texts=texts)
    with pytest.raises(BadText, match="text 0 holds 2 images: this model's texts have no place for images"):
        processor(TOWER)(images=picture(), texts=[two])
    with pytest.raises(BadText, match="answer 1 contains an image"):
        processor()(targets=["a", two])
    with pytest.raises(BadText, match="made of str, Control and ImageMark; got int"):
        Pieces("a", 3)


def test_pictures_in_one_array():
    array = np.zeros((2, 9, 7, 3), np.uint8)
    assert processor()(images=array)["pixels"].shape == (2, 3, 4, 6)
    assert processor()(images=array[0])["pixels"].shape == (1, 3, 4, 6)
    assert processor()(images=torch.zeros(2, 3, 9, 7))["pixels"].shape == (2, 3, 4, 6)


def test_text_alone_holds_no_placeholders():
    assert 4 not in processor()(texts=["a", "red"])["tokens"]


def test_fault_15_prompts_and_pictures_in_different_numbers():
    with pytest.raises(BadText, match="3 prompts for 2 rows of images"):
        processor()(images=[picture()] * 2, texts=["a"] * 3)
    with pytest.raises(UsageError, match="2 tokens, 1 targets"):
        processor()(images=[picture()] * 2, texts="a", targets="a")
    with pytest.raises(BadImage, match="mixed: row 1 differs"):
        processor()(images=[[picture()], picture()], texts="a")


def test_regions():
    batch = processor()(regions=[np.ones((2, 5), np.float32), torch.ones(3, 5)], texts=["a", "a"])
    assert batch["regions"].shape == (2, 3, 5)
    assert batch["region_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert processor()(regions=np.ones((2, 5)))["regions"].shape == (1, 2, 5)
    with pytest.raises(UsageError, match=r"\(R, D\)"):
        processor()(regions=[np.ones((2, 5)), np.ones((2, 4))])


def test_absent_files_are_named_when_they_are_needed(tmp_path):
    bare = load_processor(tmp_path, IMAGE, TOWER)
    with pytest.raises(MissingFile, match=r"preprocessor_config\.json"):
        bare(images=picture())
    for call in (lambda: bare(texts="a"), lambda: bare(targets="a"), lambda: bare.decode([[1]])):
        with pytest.raises(MissingFile, match=r"tokenizer\.json"):
            call()


@pytest.mark.parametrize("spec", [TOWER, WRITER])
def test_saved_and_loaded_again(tmp_path, spec):
    before = processor(spec)
    before.save(tmp_path / "new")
    after = load_processor(tmp_path / "new", ImageSpec(size=(1, 1)), spec)
    assert after.text is not None
    assert after.image is not None
    assert (after.image.spec, after.text.spec) == (IMAGE, spec)
    given = {"images": [picture()], "texts": ["a red circle, what?"], "targets": ["<loc0001> a"]}
    for name, tensor in before(**given).items():
        assert torch.equal(tensor, after(**given)[name])
    assert after.files() == before.files()
    if spec is WRITER:
        assert json.loads((tmp_path / "new" / "preprocessor_config.json").read_text())["image_seq_length"] == 3


def test_released_files_are_saved_byte_for_byte(tmp_path):
    clip_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 4,   "size": 4, "image_mean": [0,0,0]}')
    loaded = load_processor(tmp_path, IMAGE, TextSpec(context=77, pad_id=0, bos_id=517, eos_id=518, lower=True))
    loaded.save(tmp_path / "copy")
    for name in ("vocab.json", "merges.txt", "preprocessor_config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_files_win_over_the_systems_defaults(tmp_path):
    clip_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": 4, "size": 4, "image_mean": [0.25, 0.5, 0.5]}')
    config = {"pad_token": {"content": "<|endoftext|>"}, "bos_token": "<|endoftext|>", "model_max_length": 20}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "!", "eos_token": "<|startoftext|>"}')
    made = load_processor(tmp_path, IMAGE, TextSpec(context=77, pad_id=0, bos_id=None, eos_id=518))
    assert made.text is not None
    assert made.image is not None
    assert made.image.spec.mean == (0.25, 0.5, 0.5)
    # The settings win over the map, and roles that the system does not use stay unused.
    end = made.text.tokenizer.id_of("<|endoftext|>")
    assert made.text.spec == TextSpec(context=20, pad_id=end, bos_id=None, eos_id=end - 1)


def test_a_system_may_keep_its_own_ids(tmp_path):
    """GPT-2's files name one token for all roles, or none; VisualGPT begins with another."""
    clip_folder(tmp_path)
    own = TextSpec(context=77, pad_id=3, bos_id=4, eos_id=5, generates=True, own_ids=True)
    for config in (
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer"},
        {"add_bos_token": False},
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        assert load_processor(tmp_path, None, own).text.spec == own
        assert load_processor(tmp_path, None, replace(own, own_ids=False)).text.spec.bos_id is None


def test_a_text_is_never_longer_than_the_network_reads(tmp_path):
    bert_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"model_max_length": 1e30, "cls_token": "[CLS]", "sep_token": "[SEP]"}'
    )
    made = load_processor(tmp_path, None, TextSpec(context=8, pad_id=0, bos_id=0, eos_id=0))
    assert made.text is not None
    assert made.text.spec == TextSpec(context=8, pad_id=0, bos_id=2, eos_id=3)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    shorter = load_processor(tmp_path, None, TextSpec(context=8, pad_id=0)).text
    assert shorter is not None
    assert shorter.spec.context == 5


def test_added_tokens_are_there_again_after_saving(tmp_path):
    clip_folder(tmp_path)
    spec = TextSpec(context=8, pad_id=0, added_tokens=("<image>", "<|endofchunk|>"), vocab_size=521)
    made = load_processor(tmp_path, None, spec)
    made.save(tmp_path / "again")
    again = load_processor(tmp_path / "again", None, spec)
    for processor in (made, again):
        assert processor.text is not None
        tokenizer = processor.text.tokenizer
        assert (tokenizer.id_of("<image>"), tokenizer.id_of("<|endofchunk|>")) == (519, 520)
        assert tokenizer.vocab_size == 521


def test_open_clip_folders(tmp_path):
    clip_folder(tmp_path)
    text_cfg = {"context_length": 64, "hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize"}}
    preprocess = {"size": [4, 4], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"}
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": text_cfg}, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    made = load_processor(tmp_path, None, TextSpec(context=64, pad_id=0, clean=True))
    assert made.text is not None
    assert made.image is not None
    assert made.image.spec.size == (4, 4)
    assert made.text.spec == TextSpec(context=64, pad_id=0, clean=True, canonical=True, lower=True)
    assert "open_clip_config.json" not in made.files()
    text_cfg["tokenizer_kwargs"] = {"clean": "magic"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BadConfig, match="magic"):
        load_processor(tmp_path, None, TextSpec(context=64, pad_id=0))


def test_transformers_five_nests_the_image_processor(tmp_path):
    nested = {"image_processor": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 4, "width": 8}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested | {"processor_class": "SiglipProcessor"}))
    made = load_processor(tmp_path, IMAGE, None)
    assert made.image is not None
    assert made.image.spec.size == (4, 8)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "PaliGemmaProcessor", "image_seq_length": 3}')
    assert load_processor(tmp_path, IMAGE, None).image is None


def test_fault_23_a_tokenizer_of_another_model(tmp_path):
    clip_folder(tmp_path)
    load_processor(tmp_path, None, TextSpec(context=77, pad_id=0, vocab_size=519))
    with pytest.raises(BadCheckpoint, match="519 tokens and the weights have 100"):
        load_processor(tmp_path, None, TextSpec(context=77, pad_id=0, vocab_size=100))


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer_config.json", "open_clip_config.json"])
@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff"])
def test_damaged_settings_are_named(tmp_path, name, data):
    clip_folder(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises((BadConfig, BadCheckpoint), match=name.split("_")[0]):
        load_processor(tmp_path, None, TextSpec(context=77, pad_id=0))


def test_a_bad_picture_names_its_row():
    png = io.BytesIO()
    picture().save(png, "PNG")
    with pytest.raises(BadImage, match="1"):
        processor()(images=[png.getvalue(), b""], texts="a")
