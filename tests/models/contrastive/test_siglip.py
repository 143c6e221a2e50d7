"""What SigLIP reads as text: exactly its context, padded with its own token."""

import pytest
import torch

from rebus.core.errors import BadText
from rebus.models.contrastive.siglip import PRESETS, SigLIP

CFG = PRESETS["tiny"]  # a context of 12, padded with 1


@pytest.fixture(scope="module")
def network() -> SigLIP:
    torch.manual_seed(0)
    return SigLIP(CFG).eval()


def test_a_text_beyond_the_context_is_refused_and_not_cut(network):
    with pytest.raises(BadText, match="text of 13 tokens is longer than the context of 12"):
        network.embed_text(torch.randint(2, 64, (1, 13)))


@torch.no_grad()
def test_padding_by_another_token_and_on_the_left_is_mended_by_the_mask(network):
    text = torch.tensor([[7, 9, 30, 1]])
    right = network.embed_text(text)
    for padding in (0, 5):
        rows = torch.full((1, 12), padding)
        rows[:, -4:] = text
        mask = torch.arange(12)[None] >= 8
        torch.testing.assert_close(network.embed_text(rows, mask), right, atol=1e-6, rtol=0)
        torch.testing.assert_close(network.embed_text(rows.roll(4, 1), mask.roll(4, 1)), right, atol=1e-6, rtol=0)
        assert not torch.allclose(network.embed_text(rows), right, atol=1e-3)  # without a mask it is read as it stands
