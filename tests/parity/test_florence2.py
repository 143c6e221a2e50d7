"""Florence-2 and DaViT against transformers on random weights, in float32."""

import pytest
import torch

import rebus
from rebus.core.errors import BadCheckpoint, BadImage
from rebus.open_checkpoint import open_checkpoint

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")

IMAGE, PAD, BOS, EOS, VOCAB = 95, 1, 0, 2, 96
VISION = {
    "depths": [1, 2, 1],
    "patch_size": [7, 3, 3],
    "patch_stride": [4, 2, 2],
    "patch_padding": [3, 1, 1],
    "patch_prenorm": [False, True, True],
    "embed_dim": [16, 24, 32],
    "num_heads": [2, 3, 4],
    "num_groups": [2, 4, 4],
    "window_size": 3,
    "projection_dim": 24,
    "max_position_embeddings": 7,
    "max_temporal_embeddings": 9,
}
TEXT = {
    "model_type": "bart",
    "vocab_size": VOCAB,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "forced_bos_token_id": BOS,
}


def shaken(network, size=0.3):
    """Weights away from zeros and ones, so that every one matters."""
    torch.manual_seed(3)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * size)
    return network.eval()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    transformers.logging.set_verbosity_error()
    config = transformers.Florence2Config(vision_config=VISION, text_config=TEXT, image_token_id=IMAGE)
    theirs = shaken(transformers.Florence2ForConditionalGeneration(config))
    folder = tmp_path_factory.mktemp("florence2")
    theirs.save_pretrained(folder)
    return theirs, rebus.load(folder, device="cpu"), folder


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def prompts(num_image_tokens, side):
    """Three prompts of several lengths, padded on one side."""
    words = [[BOS, 15, 33, 40, EOS], [BOS, 61, 5, 7, 8, 9, EOS], [BOS, EOS]]
    longest = max(map(len, words))
    rows, masks = [], []
    for row in words:
        row, gap = [IMAGE] * num_image_tokens + row, longest - len(row)
        padding, real = [PAD] * gap, [True] * len(row)
        rows.append(padding + row if side == "left" else row + padding)
        masks.append([False] * gap + real if side == "left" else real + [False] * gap)
    return torch.tensor(rows), torch.tensor(masks)


@pytest.mark.parametrize("height, width", [(64, 64), (61, 83), (33, 100), (7, 40)])
def test_davit_alone(models, height, width, tmp_path):
    theirs = models[0].model.vision_tower
    pixels = noise(2, 3, height, width)
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state
        found = models[1].network.image(pixels)
        torch.testing.assert_close(found.permute(0, 3, 1, 2), expected, atol=1e-4, rtol=0)
    if height == 64:
        theirs.save_pretrained(tmp_path / "davit")
        opened = open_checkpoint(tmp_path / "davit")
        network = opened.system.build(opened.config).eval()
        network.load_state_dict({name: tensor.load() for name, tensor in opened.tensors.items()})
        with torch.no_grad():
            assert torch.equal(network(pixels), found)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("height, width", [(64, 64), (61, 83)])
def test_logits(models, height, width, side):
    theirs, ours, _ = models
    pixels = noise(3, 3, height, width)
    with torch.no_grad():
        seen = theirs.get_image_features(pixels).pooler_output
        torch.testing.assert_close(ours.network.see(pixels), seen, atol=1e-4, rtol=0)
        tokens, mask = prompts(seen.shape[1], side)
        targets = torch.tensor([[BOS, 5, 9, EOS], [BOS, 77, EOS, -100], [BOS, EOS, -100, -100]])
        found = ours(pixels=pixels, tokens=tokens, mask=mask, targets=targets).logits
        for row in range(3):  # alone: the reference counts padding on the left as positions
            expected = theirs(
                input_ids=tokens[row][mask[row]][None],
                pixel_values=pixels[row : row + 1],
                labels=targets[row : row + 1],
            ).logits
            real = targets[row] != -100
            torch.testing.assert_close(found[row, real], expected[0, real], atol=1e-4, rtol=0)


