"""Pull the right image and text together, push all other pairs of the batch apart.

Softmax: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, Sec. 2.3 and
fig. 3. Sigmoid: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, Sec. 3.2 and algorithm 1.

Both take the batch of all ranks (`rebus.objectives.ranks`), and score in float32 whatever the network computes in.
A batch says by `owners` (T,) to which image each text belongs, where an image has several, and by `groups` (B, K) which
rows show or say the same, so that they are no negatives of each other.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rebus.core.outputs import Embeddings
from rebus.objectives import ranks
from rebus.objectives.losses import Losses

CHUNK = 1024  # images whose scores are in memory at a time


class Contrast(NamedTuple):
    """`loss`, and the share of images whose best text is one of theirs."""

    loss: Tensor
    accuracy: Tensor


def softmax_contrastive(
    embeddings: Embeddings,
    label_smoothing: float = 0.0,
    owners: Int[Tensor, "T"] | None = None,
    groups: Int[Tensor, "B K"] | None = None,
) -> Contrast:
    """½ · (mean cross entropy of each image over all texts + of each text over all images).

    `owners`: the image of each text, by its row on the same rank; without it row i fits row i. Texts of one image are
    not compared with each other: each is contrasted with the texts of other images, and an image counts once. `groups`:
    what rows are known to share, such as the image or its caption; rows with an equal number in a column are not
    compared either. Numbers are of all ranks together. `label_smoothing` spreads over all that is compared (ALIGN: 0.1;
    Jia et al., 2021, Sec. 5.1). Each rank compares its own rows with everybody's.
    """
    image, text = _unrounded(embeddings.image), _unrounded(embeddings.text)
    rank = ranks.world()[0]
    images = ranks.everybodys(len(image), image.device)
    texts = images if owners is None else ranks.everybodys(len(text), text.device)
    own_image = torch.arange(len(text), device=text.device) if owners is None else owners
    own_text = torch.arange(len(text), device=text.device) + sum(texts[:rank])
    if owners is not None and groups is None:
        groups = (torch.arange(len(image), device=image.device) + sum(images[:rank]))[:, None]
    with torch.autocast(image.device.type, enabled=False):
        to_text = embeddings.scale * image @ ranks.gather(text, texts).T
        to_image = embeddings.scale * text @ ranks.gather(image, images).T
    best = to_text.argmax(dim=1)
    apart: list[Tensor | None] = [None, None]
    if groups is None:
        hit = best == own_text
    else:
        mine, everybodys = groups[own_image], ranks.gather(groups, images)
        everybodys_texts = ranks.gather(mine, texts)
        hit = (groups == everybodys_texts[best]).any(dim=1)
        if owners is not None or _repeats(everybodys):
            to_text, apart = to_text[own_image], [_alike(mine, everybodys_texts), _alike(mine, everybodys)]
    rights = own_text, own_image + sum(images[:rank])
    weights, seen = None, sum(images)
    if owners is not None:
        number = torch.bincount(owners, minlength=len(image))
        weights, seen = 1 / number[owners], int(ranks.total((number > 0).sum()))
    of_images = _cross_entropy(to_text, rights[0], apart[0], label_smoothing, weights)
    of_texts = _cross_entropy(to_image, rights[1], apart[1], label_smoothing)
    share = (of_images * (sum(texts) / seen) + of_texts) / (2 * sum(texts))
    loss = len(images) * (share - share.detach()) + ranks.total(share)
    return Contrast(loss, ranks.total(hit.sum()) / sum(images))


def _cross_entropy(
    scores: Float[Tensor, "T N"],
    right: Int[Tensor, "T"],
    left_out: Bool[Tensor, "T N"] | None,
    smoothing: float,
    weights: Float[Tensor, "T"] | None = None,
) -> Tensor:
    """The sum over rows; columns that are left out are not there, but for the right one."""
    if left_out is None:
        return F.cross_entropy(scores, right, reduction="sum", label_smoothing=smoothing)
    left_out = left_out.scatter(1, right[:, None], False)
    log_p = scores.masked_fill(left_out, -math.inf).log_softmax(dim=1)
    found = -log_p.gather(1, right[:, None])[:, 0]
    if smoothing:
        spread = -log_p.masked_fill(left_out, 0.0).sum(dim=1) / (~left_out).sum(dim=1)
        found = (1 - smoothing) * found + smoothing * spread
    return (found if weights is None else found * weights).sum()


def _alike(some: Int[Tensor, "T K"], others: Int[Tensor, "N K"]) -> Bool[Tensor, "T N"]:
    """Which rows have an equal number in a column."""
    found = some[:, :1] == others[:, 0]
    for column in range(1, some.shape[1]):
        found |= some[:, column, None] == others[:, column]
    return found


def _repeats(groups: Int[Tensor, "N K"]) -> bool:
    """Whether any two rows share a number."""
    return any(len(column.unique()) < len(column) for column in groups.unbind(dim=1))


def sigmoid_contrastive(
    embeddings: Embeddings,
    owners: Int[Tensor, "T"] | None = None,
    chunk: int = CHUNK,
    groups: Int[Tensor, "B K"] | None = None,
) -> Contrast:
    """−(1/n) Σᵢⱼ log σ(zᵢⱼ · logitᵢⱼ), z = 1 for right pairs and −1 for all others; n texts: divided by n, not n².

    `owners`: the image of each text, by its row on the same rank; without it row i fits row i. `groups`: as of
    `softmax_contrastive`; a pair of rows that share a number is neither right nor wrong, and left out of the sum.
    Texts go round the ranks, and the scores of `chunk` images with the texts of one rank are in memory at a time:
    gradients are computed with them, in closed form, since autograd would keep every chunk.
    """
    image, text, bias = _unrounded(embeddings.image), _unrounded(embeddings.text), embeddings.bias
    if owners is None:
        owners = torch.arange(len(text), device=text.device)
    if groups is not None and not _repeats(ranks.gather(groups, ranks.everybodys(len(groups), groups.device))):
        groups = None
    bias = torch.zeros((), dtype=image.dtype, device=image.device) if bias is None else bias
    with torch.autocast(image.device.type, enabled=False):
        parts = _Sigmoid.apply(image, text, embeddings.scale, bias, owners, chunk, groups)
    return Contrast(*parts)


def _unrounded(rows: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
    """In float32; what was rounded to half of it is made unit length again, or a whole row would be off by 0.4%."""
    return F.normalize(rows.float(), dim=-1) if rows.dtype in (torch.bfloat16, torch.float16) else rows


class _Sigmoid(torch.autograd.Function):
    """The loss, with gradients that are ready when it is."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        owners: Tensor,
        chunk: int,
        groups: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        rank, number = ranks.world()
        counts = ranks.everybodys(len(text), text.device)
        images = sum(ranks.everybodys(len(image), image.device))
        learns = any(ctx.needs_input_grad)
        exact = torch.promote_types(image.dtype, torch.float32)
        share = torch.zeros((), dtype=exact, device=image.device)
        d_image, d_text = torch.zeros_like(image), torch.zeros_like(text)
        d_scale, d_bias = torch.zeros_like(share), torch.zeros_like(share)
        best = image.new_full((len(image),), -math.inf)
        hit = torch.zeros(len(image), dtype=torch.bool, device=image.device)
        of_texts = None if groups is None else groups[owners]
        for turn in range(number):
            for first in range(0, len(image), chunk):
                rows = slice(first, first + chunk)
                cosine = image[rows] @ text.T
                logits = (scale * cosine + bias).to(share.dtype)
                fits = torch.zeros_like(logits, dtype=torch.bool)
                if turn == 0:
                    numbers = torch.arange(first, first + len(logits), device=image.device)
                    fits = numbers[:, None] == owners
                left_out = None
                if groups is not None and of_texts is not None:
                    left_out = _alike(groups[rows], of_texts) & ~fits
                terms = F.logsigmoid(torch.where(fits, logits, -logits))
                share -= (terms if left_out is None else terms.masked_fill(left_out, 0.0)).sum()
                if logits.shape[1]:
                    top, at = logits.to(best.dtype).max(dim=1)
                    right = fits if left_out is None else fits | left_out
                    hit[rows] = torch.where(top > best[rows], right.gather(1, at[:, None])[:, 0], hit[rows])
                    best[rows] = torch.maximum(best[rows], top)
                if learns:
                    d_logits = torch.sigmoid(logits) - fits.to(logits.dtype)  # −z · σ(−z · logit)
                    if left_out is not None:
                        d_logits.masked_fill_(left_out, 0.0)
                    d_scale += (d_logits * cosine).sum()
                    d_bias += d_logits.sum()
                    d_logits = d_logits.to(image.dtype)
                    d_image[rows] += scale * (d_logits @ text)
                    d_text += scale * (d_logits.T @ image[rows])
            if number > 1:  # the last pass brings the gradients home
                rows_ahead = counts[(rank - 1 - turn) % number]
                text, d_text, *rest = ranks.pass_on(
                    [text, d_text, *([] if of_texts is None else [of_texts])], rows_ahead
                )
                of_texts = rest[0] if rest else None
        times = number / sum(counts)
        grads = (d_image, d_text, d_scale.to(scale.dtype).view_as(scale), d_bias.to(bias.dtype).view_as(bias))
        ctx.save_for_backward(*(grad * times for grad in grads))
        loss, accuracy = ranks.total(share) / sum(counts), ranks.total(hit.sum()) / images
        ctx.mark_non_differentiable(accuracy)
        return loss, accuracy

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[Any, ...]:  # type: ignore[no-untyped-def]
        return (*(grad.to(saved.dtype) * saved for saved in ctx.saved_tensors), None, None, None)


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in ("owners", "groups")}


