"""Greedy and beam search of a whole Florence-2 against transformers' `generate`, rows padded on our side only."""

import pytest
import torch

from tests.parity.test_florence2 import BOS, EOS, PAD, models, noise, prompts  # noqa: F401

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True},  # as the release decodes
        {"num_beams": 3},
        {"num_beams": 4, "length_penalty": -1.0, "early_stopping": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_token_for_token(models, side, options):  # noqa: F811
    theirs, ours, _ = models
    pixels = noise(3, 3, 64, 64)
    tokens, mask = prompts(17, side)
    strategy = "beam" if "num_beams" in options else "greedy"
    found = ours.generate(pixels=pixels, tokens=tokens, mask=mask, max_new_tokens=12, strategy=strategy, **options)
    for row in range(3):
        prompt = tokens[row][mask[row]][None]
        expected = theirs.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels[row : row + 1],
            max_new_tokens=12,
            do_sample=False,
            forced_bos_token_id=BOS,
            forced_eos_token_id=EOS,
            **options,
        )[0, 1:].tolist()  # without what the decoder begins with
        expected = expected[: expected.index(EOS) + 1]
        assert expected[0] == BOS
        assert found[row].tolist()[: len(expected)] == expected
        assert set(found[row].tolist()[len(expected) :]) <= {PAD}