def test_the_loss_is_the_reference_s_for_answers_of_one_length(models):
    theirs, ours, _ = models
    pixels = noise(3, 3, 64, 64)
    tokens, mask = prompts(ours.network.see(pixels).shape[1], "right")
    targets = torch.tensor([[BOS, 5, 9, EOS], [BOS, 77, 4, EOS], [BOS, 8, 8, EOS]])
    from rebus.objectives import NextTokenLoss

    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=mask.long(), pixel_values=pixels, labels=targets).loss
        found = NextTokenLoss()(ours.network, {"pixels": pixels, "tokens": tokens, "mask": mask, "targets": targets})
    torch.testing.assert_close(found.total, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["transformers", "released"])
def test_saved_again(models, layout, tmp_path):
    theirs, ours, _ = models
    folder = ours.save(tmp_path / layout, layout)
    opened = open_checkpoint(folder)
    assert opened.layout.name == layout
    assert opened.config == ours.config
    for name, tensor in ours.state_dict().items():
        assert torch.equal(opened.tensors[name].load(), tensor), name
    if layout == "transformers":
        again = transformers.Florence2ForConditionalGeneration.from_pretrained(folder).eval()
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_the_original_layout_with_the_table_twice_and_zero_biases(models, tmp_path):
    """As the launch files are: four names of one table, and a bias of the logits that is never used."""
    from safetensors.torch import load_file, save_file

    _, ours, _ = models
    folder = ours.save(tmp_path / "released", "released")
    weights = load_file(folder / "model.safetensors")
    assert weights["image_projection"].shape == (32, 24)  # in, out
    assert "vision_tower.blocks.1.1.channel_block.channel_attn.fn.qkv.weight" in weights
    table = weights.pop("language_model.model.shared.weight")
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        weights[f"language_model.{name}.weight"] = table.clone()
    weights["language_model.final_logits_bias"] = torch.zeros(1, VOCAB)
    save_file(weights, folder / "model.safetensors")
    for manifest in folder.glob("*manifest*"):
        manifest.unlink()
    opened = open_checkpoint(folder)
    assert torch.equal(opened.tensors["text.tokens.weight"].load(), table)
    weights["language_model.lm_head.weight"] = table + 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match="are tied in this model, and differ in this file"):
        open_checkpoint(folder)


def test_images_with_more_places_than_positions_are_refused(models):
    with pytest.raises(BadImage, match="positions for 7 × 7"):
        models[1].network.see(noise(1, 3, 64, 130))


def test_tokens_of_the_release_have_their_ids():
    from rebus.models.unified.florence2 import ADDED_TOKENS, RELEASED_IMAGE_ID

    ids = {name: 50_265 + i for i, name in enumerate(ADDED_TOKENS)}
    expected = {"<od>": 50265, "<loc_0>": 50269, "<loc_999>": 51268, "<cap>": 51269, "<sep>": 51279, "<poly>": 51286}
    assert {name: ids[name] for name in expected} == expected
    assert ids["</poly>"] == 51287
    assert ids["<and>"] == 51288
    assert ids["<image>"] == RELEASED_IMAGE_ID
    assert len(ids) == 1025


def test_a_release_whose_placeholder_is_no_token_is_written_for_transformers(models, tmp_path):
    from dataclasses import replace

    from rebus.save_checkpoint import save_checkpoint

    system, tiny = models[1].system, models[1].system.presets["tiny"]
    config = replace(tiny, image_id=101)
    torch.manual_seed(0)
    network = shaken(system.build(config))
    folder = save_checkpoint(tmp_path / "saved", system.layouts["transformers"], config, network.state_dict())
    opened = open_checkpoint(folder)
    assert opened.config == config
    assert torch.equal(opened.tensors["text.tokens.weight"].load(), network.text.tokens.weight)
    theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    assert theirs.config.text_config.vocab_size == 128
    pixels = noise(1, 3, 32, 32)
    tokens = torch.tensor([[101] * config.num_image_tokens + [BOS, 7, EOS]])
    with torch.no_grad():
        expected = theirs(input_ids=tokens, pixel_values=pixels, decoder_input_ids=torch.tensor([[EOS]])).logits
        found = network(pixels=pixels, tokens=tokens).logits
    torch.testing.assert_close(found, expected[..., :VOCAB], atol=1e-4, rtol=0)
