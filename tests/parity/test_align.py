"""ALIGN against the reference on random weights, in float32, at odd sizes, with padding on either side."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import rebus
from rebus.core.errors import BadConfig
from rebus.models.contrastive import align, align_config

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

TEXT = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 67,
    "max_position_embeddings": 21,
}  # fmt: skip


def reference(width: float = 0.5, depth: float = 0.5, last: int = 160, vocab: int = 67):
    """A small `AlignModel`, every weight and statistic away from where it starts, and images that come out different:
    untrained BatchNorm layers make the same of them all."""
    config = transformers.AlignConfig(
        text_config={**TEXT, "vocab_size": vocab},
        vision_config={
            "width_coefficient": width, "depth_coefficient": depth, "image_size": 65, "hidden_dim": last,
        },
        projection_dim=last,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AlignModel(config).eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(value, std=0.1)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
        elif value.is_floating_point() and value.ndim:
            std = 0.25 if value.ndim < 2 or name.startswith("text") else (value[0].numel() / 2) ** -0.5
            mean = 1.0 if name.endswith(("bn.weight", "norm.weight")) else 0.0
            torch.nn.init.normal_(value, mean=mean, std=std)
    model.temperature.data.fill_(0.07)
    return model


@pytest.fixture(scope="module")
def pair():
    model = reference()
    cfg = align_config.read_transformers(model.config.to_dict())
    network = align.ALIGN(cfg).eval()
    ours = align.keys(cfg).to_ours(model.state_dict())
    network.load_state_dict({name: value.load() for name, value in ours.items()})
    return model, network


def tokens_and_mask():
    tokens = torch.randint(3, 67, (4, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(13) < torch.tensor([13, 4, 1, 9])[:, None]
    return tokens.masked_fill(~mask, 0), mask


@pytest.mark.parametrize("size", [(65, 65), (97, 74), (64, 33), (32, 32), (289, 289)])
def test_images_and_texts(pair, size):
    theirs, ours = pair
    pixels = 4 * torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(2))
    tokens, mask = tokens_and_mask()
    with torch.no_grad():
        wanted = theirs(pixel_values=pixels, input_ids=tokens, attention_mask=mask.long())
        found = ours(pixels, tokens, mask)
    assert wanted.image_embeds.std(0).max() > 1e-3  # images are told apart
    for a, b in [
        (found.image, wanted.image_embeds), (found.text, wanted.text_embeds), (found.logits, wanted.logits_per_image),
    ]:  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_texts_padded_on_the_left_are_those_that_the_reference_pads_on_the_right(pair):
    theirs, ours = pair
    tokens, mask = tokens_and_mask()
    left, real = torch.zeros_like(tokens), mask.flip(1)
    left[real] = tokens[mask]
    pixels = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        wanted = theirs(pixel_values=pixels, input_ids=tokens, attention_mask=mask.long()).text_embeds
        torch.testing.assert_close(ours.embed_text(left, real), wanted, atol=1e-4, rtol=0)


def test_stock_padding_would_not_do(pair):
    """What the released network was built with shows: TensorFlow's usual padding gives other numbers at 65 pixels."""
    _, ours = pair
    usual = align.ALIGN(replace(ours.cfg, image=replace(ours.cfg.image, padding="same"))).eval()
    usual.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        assert (usual.embed_image(pixels) - ours.embed_image(pixels)).abs().max() > 1e-2


@pytest.mark.parametrize(("width", "depth", "last"), [(1.2, 1.4, 384), (0.35, 0.4, 112)])
def test_every_scale_has_the_tensors_of_the_reference(width, depth, last):
    config = transformers.AlignConfig(
        text_config=TEXT, projection_dim=last,
        vision_config={"width_coefficient": width, "depth_coefficient": depth, "hidden_dim": last},
    )  # fmt: skip
    with torch.device("meta"):
        theirs = transformers.AlignModel(config).state_dict()
        cfg = align_config.read_transformers(config.to_dict())
        ours = align.ALIGN(cfg).state_dict()
    found = align.keys(cfg).to_theirs(ours)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: tuple(value.shape) for name, value in theirs.items()
    }
    assert align_config.read_transformers(align_config.write_transformers(cfg)) == cfg


