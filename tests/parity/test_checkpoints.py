"""Checkpoint directories of the reference libraries through `rebus.load` and back: equal logits, equal weights."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import rebus
from rebus import save_checkpoint
from rebus.weights.checkpoint_files import open_weights

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

TOWER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
WORDS = {**TOWER, "hidden_size": 20, "num_attention_heads": 2, "vocab_size": 61, "max_position_embeddings": 11}
EYES = {**TOWER, "image_size": 27, "patch_size": 8}  # three pixels on either side belong to no patch


@dataclass
class Case:
    """A reference network with random weights, a batch for ours, and the logits that the reference gives."""

    model: nn.Module
    batch: dict[str, Tensor]
    logits: Callable[[nn.Module], Tensor]


def shaken(model: nn.Module) -> nn.Module:
    """Every weight far from its initial value, norms and biases too, so that exchanged ones show."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def clip(act: str, end: int) -> Case:
    text = {**WORDS, "hidden_act": act, "eos_token_id": end, "bos_token_id": 59, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**EYES, "hidden_act": act}, projection_dim=14, logit_scale_init_value=1.5
    )
    tokens = torch.randint(3, 50, (4, 11))
    tokens[torch.arange(4), torch.tensor([10, 4, 7, 1])] = 60
    pixels = torch.randn(3, 3, 27, 27)
    return Case(
        shaken(transformers.CLIPModel(config)),
        {"pixels": pixels, "tokens": tokens},
        lambda model: model(input_ids=tokens, pixel_values=pixels).logits_per_image,
    )


def siglip() -> Case:
    text = {**WORDS, "projection_size": 24}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=EYES))
    tokens, pixels = torch.randint(0, 61, (4, 11)), torch.randn(3, 3, 27, 27)
    return Case(
        shaken(model),
        {"pixels": pixels, "tokens": tokens},
        lambda model: model(input_ids=tokens, pixel_values=pixels).logits_per_image,
    )


def siglip2() -> Case:
    text = {**WORDS, "projection_size": 24}
    eyes = {**TOWER, "patch_size": 4, "num_patches": 9}
    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=eyes))
    tokens, patches = torch.randint(0, 61, (4, 11)), torch.randn(3, 8, 48)
    grid = torch.tensor([[2, 4], [1, 5], [3, 2]])
    real = torch.arange(8) < grid.prod(1)[:, None]
    patches = patches * real[..., None]
    return Case(
        shaken(model),
        {"pixels": patches, "patch_mask": real, "grid": grid, "tokens": tokens},
        lambda model: (
            model(
                input_ids=tokens, pixel_values=patches, pixel_attention_mask=real.long(), spatial_shapes=grid
            ).logits_per_image
        ),
    )


def paligemma(kind: str, vocab: int = 96, query_scale: int = 5) -> Case:
    text = {
        "model_type": kind,
        "hidden_size": 20,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "intermediate_size": 36,
        "vocab_size": vocab,
    }
    config = transformers.PaliGemmaConfig(
        text_config=text | ({"query_pre_attn_scalar": query_scale} if kind == "gemma2" else {}),
        vision_config={**EYES, "vision_use_head": False, "projection_dim": 20, "model_type": "siglip_vision_model"},
        projection_dim=20,
        image_token_index=90,
    )
    model = shaken(transformers.PaliGemmaForConditionalGeneration(config))
    patches, prompt, answer = 9, 4, 5
    words = torch.randint(3, 89, (2, prompt))
    tokens = torch.cat([torch.full((2, patches), 90), words], dim=1)
    targets, pixels = torch.randint(3, 89, (2, answer)), torch.randn(2, 3, 27, 27)

    def logits(model: nn.Module) -> Tensor:
        ids = torch.cat([tokens, targets], dim=1)
        kinds = torch.cat([torch.zeros_like(tokens), torch.ones_like(targets)], dim=1)
        out = model(
            input_ids=ids,
            pixel_values=pixels,
            attention_mask=torch.ones_like(ids),
            token_type_ids=kinds,
            labels=ids.masked_fill(ids == 90, -100),  # without labels the suffix would see itself whole
        )
        return out.logits[:, tokens.shape[1] - 1 : -1]

    return Case(model, {"pixels": pixels, "tokens": tokens, "targets": targets}, logits)


