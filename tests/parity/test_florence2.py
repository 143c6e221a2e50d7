"""Florence-2 and DaViT against transformers on random weights, in float32."""

import pytest
import torch

import rebus
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
