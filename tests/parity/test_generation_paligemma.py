"""Greedy and beam search of a whole PaliGemma against transformers' `generate`, rows padded on our side only."""

import pytest
import torch

import rebus

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")

PICTURE, PATCHES, PAD, EOS = 90, 9, 0, 1


@pytest.fixture(scope="module", params=["gemma", "gemma2"])
def models(request, tmp_path_factory):
    text = {
        "model_type": request.param,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "intermediate_size": 32,
        "vocab_size": 96,
        "bos_token_id": 2,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    eyes = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": 24,
        "patch_size": 8,
        "vision_use_head": False,
        "projection_dim": 24,
    }
    transformers.logging.set_verbosity_error()
    torch.manual_seed(3)
    config = transformers.PaliGemmaConfig(
        text_config=text, vision_config=eyes, projection_dim=24, image_token_index=PICTURE
    )
    theirs = transformers.PaliGemmaForConditionalGeneration(config).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs, rebus.load(folder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 3},
        {"num_beams": 4, "length_penalty": -1.0, "early_stopping": True},
        {"num_beams": 2, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_token_for_token(models, options):
    theirs, ours = models
    pixels = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    words = [[2, 15, 33, 40], [2, 61, 5, 7, 8, 9, 40], [2, 3, 40]]
    longest = max(map(len, words))
    tokens = torch.tensor([[PICTURE] * PATCHES + row + [PAD] * (longest - len(row)) for row in words])
    mask = torch.tensor([[True] * (PATCHES + len(row)) + [False] * (longest - len(row)) for row in words])
    strategy = "beam" if "num_beams" in options else "greedy"
    found = ours.generate(
        pixels=pixels, tokens=tokens, mask=mask, max_new_tokens=10, strategy=strategy, eos_id=EOS, pad_id=PAD, **options
    )
    for row in range(3):
        prompt = tokens[row][mask[row]][None]
        expected = theirs.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            token_type_ids=torch.zeros_like(prompt),
            pixel_values=pixels[row : row + 1],
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=PAD,
            **options,
        )[0, prompt.shape[1] :].tolist()
        expected = expected[: expected.index(EOS) + 1] if EOS in expected else expected
        assert found[row].tolist()[: len(expected)] == expected
        assert set(found[row].tolist()[len(expected) :]) <= {PAD}
