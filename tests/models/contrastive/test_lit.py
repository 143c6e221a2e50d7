"""LiT: what is locked stays, what is not learns, and training begins with what the two towers know."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import rebus
from rebus.core.errors import BadCheckpoint, BadConfig
from rebus.models.contrastive.lit import PRESETS, SYSTEM, LiT, begin_with, read_config, write_config
from rebus.objectives import SoftmaxLoss
from rebus.weights.save import save_directory

TINY = PRESETS["tiny"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return LiT(TINY)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(6) < torch.tensor([[6], [2], [4], [5]])
    return {
        "pixels": torch.randn(4, 3, 32, 32, generator=g),
        "tokens": torch.randint(1, 60, (4, 6), generator=g) * mask,
        "mask": mask,
    }


def begun(network):
    """A network that begins with trained towers: here, those of another random one."""
    torch.manual_seed(5)
    other, names = LiT(TINY), F.normalize(torch.randn(11, 24), dim=-1)
    towers = {n: t for n, t in other.state_dict().items() if n.startswith(("image.", "text."))}
    return begin_with(network, towers, names), other, names


def test_nothing_of_the_image_tower_moves(network, batch):
    before = {n: t.clone() for n, t in network.image.state_dict().items()}
    network.train()
    assert not any(module.training for module in network.image.modules())
    assert network.text.training
    assert network.image_head.training
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    SoftmaxLoss()(network, batch).total.backward()
    optimiser.step()
    assert all(p.grad is None for p in network.image.parameters())
    for name, tensor in network.image.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_everything_else_learns(network, batch):
    begun(network)
    loss = SoftmaxLoss()(network, batch).total
    loss.backward()
    still = ("image.",)
    unused = [n for n, p in network.named_parameters() if p.grad is None and not n.startswith(still)]
    assert not unused
    assert network.image_head.features.weight.grad.abs().max() > 0  # although it begins at zero
    assert network.log_scale.grad.abs() > 0


def test_a_few_pairs_are_learned_by_heart(network, batch, monkeypatch):
    begun(network)
    network.train()
    seen = torch.rand(4, 1280, generator=torch.Generator().manual_seed(2))  # an untrained tower hardly tells them apart
    monkeypatch.setattr(network.image, "features", lambda pixels: seen)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        losses = SoftmaxLoss()(network, batch)
        losses.total.backward()
        optimiser.step()
    assert float(losses.parts["accuracy"].detach()) == 1
    assert float(losses.total.detach()) < 0.3


def test_begins_with_the_names_that_a_picture_resembles(network, batch):
    _, other, names = begun(network)
    network.eval()
    other.eval()
    with torch.no_grad():
        opinion = (other.image(batch["pixels"]) / 2).softmax(-1)
        expected = F.normalize(opinion @ names, dim=-1)
        torch.testing.assert_close(network.embed_image(batch["pixels"]), expected, atol=1e-5, rtol=0)
        words = other.text.embed_text(batch["tokens"], batch["mask"])
        torch.testing.assert_close(network.embed_text(batch["tokens"], batch["mask"]), words, atol=1e-5, rtol=0)


def test_towers_of_another_size_are_refused(network):
    towers = {n: t for n, t in network.state_dict().items() if n.startswith(("image.", "text."))}
    towers["text.tokens.weight"] = torch.zeros(5, 24)
    with pytest.raises(BadCheckpoint, match=r"text\.tokens\.weight"):
        begin_with(network, towers, torch.zeros(11, 24))


def test_a_tower_without_classes_has_features_alone(batch):
    network = LiT(replace(TINY, image=replace(TINY.image, num_classes=0))).eval()
    with torch.no_grad():
        image = network.embed_image(batch["pixels"])
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(4))
    assert (image[0] - image[1]).abs().max() > 1e-4


def test_pad_tokens_are_padding_without_a_mask(network, batch):
    network.eval()
    with torch.no_grad():
        a = network.embed_text(batch["tokens"])
        b = network.embed_text(batch["tokens"], batch["mask"])
    torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_a_directory_brings_it_back(network, batch, tmp_path):
    network.eval()
    tensors = SYSTEM.layouts["transformers"].keys(TINY).to_theirs(network.state_dict())
    save_directory(tmp_path / "lit", write_config(TINY), tensors)
    again = rebus.load(tmp_path / "lit", device="cpu")
    assert again.config == TINY
    assert again.tasks == {"embed_images", "embed_texts", "match", "classify"}
    assert not any(p.requires_grad for p in again.network.image.parameters())
    with torch.no_grad():
        for one, other in zip(network(**batch)[:2], again(**batch)[:2], strict=True):
            # a last bit: mapped weights lie elsewhere in memory, and a product of them may be summed in another order
            torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


def test_unknown_fields_are_refused():
    with pytest.raises(BadConfig, match=r"embd: unknown field \(did you mean embed\?\)"):
        read_config({**write_config(TINY), "embd": 3})
