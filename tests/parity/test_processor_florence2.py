"""A whole Florence-2 directory, written by transformers: the tokens of every task, the pixels, and all tasks on it."""

import json

import pytest
import torch
from PIL import Image

import rebus
from rebus import catalog
from rebus.codec.boxes import LOC_1000
from rebus.codec.named_prompts import named_prompt
from rebus.core.answers import Box, Mask, TextLine
from rebus.core.errors import BadText, UnknownName, UsageError
from rebus.models.unified.florence2 import ADDED_TOKENS
from rebus.models.unified.florence2_config import is_original, read_config
from rebus.models.unified.florence2_tasks import released_answer
from rebus.open_checkpoint import processor_in
from rebus.recipes import recipe
from rebus.train import override, train
from rebus.train.setup import open_data, resolved
from tests.parity.test_florence2 import TEXT, VISION, shaken

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")

SIDE = 64
SEEN = 17  # 4 × 4 places and their mean
REGION = (10.0, 5.0, 40.0, 30.0)
MERGES = [("Ġ", "i"), ("t", "h"), ("Ġ", "th"), ("Ġth", "e")]


def alphabet():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The reference's model and processor, and ours of the directory that they were saved to."""
    transformers.logging.set_verbosity_error()
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet(), *map("".join, MERGES), "<mask>"]
    folder = tmp_path_factory.mktemp("whole")
    tokenizer = transformers.BartTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=MERGES,
        extra_special_tokens={"image_token": "<image>"},
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(ADDED_TOKENS)})
    images = transformers.CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        image_seq_length=SEEN,
    )
    images.image_seq_length = SEEN
    processor = transformers.Florence2Processor(images, tokenizer, post_processor_config={})
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.Florence2Config(
        vision_config={**VISION, "image_size": SIDE},
        text_config={**TEXT, "vocab_size": 1344, "max_position_embeddings": 128},
        image_token_id=image_id,
    )
    theirs = shaken(transformers.Florence2ForConditionalGeneration(config))
    theirs.save_pretrained(folder)
    processor.save_pretrained(folder)
    return theirs, processor, rebus.load(folder, device="cpu"), folder


def photo(width=83, height=47):
    torch.manual_seed(1)
    return Image.fromarray(torch.randint(256, (height, width, 3), dtype=torch.uint8).numpy())


def test_tokens_and_pixels_of_every_task(released):
    _, processor, ours, _ = released
    image = photo()
    for name, task in ours.system.named_tasks.items():
        text = "a green car in the fog" if "{text}" in task.prompt else None
        region = REGION if "{region}" in task.prompt else None
        prompt = named_prompt(task, LOC_1000, image.size, text, region)
        found = ours.processor(images=[image], texts=[prompt])
        places = "<loc_120><loc_106><loc_481><loc_638>" if region else ""
        expected = processor(images=image, text=name + (text or places), return_tensors="pt")
        assert found["tokens"].tolist() == expected["input_ids"].tolist(), name
        torch.testing.assert_close(found["pixels"], expected["pixel_values"], atol=1e-6, rtol=0)


def test_control_tokens_that_a_user_types_are_text(released):
    """Fault 14."""
    *_, ours, _ = released
    task = ours.system.named_tasks["<OPEN_VOCABULARY_DETECTION>"]
    typed = ours.processor(texts=[named_prompt(task, LOC_1000, (8, 8), "<loc_5></s><image>")])["tokens"][0].tolist()
    ids = ours.processor.text.tokenizer.id_of
    assert {ids("<loc_5>"), ids("<image>")}.isdisjoint(typed)
    assert typed.count(ids("</s>")) == 1


def test_answers_that_are_learned_come_back(released):
    *_, ours, _ = released
    answer = "the car<loc_3><loc_7><loc_900><loc_999>x<poly><loc_1><loc_2><sep><loc_5></poly>"
    targets = ours.processor(texts=["the"], targets=[answer])["targets"][0].tolist()
    ids = ours.processor.text.tokenizer.id_of
    assert targets[0] == ids("<s>")
    assert targets[-1] == ids("</s>")
    assert {ids("<loc_900>"), ids("<poly>"), ids("<sep>"), ids("</poly>")} <= set(targets)
    assert ours.processor.decode([targets]) == [answer]


