import pytest
import torch
from torch import nn

from rebus.core.errors import UnknownName, UsageError
from rebus.nn.block import Block
from rebus.nn.lora import LoRALinear, add_lora, merge_lora


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = Block(8, 2, 16, act="gelu")
        self.text = Block(8, 2, 16, act="gelu")
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.text(self.image(x)))


def test_it_starts_as_it_was_trains_the_thin_matrices_alone_and_merges() -> None:
    torch.manual_seed(0)
    net, x, wanted = Net(), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    names = set(net.state_dict())
    before = net(x)
    add_lora(net, ["text"], rank=2, alpha=4.0)
    assert torch.equal(net(x), before)
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert trained
    assert all(n.startswith("text.") and n.rpartition(".")[2] in ("lora_a", "lora_b") for n in trained)
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):  # after the first step the outer matrix is no longer zero, and the inner one learns too
        (net(x) - wanted).square().sum().backward()
        optimiser.step()
    changed = net(x)
    assert (changed - before).abs().max() > 1e-3
    merge_lora(net)
    assert set(net.state_dict()) == names
    assert not any(isinstance(m, LoRALinear) for m in net.modules())
    torch.testing.assert_close(net(x), changed)


def test_parts_that_are_not_there_are_named() -> None:
    with pytest.raises(UnknownName, match=r'"txt"; did you mean "text".* There are image, text, norm, and parts of'):
        add_lora(Net(), ["txt"], 2, 4.0)
    with pytest.raises(UsageError, match="at least 1; got 0"):
        add_lora(Net(), ["text"], 0, 4.0)
    with pytest.raises(UsageError, match="norm has no linear layer"):
        add_lora(Net(), ["norm"], 2, 4.0)