CASES: dict[str, Callable[[], Case]] = {
    "clip quick_gelu, largest id": lambda: clip("quick_gelu", 2),
    "clip gelu, first end": lambda: clip("gelu", 60),
    "siglip": siglip,
    "siglip2 naflex": siglip2,
    "paligemma": lambda: paligemma("gemma"),
    "paligemma2": lambda: paligemma("gemma2"),
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]()


def close(ours: rebus.Model, case: Case) -> None:
    with torch.no_grad():
        torch.testing.assert_close(ours(**case.batch).logits, case.logits(case.model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
def test_a_directory_of_transformers_loads_with_equal_logits(case, shards, tmp_path):
    case.model.save_pretrained(tmp_path, max_shard_size="20KB" if shards else "5GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == shards
    close(rebus.load(tmp_path, device="cpu"), case)


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
def test_what_we_save_opens_in_transformers_with_equal_logits(case, shards, tmp_path, monkeypatch):
    case.model.save_pretrained(tmp_path / "theirs")
    ours = rebus.load(tmp_path / "theirs", device="cpu")
    if shards:
        save = save_checkpoint.save_directory
        monkeypatch.setattr(save_checkpoint, "save_directory", lambda *a, **k: save(*a, **k, shard_bytes=20_000))
    ours.save(tmp_path / "ours")
    assert (tmp_path / "ours" / "model.safetensors.index.json").exists() == shards
    again, info = type(case.model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for name, parameter in case.model.named_parameters():
        assert again.get_parameter(name).equal(parameter), name
    with torch.no_grad():
        torch.testing.assert_close(case.logits(again.eval()), case.logits(case.model), rtol=0, atol=1e-5)
    close(rebus.load(tmp_path / "ours", device="cpu"), case)


def test_names_as_the_reference_has_them_in_memory_load_too(case, tmp_path):
    case.model.save_pretrained(tmp_path)
    state = {name: t.contiguous() for name, t in case.model.state_dict().items() if name != "lm_head.weight"}
    (tmp_path / "model.safetensors").unlink()
    save_file(state, tmp_path / "model.safetensors")
    close(rebus.load(tmp_path, device="cpu"), case)


@pytest.mark.parametrize("name", ["paligemma", "paligemma2"])
def test_the_names_of_the_published_paligemma_files_load(name, tmp_path):
    torch.manual_seed(0)
    case = CASES[name]()
    case.model.save_pretrained(tmp_path)
    published = {}
    for key, tensor in case.model.state_dict().items():
        key = key.removeprefix("model.").replace("language_model.", "language_model.model.")
        key = key.replace("lm_head.", "language_model.lm_head.")
        if not key.startswith("vision_tower.vision_model."):
            key = key.replace("vision_tower.", "vision_tower.vision_model.")
        published[key] = tensor.clone()
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in published
    assert "language_model.lm_head.weight" in published
    (tmp_path / "model.safetensors").unlink()
    save_file(published, tmp_path / "model.safetensors")
    close(rebus.load(tmp_path, device="cpu"), case)


def test_pickled_weights_load_and_pickled_code_does_not(tmp_path):
    torch.manual_seed(0)
    case = CASES["siglip"]()
    case.model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    close(rebus.load(tmp_path, device="cpu"), case)
    torch.save({**state, "logit_bias": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(rebus.RebusError, match="nothing was run"):
        rebus.load(tmp_path, device="cpu")


def test_bfloat16_is_kept_and_float16_becomes_float32_on_a_cpu(case, tmp_path):
    for dtype, becomes in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        folder = tmp_path / str(dtype)
        copy.deepcopy(case.model).to(dtype).save_pretrained(folder)
        assert rebus.load(folder, device="cpu").dtype == becomes


def test_a_missing_or_foreign_weight_is_refused_by_name(tmp_path):
    CASES["siglip"]().model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    lost = "text_model.final_layer_norm.bias"
    path.unlink()
    save_file({name: t for name, t in whole.items() if name != lost}, path)
    with pytest.raises(rebus.RebusError, match=r"1 missing: text.norm.bias"):
        rebus.load(tmp_path, device="cpu")
    path.unlink()
    save_file({**whole, "text_model.extra.bias": torch.zeros(3)}, path)
    with pytest.raises(rebus.RebusError, match=r"text_model.extra.bias"):
        rebus.load(tmp_path, device="cpu")


def open_clip_folder(folder: Path, model: nn.Module, config: dict[str, Any]) -> Path:
    """As open_clip's `push_to_hf_hub` lays a directory out."""
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


OPEN_CLIP: dict[str, dict[str, Any]] = {
    "vit": {
        "embed_dim": 14,
        "vision_cfg": {"image_size": 24, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 11, "vocab_size": 61, "width": 20, "heads": 2, "layers": 2},
    },
    "vit quick_gelu": {
        "embed_dim": 14,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 24, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 11, "vocab_size": 61, "width": 20, "heads": 2, "layers": 2},
    },
    "vit, first end": {
        "embed_dim": 14,
        "vision_cfg": {"image_size": 24, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8},
        "text_cfg": {
            "context_length": 11,
            "vocab_size": 61,
            "width": 20,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": 5,
        },
    },
    "vit, sigmoid loss": {
        "embed_dim": 14,
        "init_logit_scale": 2.5,
        "init_logit_bias": -8,
        "vision_cfg": {"image_size": 24, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 11, "vocab_size": 61, "width": 20, "heads": 2, "layers": 2},
    },
    "resnet, narrow heads": {
        "embed_dim": 14,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None},
        "text_cfg": {"context_length": 11, "vocab_size": 61, "width": 20, "heads": 2, "layers": 2},
    },
    "resnet": {
        "embed_dim": 14,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 11, "vocab_size": 61, "width": 20, "heads": 2, "layers": 2},
    },
}


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_open_clip_directories_both_ways(name, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    config = OPEN_CLIP[name]
    torch.manual_seed(0)
    reference = shaken(open_clip.CLIP(**config))
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    ours = rebus.load(open_clip_folder(tmp_path / "theirs", reference, config), device="cpu")
    size = config["vision_cfg"]["image_size"]
    pixels, tokens = torch.randn(3, 3, size, size), torch.randint(6, 60, (4, 11))
    tokens[:, 3] = 5

    def logits(model: nn.Module) -> Tensor:
        image, text, scale, *bias = model(pixels, tokens)
        return scale * image @ text.T + sum(bias)

    with torch.no_grad():
        wanted = logits(reference)
        torch.testing.assert_close(ours(pixels=pixels, tokens=tokens).logits, wanted, rtol=0, atol=1e-4)
    ours.save(tmp_path / "ours", layout="open_clip")
    written = json.loads((tmp_path / "ours" / "open_clip_config.json").read_text())["model_cfg"]
    again = open_clip.CLIP(**written)
    again.load_state_dict(load_file(tmp_path / "ours" / "open_clip_model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(logits(again.eval()), wanted, rtol=0, atol=1e-5)
    assert set(open_weights(tmp_path / "ours")) == set(reference.state_dict())


def test_open_clip_siglip_with_a_timm_trunk_both_ways(tmp_path, monkeypatch):
    """The trunk is of a published size; only its layers are cut, in both libraries, to keep the test small."""
    open_clip = pytest.importorskip("open_clip")
    import timm.models.vision_transformer as vit

    from rebus.models.contrastive import siglip_config

    monkeypatch.setitem(siglip_config._TIMM, "base", (768, 1, 12, 3072))
    build = vit._create_vision_transformer
    monkeypatch.setattr(vit, "_create_vision_transformer", lambda *a, **k: build(*a, **{**k, "depth": 1}))
    config = {
        "embed_dim": 768,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_base_patch32_siglip_256",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 11,
            "vocab_size": 61,
            "width": 768,
            "heads": 12,
            "layers": 1,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        },
    }
    config["vision_cfg"]["image_size"] = 256

    def built(model_cfg: dict[str, Any]) -> nn.Module:
        return open_clip.CustomTextCLIP(**{k: v for k, v in model_cfg.items() if k != "custom_text"})

    torch.manual_seed(0)
    reference = shaken(built(config))
    ours = rebus.load(open_clip_folder(tmp_path / "theirs", reference, config), device="cpu")
    pixels, tokens = torch.randn(2, 3, 256, 256), torch.randint(1, 60, (3, 11))

    def logits(model: nn.Module) -> Tensor:
        image, text, scale, bias = model(pixels, tokens)
        return scale * image @ text.T + bias

    with torch.no_grad():
        wanted = logits(reference)
        torch.testing.assert_close(ours(pixels=pixels, tokens=tokens).logits, wanted, rtol=0, atol=1e-4)
    ours.save(tmp_path / "ours", layout="open_clip")
    written = json.loads((tmp_path / "ours" / "open_clip_config.json").read_text())["model_cfg"]
    again = built(written)
    again.load_state_dict(load_file(tmp_path / "ours" / "open_clip_model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(logits(again.eval()), wanted, rtol=0, atol=1e-5)


def test_clip_goes_to_open_clip_and_back_without_a_loss(tmp_path):
    """A conversion on the disk, through us, there and back."""
    model = shaken(transformers.CLIPModel(clip("gelu", 2).model.config))
    model.save_pretrained(tmp_path / "a")
    rebus.load(tmp_path / "a", device="cpu").save(tmp_path / "b", layout="open_clip")
    rebus.load(tmp_path / "b", device="cpu").save(tmp_path / "c")
    again = load_file(tmp_path / "c" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "a" / "model.safetensors").items():
        assert again[name].equal(tensor), name


@pytest.mark.parametrize("size", [24, 48, 80])
def test_positions_of_open_clip_files_are_resized_with_antialias(size: int, tmp_path: Path) -> None:
    """Towards fewer patches a table is smoothed, as an image is; transformers' files are resized without."""
    open_clip = pytest.importorskip("open_clip")
    from open_clip.model import resize_pos_embed

    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
    text = {"context_length": 11, "vocab_size": 61, "width": 32, "heads": 2, "layers": 1}
    model = shaken(open_clip.CLIP(48, vision, text))
    config = {"model_cfg": {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    other, state = open_clip.CLIP(48, {**vision, "image_size": size}, text).eval(), model.state_dict()
    resize_pos_embed(state, other)
    other.load_state_dict(state)
    network, pixels = rebus.load(tmp_path).network, torch.randn(2, 3, size, size)
    expected = other.encode_image(pixels, normalize=True)
    torch.testing.assert_close(network.embed_image(pixels), expected, rtol=1e-4, atol=1e-5)
    if size < 64:
        network.image.antialias = False
        assert float((network.embed_image(pixels) - expected).abs().max()) > 1e-3


def test_words_of_textual_inversion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A plain word is read as the reference reads it; one that looks like a control token is asked for as one."""
    from rebus.codec.text import Control, Pieces
    from tests.codec.vocabularies import clip_folder

    ends = {"bos_token": "<|startoftext|>", **dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, **ends}
    (clip_folder(tmp_path) / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    last = len(tokenizer) - 1
    tokenizer.add_tokens(["<cat-toy>", "sks"])
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    text |= {"eos_token_id": last, "bos_token_id": last - 1, "pad_token_id": last}
    model = shaken(transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=EYES)))
    model.save_pretrained(tmp_path / "out")
    tokenizer.save_pretrained(tmp_path / "out")
    ours = rebus.load(tmp_path / "out")

    def expected(text: str) -> Tensor:
        found = model.get_text_features(**tokenizer([text], padding="max_length", return_tensors="pt"))
        return nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1).detach()

    torch.testing.assert_close(ours.embed_texts(["a sks dog"]), expected("a sks dog"), rtol=1e-4, atol=1e-5)
    toy = ours.embed_texts([Pieces("a ", Control("<cat-toy>"), " dog")])
    torch.testing.assert_close(toy, expected("a <cat-toy> dog"), rtol=1e-4, atol=1e-5)
    assert "cat-toy" not in caplog.text
    assert float((ours.embed_texts(["a <cat-toy> dog"]) - toy).abs().max()) > 1e-3
    ours.embed_texts(["a <cat-toy> dog"])
    (said,) = (record.message for record in caplog.records if "cat-toy" in record.message)
    assert "Control('<cat-toy>')" in said
