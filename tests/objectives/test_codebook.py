"""Codebook training: what is rebuilt gets better, words stay in use."""

import torch

from rebus.backbones.vision.mask_vqvae import MaskVQVAE, MaskVQVAEConfig
from rebus.backbones.vision.vqgan import TINY as IMAGES
from rebus.backbones.vision.vqgan import VQGAN
from rebus.objectives import CodebookLoss

TINY = MaskVQVAEConfig(
    num_codes=8, code_width=4, encoder_widths=(2, 2, 4, 4), decoder_width=4, decoder_widths=(4, 2, 2, 2)
)


def test_parts_and_gradients() -> None:
    torch.manual_seed(0)
    network = MaskVQVAE(TINY)
    masks = (torch.rand(4, 64, 64) > 0.5).float()
    objective = CodebookLoss()
    objective.begin(network, {"masks": masks})
    losses = objective(network, {"masks": masks})
    losses.total.backward()
    assert all(p.grad is not None for p in network.parameters())
    assert 0 <= float(losses.parts["iou"]) <= 1
    assert float(losses.parts["words_used"]) >= 2


def test_words_that_nobody_chose_move_towards_features() -> None:
    torch.manual_seed(0)
    network = MaskVQVAE(TINY)
    masks = torch.zeros(2, 64, 64)
    with torch.no_grad():
        network.codebook += 100
        network.codebook[0] = network.features(masks)[0, 0]
    before = network.codebook.detach().clone()
    CodebookLoss(revive=0.5)(network.train(), {"masks": masks})
    assert torch.equal(network.codebook[0], before[0])
    assert (network.codebook[1:] - before[1:]).norm() > 50
    before = network.codebook.detach().clone()
    CodebookLoss()(network.eval(), {"masks": masks})
    assert torch.equal(network.codebook, before)


def test_words_are_revived_under_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    network = VQGAN(IMAGES)
    loss, batch = CodebookLoss(), {"pixels": torch.rand(2, 3, 12, 12) * 2 - 1}
    loss.begin(network, batch)
    with torch.no_grad():
        network.codebook[3] = 1e3  # which nobody chooses
    with torch.autocast("cpu", torch.bfloat16):
        loss(network.train(), batch).total.backward()
    assert network.codebook.dtype == torch.float32
    assert 0 < network.codebook[3].abs().max() < 1e3