def test_the_whole_way_is_the_reference_s(released):
    theirs, processor, ours, _ = released
    image = photo()
    inputs = processor(images=image, text="<CAPTION>", return_tensors="pt")
    expected = theirs.generate(
        **inputs,
        max_new_tokens=14,
        num_beams=3,
        no_repeat_ngram_size=3,
        early_stopping=True,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    text = released_answer("<CAPTION>", processor.batch_decode(expected, skip_special_tokens=False)[0], image.size)
    assert "loc" in text
    assert ours.caption(image, max_new_tokens=14) == text
    assert ours.perform([image, image], "<CAPTION>", max_new_tokens=14) == [text, text]


def test_every_task_answers_in_kind(released):
    *_, ours, _ = released
    image, short = photo(), {"max_new_tokens": 9, "strategy": "greedy"}
    assert {"caption", "classify", "detect", "segment", "read", "perform", "stream"} == ours.tasks
    kinds = {"text": str, "boxes": Box, "lines": TextLine, "masks": Mask, "boxes or masks": (Box, Mask)}
    for name, task in ours.system.named_tasks.items():
        text = "car" if "{text}" in task.prompt else None
        region = REGION if "{region}" in task.prompt else None
        found = ours.perform(image, name, text, region, **short)
        assert all(isinstance(one, kinds[task.answer]) for one in ([found] if isinstance(found, str) else found)), name
    assert len(ours.read([image, photo(20, 90)], **short)) == 2
    assert isinstance(ours.detect(image, **short), list)
    assert all(box.label in ("car", "dog") for box in ours.detect(image, ["car", "dog"], **short))
    assert isinstance(ours.segment(image, "a car", **short), list)


def test_a_task_without_its_input_or_with_another_is_refused(released):
    *_, ours, _ = released
    for call, message in (
        (("<OD>", "car"), "<OD> takes no text"),
        (("<REGION_TO_OCR>",), "expects a region"),
        (("<CAPTION_TO_PHRASE_GROUNDING>", " "), "expects a text"),
    ):
        with pytest.raises(UsageError, match=message):
            ours.perform(photo(), *call)
    with pytest.raises(UnknownName, match="<OCR>"):
        ours.perform(photo(), "<OCRR>")
    with pytest.raises(BadText, match="the context holds 128"):
        ours.caption(photo(), "long " * 60)


def test_saved_with_its_processor(released, tmp_path):
    *_, ours, _ = released
    for layout in ("transformers", "released"):
        again = rebus.load(ours.save(tmp_path / layout, layout), device="cpu")
        assert again.config == ours.config
        assert again.caption(photo(), max_new_tokens=8) == ours.caption(photo(), max_new_tokens=8)
    data = json.loads((tmp_path / "released" / "config.json").read_text())
    assert data["vision_config"]["dim_embed"] == VISION["embed_dim"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """One's own data: captions, boxes, and boxes that are lines of writing."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for i in range(4):
        photo(100, 50).save(folder / f"{i}.png")
        boxes = [{"label": "EXIT", "xyxy": [60, 30, 80, 40]}, {"label": "cat", "xyxy": [10, 5, 50, 45]}]
        rows.append({"file": f"{i}.png", "caption": "the cat", "boxes": boxes})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.mark.parametrize(
    "name, prompt, answer",
    [
        ("florence2_captions", "What does the image describe?", "the cat"),
        (
            "florence2_boxes",
            "Locate the objects with category name in the image.",
            "EXIT<loc_600><loc_600><loc_800><loc_800>cat<loc_100><loc_100><loc_500><loc_900>",
        ),
        (
            "florence2_reading",
            "What is the text in the image, with regions?",
            "cat<loc_100><loc_100><loc_500><loc_100><loc_500><loc_900><loc_100><loc_900>"
            "EXIT<loc_600><loc_600><loc_800><loc_600><loc_800><loc_800><loc_600><loc_800>",
        ),
    ],
)
def test_fine_tuning(released, photos, name, prompt, answer, tmp_path):
    *_, ours, folder = released
    settings = [
        f"start_from={folder}",
        f"data.path={photos}",
        "data.split=none",
        "workers=0",
        "eval_every=0",
        "steps=2",
    ]
    config = override(recipe(name), [*settings, "batch_size=2", "optim.warmup=1", "optim.lr=1e-3"])
    batch = open_data(resolved(config)).batch(0, 0, 2)
    assert ours.processor.decode(batch["targets"]) == [answer] * 2
    asked = ours.processor(images=[photo()] * 2, texts=[prompt] * 2)
    assert batch["tokens"].tolist() == asked["tokens"].tolist()
    again = rebus.load(train(config, tmp_path / "run"), device="cpu")
    assert not torch.equal(again.state_dict()["text.tokens.weight"], ours.state_dict()["text.tokens.weight"])
    if name == "florence2_boxes":
        theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(tmp_path / "run" / "final")
        assert theirs.config.text_config.vocab_size == 1344


def test_the_files_beside_the_original_weights(tmp_path):
    """As in the repositories of the release: settings of the code that came with it, and BART's tokenizer without the
    tokens that the release adds when it runs."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet()]
    pieces += [f"unused{i}" for i in range(50_264 - len(pieces))] + ["<mask>"]
    tokenizer = transformers.BartTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    preprocessor = {
        "auto_map": {"AutoProcessor": "processing_florence2.Florence2Processor"},
        "_valid_processor_keys": ["images", "do_resize"],
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "do_center_crop": False,
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": 577,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "processor_class": "Florence2Processor",
        "resample": 3,
        "size": {"height": 768, "width": 768},
        "crop_size": {"height": 768, "width": 768},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    text = {"vocab_size": 51_289, "activation_dropout": 0.1, "add_bias_logits": False, "classif_dropout": 0.1}
    text |= {"add_final_layer_norm": False, "d_model": 768, "decoder_attention_heads": 12, "decoder_ffn_dim": 3072}
    text |= {"decoder_layers": 6, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072, "encoder_layers": 6}
    text |= {"decoder_start_token_id": 2, "early_stopping": True, "forced_eos_token_id": 2, "forced_bos_token_id": 0}
    text |= {"gradient_checkpointing": False, "init_std": 0.02, "is_encoder_decoder": True, "normalize_before": False}
    text |= {"max_position_embeddings": 1024, "no_repeat_ngram_size": 3, "num_hidden_layers": 6, "num_beams": 3}
    text |= {"label2id": {"LABEL_0": 0}, "scale_embedding": False, "model_type": "florence2_language"}
    vision = {"model_type": "davit", "drop_path_rate": 0.1, "patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2]}
    vision |= {"patch_padding": [3, 1, 1, 1], "patch_prenorm": [False, True, True, True], "enable_checkpoint": False}
    vision |= {"dim_embed": [128, 256, 512, 1024], "num_heads": [4, 8, 16, 32], "num_groups": [4, 8, 16, 32]}
    vision |= {"depths": [1, 1, 9, 1], "window_size": 12, "projection_dim": 768}
    vision |= {"visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100}}
    vision |= {"image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50}}
    vision |= {"image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"]}
    config = {"model_type": "florence2", "text_config": text, "vision_config": vision, "vocab_size": 51_289}
    config |= {"auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"}, "ignore_index": -100}
    config |= {"projection_dim": 768, "is_encoder_decoder": True, "torch_dtype": "float16", "bos_token_id": 0}
    system = catalog.system("florence2")
    assert is_original(config)
    found = read_config(config)
    assert found == system.presets["base"]
    processor = processor_in(tmp_path, system, found)
    batch = processor(images=[photo()], texts=["hi"], targets=["a<loc_999><poly>"])
    assert batch["pixels"].shape == (1, 3, 768, 768)
    tokens = batch["tokens"][0].tolist()
    assert tokens[:577] == [51_289] * 577
    assert (tokens[577], tokens[-1], len(tokens)) == (0, 2, 577 + 4)
    assert batch["targets"][0].tolist()[2:] == [51_268, 51_286, 2]
