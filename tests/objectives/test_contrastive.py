"""Contrastive losses against their definitions written out pair by pair."""

import math

import pytest
import torch
from torch import nn

from rebus.core.outputs import Embeddings
from rebus.objectives import SigmoidLoss, SoftmaxLoss, sigmoid_contrastive, softmax_contrastive


def embeddings(n: int = 5, bias: float | None = None) -> Embeddings:
    torch.manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(n, 8), dim=-1) for _ in range(2))
    return Embeddings(image, text, torch.tensor(7.0), None if bias is None else torch.tensor(bias))


def test_softmax_is_the_mean_of_both_directions() -> None:
    e = embeddings()
    logits = (7.0 * e.image @ e.text.T).double()
    rows = sum(-math.log(float(logits[i].exp()[i] / logits[i].exp().sum())) for i in range(5)) / 5
    columns = sum(-math.log(float(logits[:, i].exp()[i] / logits[:, i].exp().sum())) for i in range(5)) / 5
    assert float(softmax_contrastive(e).loss) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_sigmoid_divides_by_n_not_by_n_squared() -> None:
    e = embeddings(bias=-3.0)
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = 7.0 * float(e.image[i] @ e.text[j]) - 3.0
            total -= math.log(1 / (1 + math.exp(-(1 if i == j else -1) * logit)))
    assert float(sigmoid_contrastive(e).loss) == pytest.approx(total / 5, rel=1e-5)


def test_sigmoid_of_random_pairs_starts_where_the_paper_says() -> None:
    torch.manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(1024, 256), dim=-1) for _ in range(2))
    start = Embeddings(image, text, torch.tensor(10.0), torch.tensor(-10.0))
    assert float(sigmoid_contrastive(start).loss) == pytest.approx(10.08, abs=0.1)


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(9.0))
        self.bias = nn.Parameter(torch.tensor(0.0))

    @torch.no_grad()
    def limit_scale(self, most: float) -> None:
        self.log_scale.clamp_(0, math.log(most))

    def forward(self, x: torch.Tensor) -> Embeddings:
        return Embeddings(x, x, self.log_scale.exp(), self.bias)


def test_softmax_keeps_the_scale_below_100() -> None:
    towers = Towers()
    losses = SoftmaxLoss()(towers, {"x": torch.eye(4)})
    assert float(towers.log_scale.detach()) == pytest.approx(math.log(100))
    assert float(losses.parts["accuracy"]) == 1.0


def test_sigmoid_sets_its_first_bias_once() -> None:
    towers = Towers()
    SigmoidLoss(bias=-4.85).begin(towers, {})
    assert float(towers.bias.detach()) == pytest.approx(-4.85)


def plain(e: Embeddings, owners: torch.Tensor) -> torch.Tensor:
    """The sigmoid loss as autograd would have it, all scores at once."""
    signs = 2.0 * (torch.arange(len(e.image))[:, None] == owners) - 1
    return -nn.functional.logsigmoid(signs * e.logits).sum() / len(owners)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("owners", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4, 4]])
def test_sigmoid_in_chunks_has_the_gradients_of_autograd(owners: list[int], chunk: int) -> None:
    torch.manual_seed(0)
    where = torch.tensor(owners)

    def parts() -> list[torch.Tensor]:
        torch.manual_seed(1)
        drawn = [torch.randn(5, 8), torch.randn(len(owners), 8), torch.tensor(3.0), torch.tensor(-1.0)]
        return [part.double().requires_grad_() for part in drawn]

    ours, theirs = parts(), parts()
    loss = sigmoid_contrastive(Embeddings(*ours), where, chunk).loss
    expected = plain(Embeddings(*theirs), where)
    (3 * loss).backward()
    (3 * expected).backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_accuracy_counts_pictures_whose_best_text_is_theirs() -> None:
    image = torch.eye(4)
    text = torch.eye(4)[[0, 2, 1, 3, 0]]
    owners = torch.tensor([0, 1, 2, 3, 0])
    found = sigmoid_contrastive(Embeddings(image, text, torch.tensor(5.0), torch.tensor(-1.0)), owners, 3)
    assert float(found.accuracy) == 0.5
    swapped = softmax_contrastive(Embeddings(image, torch.eye(4)[[1, 0, 2, 3]], torch.tensor(5.0)))
    assert float(swapped.accuracy) == 0.5


def test_smoothed_labels_spread_over_the_batch() -> None:
    e = embeddings()
    wanted = torch.full((5, 5), 0.1 / 5) + 0.9 * torch.eye(5)
    both = [-(wanted * logits.log_softmax(1)).sum(1).mean() for logits in (e.logits, e.logits.T)]
    torch.testing.assert_close(softmax_contrastive(e, 0.1).loss, (both[0] + both[1]) / 2)


def apart_by_hand(logits: torch.Tensor, owners: list[int], groups: list[tuple[int, ...]]) -> tuple[float, float]:
    """Softmax of both directions written out pair by pair: the mean over images, and over texts."""
    of_images: dict[int, list[float]] = {}
    of_texts = []
    same = lambda a, b: any(x == y for x, y in zip(groups[a], groups[b], strict=True))  # noqa: E731
    for j, i in enumerate(owners):
        e = logits.double().exp()
        others = [k for k in range(len(owners)) if k == j or not same(owners[k], i)]
        of_images.setdefault(i, []).append(-math.log(float(e[i, j] / sum(e[i, k] for k in others))))
        others = [k for k in range(len(logits)) if k == i or not same(k, i)]
        of_texts.append(-math.log(float(e[i, j] / sum(e[k, j] for k in others))))
    means = [sum(values) / len(values) for values in of_images.values()]
    return sum(means) / len(means), sum(of_texts) / len(of_texts)