def test_the_released_size_has_the_tensors_of_the_reference():
    """The hub's configuration states 640 for `hidden_dim`, the class 2560."""
    with torch.device("meta"):
        theirs = transformers.AlignModel(transformers.AlignConfig(vision_config={"hidden_dim": 640})).state_dict()
        ours = align.ALIGN(align.PRESETS["b7_base"]).state_dict()
    assert len(theirs) == 1394
    found = align.keys(align.PRESETS["b7_base"]).to_theirs(ours)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: tuple(value.shape) for name, value in theirs.items()
    }


def hub_layout(folder, model, name="AlignProcessor"):
    """A directory as transformers writes it, with the preprocessing that the released files state."""
    from transformers import AlignProcessor, BertTokenizerFast, EfficientNetImageProcessor

    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a red blue dog cat on the grass".split(), "##s"]
    (folder / "vocab.txt").write_text("\n".join(words))
    image = EfficientNetImageProcessor(
        size={"height": 78, "width": 78}, crop_size={"height": 65, "width": 65}, resample=2, do_center_crop=True,
        rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False,
    )  # fmt: skip
    processor = AlignProcessor(image, BertTokenizerFast(str(folder / "vocab.txt")))
    processor.save_pretrained(folder)
    for path in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        if path.exists():
            data = json.loads(path.read_text())
            path.write_text(json.dumps({**data, "processor_class": name}))
    return processor


@pytest.mark.parametrize("name", ["AlignProcessor", "ALIGNProcessor"])  # the released file has the latter
def test_a_directory_that_the_reference_wrote_loads_and_returns(tmp_path, name):
    model = reference(vocab=14)
    processor = hub_layout(tmp_path, model, name)
    ours = rebus.load(tmp_path, device="cpu")
    images = [Image.effect_mandelbrot((70, 91), (-2, -1.5, 1, 1.5), n).convert("RGB") for n in (5, 40, 90)]
    texts = ["a red dog", "cats on the grass", "blue"]
    inputs = processor(images=images, text=texts, return_tensors="pt", padding=True)
    found = ours.processor(images=images, texts=texts)
    assert found["pixels"].shape == (3, 3, 65, 65)
    torch.testing.assert_close(found["pixels"], inputs["pixel_values"], atol=1.01 / 127.5, rtol=0)  # a rounded byte
    assert torch.equal(found["tokens"], inputs["input_ids"])
    with torch.no_grad():
        wanted = model(**inputs)
        images_seen = ours.network.embed_image(inputs["pixel_values"])
    torch.testing.assert_close(images_seen, wanted.image_embeds, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.embed_texts(texts), wanted.text_embeds, atol=1e-4, rtol=0)
    scores = wanted.logits_per_image.softmax(1)
    for image, row in zip(images, scores, strict=True):
        found = ours.classify(image, texts, templates=("{}",))
        for label, score in found:
            assert score == pytest.approx(float(row[texts.index(label)]), abs=5e-3)
    ours.save(tmp_path / "ours")
    again, info = transformers.AlignModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for key, parameter in model.state_dict().items():
        assert again.state_dict()[key].equal(parameter), key


def test_what_the_reference_writes_is_read_and_what_changes_numbers_is_refused(tmp_path):
    config = transformers.AlignConfig(vision_config={"hidden_dim": 640})
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    full = json.loads(config.to_json_string(use_diff=False))
    cfg = align_config.read_transformers(saved)
    assert cfg == align_config.read_transformers(full)
    assert cfg.image.variant == "b7"
    assert cfg.embed == 640
    for part, field, value in [
        ("vision_config", "squeeze_expansion_ratio", 0.5),
        ("vision_config", "depthwise_padding", [5]),
        ("vision_config", "hidden_act", "relu"),
        ("text_config", "position_embedding_type", "relative_key"),
        ("text_config", "colour", "red"),
    ]:
        changed = json.loads(json.dumps(full))
        changed[part][field] = value
        with pytest.raises(BadConfig, match=rf"{part}.{field}"):
            align_config.read_transformers(changed)
    full["vision_config"]["width_coefficient"] = 0.25  # where the reference and the paper's network part ways
    with pytest.raises(BadConfig, match=r"width_coefficient: at a width multiplier of 0\.25"):
        align_config.read_transformers(full)
    full["vision_config"]["width_coefficient"] = 2.0
    with pytest.raises(BadConfig, match=r"projection_dim: .* 640; got 512"):
        align_config.read_transformers({**full, "projection_dim": 512})
