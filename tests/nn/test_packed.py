"""bfloat16 weights packed for the processor: the same numbers, the same files, and no silent training."""

import copy
import pickle

import pytest
import torch
from torch import nn

import rebus
from rebus.core.errors import UsageError
from rebus.core.machine import multiplies_bfloat16
from rebus.data.scenes import scene
from rebus.nn import packed
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.packed import PackedLinear, PackedTokenEmbedding, pack_linears

native = pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor has no products of bfloat16")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = TokenEmbedding(11, 16)
        self.first, self.second = nn.Linear(16, 33), nn.Linear(33, 16, bias=False)
        self.again = self.first

    def forward(self, tokens):
        x = self.tokens(tokens)
        return self.tokens.scores(x + self.second(self.first(x) + self.again(x)))


def pair():
    torch.manual_seed(0)
    plain = Small().bfloat16().eval()
    return plain, pack_linears(copy.deepcopy(plain))


@native
@torch.inference_mode()
def test_results_are_equal_to_the_last_bit():
    plain, packed_one = pair()
    assert isinstance(packed_one.first, PackedLinear)
    assert packed_one.first is packed_one.again
    assert isinstance(packed_one.tokens, PackedTokenEmbedding)
    for shape in ((1, 1), (3, 5), (7, 40), (0, 4)):
        tokens = torch.randint(11, shape)
        assert torch.equal(plain(tokens), packed_one(tokens))


@native
def test_it_is_saved_and_counted_as_before(tmp_path):
    plain, packed_one = pair()
    state = packed_one.state_dict()
    assert set(state) == set(plain.state_dict())
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    assert sum(p.numel() for p in packed_one.parameters()) == sum(p.numel() for p in plain.parameters())
    back = pickle.loads(pickle.dumps(packed_one))
    assert all(torch.equal(back.state_dict()[name], value) for name, value in state.items())
    assert back.first.packed.is_mkldnn


@native
def test_another_type_unpacks_and_gradients_reach_the_input():
    plain, packed_one = pair()
    tokens = torch.randint(11, (2, 3))
    x = torch.randn(2, 16).bfloat16().requires_grad_()
    packed_one.first(x).sum().backward()
    there = x.detach().clone().requires_grad_()
    plain.first(there).sum().backward()
    assert torch.equal(x.grad, there.grad)
    with torch.no_grad():
        torch.testing.assert_close(packed_one.float()(tokens), plain.float()(tokens))
        assert packed_one.bfloat16().first.packed.is_mkldnn


@native
def test_training_is_refused():
    _, packed_one = pair()
    assert not any(p.requires_grad for p in packed_one.parameters())
    packed_one.requires_grad_(True)
    with pytest.raises(UsageError, match="cannot be trained"):
        packed_one(torch.randint(11, (1, 2)))


def test_elsewhere_nothing_changes(monkeypatch):
    monkeypatch.setattr(packed, "multiplies_bfloat16", lambda: False)
    plain, unpacked = pair()
    assert type(unpacked.first) is type(plain.first) is nn.Linear


@native
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_other_types_stay_as_they_are(kind):
    assert isinstance(pack_linears(Small().to(kind)).first, nn.Linear)


@native
def test_a_loaded_model_answers_the_same_and_is_saved(tmp_path):
    plain = rebus.load("paligemma/scenes", device="cpu", dtype="bfloat16")
    quick = rebus.load("paligemma/scenes", device="cpu", dtype="bfloat16", pack=True)
    images = [scene(i, "test").image for i in range(3)]
    assert quick.caption(images) == plain.caption(images)
    assert quick.num_parameters() == plain.num_parameters()
    again = rebus.load(quick.save(tmp_path / "m"), device="cpu", dtype="bfloat16")
    expected = plain.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