def test_softmax_texts_of_one_image_are_no_negatives_of_each_other() -> None:
    torch.manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(n, 8), dim=-1) for n in (4, 6))
    owners = [2, 0, 2, 1, 0, 2]  # image 3 has none
    e = Embeddings(image, text, torch.tensor(7.0))
    by_hand = apart_by_hand(e.logits, owners, [(i,) for i in range(4)])
    found = softmax_contrastive(e, owners=torch.tensor(owners))
    assert float(found.loss) == pytest.approx(sum(by_hand) / 2, rel=1e-5)
    one_each = softmax_contrastive(embeddings(), owners=torch.arange(5))
    assert float(one_each.loss) == pytest.approx(float(softmax_contrastive(embeddings()).loss), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_rows_of_the_same_image_or_caption_are_no_negatives_of_each_other(smoothing: float) -> None:
    """Rows 0 and 2 show the same image, rows 2 and 4 have the same caption."""
    e = embeddings()
    groups = [(1, 10), (2, 11), (1, 12), (3, 13), (4, 12)]
    found = softmax_contrastive(e, smoothing, groups=torch.tensor(groups))
    if not smoothing:
        assert float(found.loss) == pytest.approx(sum(apart_by_hand(e.logits, list(range(5)), groups)) / 2, rel=1e-5)
    assert bool(found.loss.isfinite())
    alike = torch.tensor(groups)[[0] * 5]
    assert float(softmax_contrastive(e, smoothing, groups=alike).loss) == 0  # nothing is left to compare with
    unlike = torch.arange(10).view(5, 2)
    assert torch.equal(softmax_contrastive(e, smoothing, groups=unlike).loss, softmax_contrastive(e, smoothing).loss)


def test_a_hit_is_any_text_of_the_image() -> None:
    e = Embeddings(torch.eye(3), torch.eye(3)[[1, 0, 2]], torch.tensor(5.0))
    assert float(softmax_contrastive(e).accuracy) == pytest.approx(1 / 3)
    assert float(softmax_contrastive(e, groups=torch.tensor([[0], [0], [1]])).accuracy) == 1.0
    text = torch.eye(3)[[1, 0, 2, 0]]
    text[3] *= 2
    several = Embeddings(torch.eye(3), text, torch.tensor(5.0))
    assert float(softmax_contrastive(several, owners=torch.tensor([0, 1, 2, 0])).accuracy) == pytest.approx(2 / 3)


@pytest.mark.parametrize("chunk", [2, 100])
def test_sigmoid_leaves_rows_out_that_are_the_same(chunk: int) -> None:
    torch.manual_seed(0)
    image, text = (torch.randn(5, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, -1.0))
    e = Embeddings(image, text, scale, bias)
    groups = torch.tensor([(1, 10), (2, 11), (1, 12), (3, 13), (4, 12)])
    counted = torch.ones(5, 5, dtype=torch.float64)
    for i, j in ((0, 2), (2, 4)):
        counted[i, j] = counted[j, i] = 0
    expected = -(counted * nn.functional.logsigmoid((2.0 * torch.eye(5) - 1) * e.logits)).sum() / 5
    found = sigmoid_contrastive(e, None, chunk, groups).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    inputs = (image, text, scale, bias)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


LOSSES = {
    "softmax": lambda image, text, scale, bias: softmax_contrastive(Embeddings(image, text, scale)),
    "sigmoid": lambda image, text, scale, bias: sigmoid_contrastive(Embeddings(image, text, scale, bias)),
}


def clustered(loss: str, dtype: torch.dtype, *, autocast: bool = False, rounded: bool = False) -> list[torch.Tensor]:
    """The loss of 512 pairs around 16 centres at scale 100, and its gradients to images, texts and scale, float64."""
    torch.manual_seed(0)
    centres = torch.randn(16, 256)[torch.arange(512) % 16]
    shared = centres + 0.1 * torch.randn(512, 256)
    parts = [shared + 0.07 * torch.randn(512, 256) for _ in range(2)]
    parts = [part.to(dtype).requires_grad_() for part in (*parts, torch.tensor(100.0))]
    image, text, scale = parts
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        units = [nn.functional.normalize(part.bfloat16() if rounded else part, dim=-1) for part in (image, text)]
        found = LOSSES[loss](*units, scale, torch.tensor(-90.0, dtype=dtype)).loss
    found.backward()
    return [found.detach().double(), *(part.grad.double() for part in parts)]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_are_float32_under_autocast(loss: str) -> None:
    """Scores in bfloat16 are off by up to 0.4 at scale 100, which is 4% of such a loss and of its gradients."""
    exact = clustered(loss, torch.float64)
    assert 1 < float(exact[0]) < 1000
    for found, right in zip(clustered(loss, torch.float32, autocast=True), exact, strict=True):
        assert apart(found, right) < 1e-4


@pytest.mark.parametrize("loss", LOSSES)
def test_embeddings_that_a_network_rounded_are_off_by_their_rounding_alone(loss: str) -> None:
    """bfloat16 keeps 8 bits: 0.2% of each value, which nearly cancels in the loss and not in the gradients."""
    exact = clustered(loss, torch.float64)
    found = clustered(loss, torch.float32, autocast=True, rounded=True)
    assert apart(found[0], exact[0]) < 2e-3
    assert all(apart(one, right) < 0.03 for one, right in zip(found[1:3], exact[1:3], strict=True))
