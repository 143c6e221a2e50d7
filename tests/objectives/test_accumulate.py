"""Parts of a batch, one after another, give the gradients of the whole."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from rebus.core.errors import UsageError
from rebus.core.outputs import Embeddings, Predictions
from rebus.objectives import CodebookLoss, Learner, NextTokenLoss, SigmoidLoss, SoftmaxLoss, backward, split


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(12, 8), nn.Linear(10, 8)
        self.log_scale, self.bias = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(-1.0))
        self.largest = 0

    def forward(self, *, pixels: Tensor, tokens: Tensor) -> Embeddings:
        self.largest = max(self.largest, len(pixels))
        unit = nn.functional.normalize
        seen, read = unit(self.image(pixels).tanh(), dim=1), unit(self.text(tokens).tanh(), dim=1)
        return Embeddings(seen, read, self.log_scale.exp(), self.bias)


class Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 11)

    def forward(self, *, tokens: Tensor, targets: Tensor) -> Predictions:
        return Predictions(self.table(targets.clamp(min=0)) + self.table(tokens[:, :1]))


def grads(objective: Any, network: nn.Module, batch: dict[str, Tensor], parts: int) -> tuple[float, list[Tensor]]:
    network.zero_grad()
    losses = backward(Learner(objective, network), split(batch, parts))
    assert not losses.total.requires_grad
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]
    return float(losses.total), found


@pytest.mark.parametrize("objective", [SoftmaxLoss(), SigmoidLoss(chunk=100)], ids=["softmax", "sigmoid"])
def test_eight_times_32_is_256(objective: Any) -> None:
    torch.manual_seed(0)
    network = Towers().double()
    batch = {"pixels": torch.randn(256, 12).double(), "tokens": torch.randn(256, 10).double()}
    whole, expected = grads(objective, network, batch, 1)
    network.largest = 0
    loss, found = grads(objective, network, batch, 8)
    assert network.largest == 32
    assert loss == pytest.approx(whole, rel=1e-12)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert any(g.abs().max() > 1e-3 for g in expected)


def test_frozen_parameters_stay_frozen() -> None:
    network = Towers()
    for frozen in (network.bias, *network.image.parameters()):
        frozen.requires_grad_(False)
    batch = {"pixels": torch.randn(8, 12), "tokens": torch.randn(8, 10)}
    backward(Learner(SigmoidLoss(), network), split(batch, 2))
    assert not network.bias.requires_grad
    assert network.bias.grad is None
    assert network.image.weight.grad is None
    assert network.text.weight.grad is not None


def test_rows_without_targets_count_nothing() -> None:
    torch.manual_seed(0)
    targets = torch.randint(0, 11, (12, 5))
    targets[torch.rand(12, 5) < 0.3] = -100
    targets[:4] = -100
    targets[0, 1] = 3
    batch = {"tokens": torch.randint(0, 11, (12, 2)), "targets": targets}
    network = Writer().double()
    whole, expected = grads(NextTokenLoss(), network, batch, 1)
    loss, found = grads(NextTokenLoss(), network, batch, 4)
    assert loss == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-12)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 5 pixels does not divide into 2"):
        split({"pixels": torch.zeros(5, 3)}, 2)
    with pytest.raises(UsageError, match="'codebook' is not a sum over examples"):
        backward(Learner(CodebookLoss(), nn.Identity()), [{}, {}])


class Convolved(Towers):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(12)

    def forward(self, *, pixels: Tensor, tokens: Tensor) -> Embeddings:
        return super().forward(pixels=self.norm(pixels), tokens=tokens)


def test_batch_norm_does_not_see_the_whole_batch_in_its_parts() -> None:
    torch.manual_seed(0)
    network = Convolved().double()
    batch = {"pixels": torch.randn(16, 12).double() + 1, "tokens": torch.randn(16, 10).double()}
    with pytest.raises(UsageError, match=r"accumulate=4: BatchNorm \(norm\).*batch_norm=frozen"):
        backward(Learner(SoftmaxLoss(), network), split(batch, 4))
    network(**batch)
    network.norm.eval()  # frozen statistics; its gains learn
    whole, expected = grads(SoftmaxLoss(), network, batch, 1)
    loss, found = grads(SoftmaxLoss(), network, batch, 4)
    assert loss == pytest.approx(whole, rel=1e-12)
    assert network.norm.weight.grad is not None
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_each_part_enters_the_running_statistics_once() -> None:
    torch.manual_seed(0)
    network = Convolved()
    batch = {"pixels": torch.randn(8, 12), "tokens": torch.randn(8, 10)}
    backward(Learner(SoftmaxLoss(), network, ghost=True), split(batch, 4))
    alone = nn.BatchNorm1d(12)
    for part in split(batch, 4):
        alone(part["pixels"])
    torch.testing.assert_close(dict(network.norm.named_buffers()), dict(alone.named_buffers()))


def test_a_part_keeps_its_rows_images_and_texts() -> None:
    batch = {
        "pixels": torch.arange(4)[:, None],
        "image_mask": torch.tensor([[True, True], [False, False], [True, False], [True, True]]),
        "regions": torch.arange(4)[:, None] * 10,
        "tokens": torch.tensor([[30], [0], [31], [10], [1]]),
        "targets": torch.tensor([[30], [0], [31], [10], [1]]) + 1,
        "owners": torch.tensor([3, 0, 3, 1, 0]),
    }
    first, second = split(batch, 2)
    assert first["owners"].tolist() == [0, 1, 0]
    assert first["tokens"].flatten().tolist() == [0, 10, 1]
    assert second["owners"].tolist() == [1, 1]
    assert second["targets"].flatten().tolist() == [31, 32]
    assert second["pixels"].flatten().tolist() == [2, 3]
    assert second["regions"].flatten().tolist() == [20, 30]
    assert second["image_mask"].tolist() == [[True, False], [True, True]]
    (whole,) = split(batch, 1)
    assert all(torch.equal(whole[name], batch[name]) for name in batch)


def test_rows_that_do_not_match_are_refused() -> None:
    batch = {"pixels": torch.zeros(4, 3), "tokens": torch.zeros(8, 2), "targets": torch.zeros(8, 2)}
    for parts in (1, 2):
        with pytest.raises(UsageError, match="4 pixels, 8 tokens, 8 targets; `owners` says to which row"):
            split(batch, parts)
        with pytest.raises(UsageError, match="8 tokens, 8 targets, 7 owners"):
            split(batch | {"owners": torch.zeros(7, dtype=torch.long)}, parts)
        for wrong in (-1, 4):
            owners = torch.zeros(8, dtype=torch.long)
            owners[5] = wrong
            with pytest.raises(UsageError, match="there are 4 rows"):
                split(batch | {"owners": owners}, parts)
    with pytest.raises(UsageError, match="pixels or regions"):
        split({"tokens": torch.zeros(2, 2), "owners": torch.zeros(2, dtype=torch.long)}, 1)


@pytest.mark.parametrize(
    "objective", [SoftmaxLoss(label_smoothing=0.1), SigmoidLoss(chunk=3)], ids=["softmax", "sigmoid"]
)
def test_parts_of_a_batch_with_several_texts_an_image_give_the_whole(objective: Any) -> None:
    torch.manual_seed(0)
    network = Towers().double()
    owners = torch.randint(0, 8, (24,))
    batch = {"pixels": torch.randn(8, 12).double(), "tokens": torch.randn(24, 10).double(), "owners": owners}
    batch["groups"] = torch.arange(8)[:, None] // 2 * 3  # each row shows what its neighbour shows
    whole, expected = grads(objective, network, batch, 1)
    loss, found = grads(objective, network, batch, 4)
    assert loss == pytest.approx(whole, rel=1e-12)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    for other in ({"owners": torch.arange(24) % 8}, {"groups": torch.arange(8)[:, None]}):
        assert grads(objective, network, batch | other, 1)[0] != pytest.approx(whole)


class Told(torch.autograd.Function):
    """Remembers whether autocast was on, on the way forward and on the way back."""

    seen: ClassVar[list[bool]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Told.seen.append(torch.is_autocast_enabled("cpu"))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        Told.seen.append(torch.is_autocast_enabled("cpu"))
        return grad


@pytest.mark.parametrize("parts", [1, 2])
def test_autocast_is_for_the_way_forward_alone(parts: int) -> None:
    class Listening(Towers):
        def forward(self, *, pixels: Tensor, tokens: Tensor) -> Embeddings:
            e = super().forward(pixels=pixels, tokens=tokens)
            return e._replace(image=Told.apply(e.image))

    Told.seen = []
    batch = {"pixels": torch.randn(4, 12), "tokens": torch.randn(4, 10)}
    backward(Learner(SoftmaxLoss(), Listening()), split(batch, parts), lambda: torch.autocast("cpu", torch.bfloat16))
    assert Told.seen == ([True, False] if parts == 1 else [True, True, True, False, True, False])
