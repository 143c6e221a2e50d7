"""Networks against the reference on random tiny weights, in float32, on odd sizes, with padding."""

import pytest
import torch
from torch import nn

from rebus.backbones.text.gemma import Gemma, GemmaConfig
from rebus.models.contrastive import clip, siglip
from rebus.models.unified import paligemma

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def randomise(model, std=0.25):
    torch.manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, std=std)
    return model.eval()


def fill(network, keys, reference):
    rows = {name: row.load() for name, row in keys.to_ours(reference.state_dict()).items()}
    network.load_state_dict(rows)
    return network.eval()


@pytest.mark.parametrize(("act", "end"), [("quick_gelu", 2), ("gelu", 90)])
def test_clip(act, end):
    """Both activations and both conventions for the end: the largest id (written as 2), or a given one."""
    shared = {"intermediate_size": 48, "num_hidden_layers": 2, "hidden_act": act}
    config = transformers.CLIPConfig(
        text_config={
            **shared,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "vocab_size": 99,
            "max_position_embeddings": 13,
            "eos_token_id": end,
            "bos_token_id": 0,
        },
        vision_config={**shared, "hidden_size": 40, "num_attention_heads": 5, "image_size": 33, "patch_size": 10},
        projection_dim=24,
    )
    reference = randomise(transformers.CLIPModel(config))
    network = fill(clip.CLIP(clip.read_transformers(config.to_dict())), clip.KEYS, reference)
    tokens = torch.randint(3, 90, (4, 13))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    for row, at in enumerate((12, 5, 8, 3)):
        tokens[row, at], tokens[row, at + 1 :] = (90, 90) if end == 90 else (98, 0)
        mask[row, at + 1 :] = False
    pixels = torch.randn(3, 3, 33, 33)
    with torch.no_grad():
        theirs = reference(pixel_values=pixels, input_ids=tokens, attention_mask=mask.long())
        ours = network(pixels, tokens, mask)
        left = torch.stack([torch.cat([row[~real], row[real]]) for row, real in zip(tokens, mask, strict=True)])
        moved = network.embed_text(left, mask.flip(1))
    torch.testing.assert_close(ours.logits, theirs.logits_per_image, **CLOSE)
    torch.testing.assert_close(ours.text, theirs.text_embeds, **CLOSE)
    torch.testing.assert_close(moved, ours.text, **CLOSE)


def test_clip_at_another_resolution():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**vision, "vocab_size": 99, "eos_token_id": 2, "bos_token_id": 0},
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    reference = randomise(transformers.CLIPModel(config))
    network = fill(clip.CLIP(clip.read_transformers(config.to_dict())), clip.KEYS, reference)
    pixels = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        theirs = reference.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True)
        theirs = theirs if isinstance(theirs, torch.Tensor) else theirs.pooler_output
        ours = network.embed_image(pixels)
    torch.testing.assert_close(ours, nn.functional.normalize(theirs, dim=-1), **CLOSE)


SIGLIP_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 13,
    "projection_size": 40,
}
SIGLIP_VISION = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 5}


def test_siglip():
    config = transformers.SiglipConfig(
        text_config=SIGLIP_TEXT, vision_config={**SIGLIP_VISION, "image_size": 33, "patch_size": 10}
    )
    reference = randomise(transformers.SiglipModel(config))
    network = fill(siglip.SigLIP(siglip.read_transformers(config.to_dict())), siglip.KEYS, reference)
    pixels, tokens = torch.randn(3, 3, 33, 33), torch.randint(0, 90, (4, 13))
    with torch.no_grad():
        theirs, ours = reference(pixel_values=pixels, input_ids=tokens), network(pixels, tokens)
    torch.testing.assert_close(ours.logits, theirs.logits_per_image, **CLOSE)
    torch.testing.assert_close(ours.image, theirs.image_embeds, **CLOSE)


def test_siglip2_naflex():
    """Images of several shapes in a batch, as the reference's processor cuts them; padding changes nothing."""
    config = transformers.Siglip2Config(
        text_config=SIGLIP_TEXT, vision_config={**SIGLIP_VISION, "num_patches": 16, "patch_size": 4}
    )
    reference = randomise(transformers.Siglip2Model(config))
    network = fill(siglip.SigLIP(siglip.read_transformers(config.to_dict())), siglip.KEYS, reference)
    processor = transformers.Siglip2ImageProcessorPil(patch_size=4, max_num_patches=20)
    pictures = [
        torch.randint(0, 256, (3, *sides), dtype=torch.uint8).permute(1, 2, 0).numpy()
        for sides in ((16, 16), (9, 40), (31, 12))
    ]
    batch = processor(pictures, return_tensors="pt")
    tokens = torch.randint(0, 90, (2, 13))
    real, grid = batch["pixel_attention_mask"].bool(), batch["spatial_shapes"]
    assert not real.all()
    with torch.no_grad():
        theirs = reference(input_ids=tokens, **batch)
        ours = network(batch["pixel_values"], tokens, patch_mask=real, grid=grid)
        alone = network.embed_image(batch["pixel_values"][1:2, : real[1].sum()], None, grid[1:2])
    torch.testing.assert_close(ours.logits, theirs.logits_per_image, **CLOSE)
    torch.testing.assert_close(ours.image, theirs.image_embeds, **CLOSE)
    torch.testing.assert_close(ours.image[1:2], alone, **CLOSE)