@dataclass(frozen=True)
class SoftmaxLoss:
    """`softmax_contrastive` of the network's output, whose scale stays at most `most_scale` (CLIP, Sec. 2.5).

    The network's own `limit_scale(most)`, where it has one, sees to that before each step: some learn the scale's
    logarithm, others what it divides by.
    """

    kind: Literal["softmax"] = "softmax"
    most_scale: float = 100.0
    label_smoothing: float = 0.0

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        return self.compare(self.embed(network, batch), batch.get("owners"), batch.get("groups"))

    def embed(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Embeddings:
        """The part of the loss that goes through the network, example by example."""
        limit = getattr(network, "limit_scale", None)
        if limit is not None:
            limit(self.most_scale)
        embeddings: Embeddings = network(**_inputs(batch))
        return embeddings

    def compare(self, embeddings: Embeddings, owners: Tensor | None = None, groups: Tensor | None = None) -> Losses:
        """The part that needs the whole batch at once."""
        return _measured(softmax_contrastive(embeddings, self.label_smoothing, owners, groups), embeddings)


@dataclass(frozen=True)
class SigmoidLoss:
    """`sigmoid_contrastive` of the network's output.

    `bias`: where the network's bias starts, −ln(batch size) for small batches; −10, the paper's, suits 32k (spec §3).
    """

    kind: Literal["sigmoid"] = "sigmoid"
    bias: float | None = None
    chunk: int = CHUNK

    def begin(self, network: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Set the bias before the first step."""
        if self.bias is not None:
            with torch.no_grad():
                network.get_parameter("bias").fill_(self.bias)

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        return self.compare(self.embed(network, batch), batch.get("owners"), batch.get("groups"))

    def embed(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Embeddings:
        """The part of the loss that goes through the network, example by example."""
        embeddings: Embeddings = network(**_inputs(batch))
        return embeddings

    def compare(self, embeddings: Embeddings, owners: Tensor | None = None, groups: Tensor | None = None) -> Losses:
        """The part that needs the whole batch at once."""
        return _measured(sigmoid_contrastive(embeddings, owners, self.chunk, groups), embeddings)


def _measured(contrast: Contrast, embeddings: Embeddings) -> Losses:
    return Losses(contrast.loss, {"accuracy": contrast.accuracy.detach(), "scale": embeddings.scale.detach()})