@pytest.fixture(scope="module", params=["gemma", "gemma2"])
def paligemmas(request):
    second = request.param == "gemma2"
    config = transformers.PaliGemmaConfig(
        text_config={
            "model_type": request.param,
            "hidden_size": 36,
            "intermediate_size": 52,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2 if second else 1,
            "head_dim": 10,
            "vocab_size": 99,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 31,
            "patch_size": 10,
        },
        image_token_index=98,
        projection_dim=36,
    )
    reference = randomise(transformers.PaliGemmaForConditionalGeneration(config))
    ours = paligemma.read_transformers(config.to_dict())
    return reference, fill(paligemma.PaliGemma(ours), paligemma.keys(ours), reference)


@pytest.mark.parametrize("side", ["left", "right"])
def test_paligemma(paligemmas, side):
    """Padded rows of several lengths equal the reference on each row alone; the cache equals the whole sequence."""
    reference, network = paligemmas
    generator = torch.Generator().manual_seed(1)
    lengths, num_patches = (7, 4, 5), 9
    tokens = torch.zeros(3, num_patches + 7, dtype=torch.int64)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for row, length in enumerate(lengths):
        words = torch.randint(3, 95, (length,), generator=generator)
        whole = torch.cat([torch.full((num_patches,), 98), words])
        at = slice(tokens.shape[1] - len(whole), None) if side == "left" else slice(0, len(whole))
        tokens[row, at], mask[row, at] = whole, True
    targets = torch.randint(3, 95, (3, 6), generator=generator)
    targets[1, 4:] = -100
    pixels = torch.randn(3, 3, 31, 31, generator=generator)
    with torch.no_grad():
        ours = network(pixels=pixels, tokens=tokens, mask=mask, targets=targets).logits
        for row, length in enumerate(lengths):
            given = targets[row][targets[row] >= 0][:-1]
            sequence = torch.cat([tokens[row][mask[row]], given])[None]
            kinds = torch.cat([torch.zeros(num_patches + length), torch.ones(len(given))]).long()[None]
            theirs = reference(
                pixel_values=pixels[row : row + 1],
                input_ids=sequence,
                token_type_ids=kinds,
                attention_mask=torch.ones_like(sequence),
            ).logits[0, num_patches + length - 1 :]
            torch.testing.assert_close(ours[row, : len(theirs)], theirs, **CLOSE)
        step = network.start(room=5, pixels=pixels, tokens=tokens, mask=mask)
        for at in range(4):
            torch.testing.assert_close(step.logits[0], ours[0, at], **CLOSE)
            step = network.step(targets[:, at].clamp(min=0), step.cache)


@pytest.mark.parametrize(("generation", "window"), [(1, None), (2, None), (2, 3)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gemma_as_a_language_model(generation, window, side):
    shared = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "vocab_size": 50,
        "attn_implementation": "eager",
    }
    second = {"sliding_window": window or 64, "query_pre_attn_scalar": 20} if generation == 2 else {}
    kind = transformers.Gemma2ForCausalLM if generation == 2 else transformers.GemmaForCausalLM
    reference = randomise(kind(kind.config_class(**shared, **second)))
    caps = {"score_cap": 50.0, "logit_cap": 30.0, "query_scale": 20.0, "window": window} if generation == 2 else {}
    cfg = GemmaConfig(
        generation=generation, width=32, num_layers=3, num_heads=4, num_kv_heads=2, head_width=10, mlp_width=48,
        vocab_size=50, **caps,
    )  # fmt: skip
    keys = paligemma.keys(paligemma.PaliGemmaConfig(text=cfg))
    theirs = {f"language_model.{name}": row for name, row in reference.state_dict().items()}
    rows = {name.removeprefix("text."): row.load() for name, row in keys.to_ours(theirs).items()}
    network = Gemma(cfg).eval()
    network.load_state_dict(rows)
    tokens = torch.randint(0, 50, (2, 9))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, slice(0, 3) if side == "left" else slice(6, 9)] = False
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = reference(input_ids=tokens, attention_mask=mask.long(), position_ids=positions).logits
        found = network(tokens, mask)
    torch.testing.assert_close(found[mask], expected[mask], **CLOSE)
