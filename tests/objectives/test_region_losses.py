"""The losses of a detector against plain transcriptions, element by element, in float64: values and gradients."""

import math

import pytest
import torch

from rebus.objectives import region_losses as losses
from rebus.objectives.distillation import embedding_distillation
from rebus.objectives.region_text import judged_classes, region_text

LEVELS = (12, 5)  # anchors of two levels


def drawn(*shape, seed=0, grad=True):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_(grad)


def chosen(*shape, seed=0, share=0.4):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def huber(error, delta):
    error = abs(error)
    return error * error / 2 if error <= delta else delta * (error - delta / 2)


def cross_entropy(logit, target):
    p = 1 / (1 + torch.exp(-logit))
    return -torch.log(p) if target else -torch.log(1 - p)


def check(ours, theirs, *inputs):
    """Equal in value and in the gradient of each input."""
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, plain in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-10, atol=1e-12)


def test_scores_of_proposals_are_summed_over_the_sampled_anchors():
    logits = [drawn(3, n, seed=i) for i, n in enumerate(LEVELS)]
    targets = [chosen(3, n, seed=10 + i) for i, n in enumerate(LEVELS)]
    sampled = [chosen(3, n, seed=20 + i) for i, n in enumerate(LEVELS)]
    plain = torch.zeros((), dtype=torch.float64)
    for level, n in enumerate(LEVELS):
        for image in range(3):
            for anchor in range(n):
                if sampled[level][image, anchor]:
                    plain = plain + cross_entropy(logits[level][image, anchor], targets[level][image, anchor]) / (
                        3 * 256
                    )
    check(losses.proposal_score_loss(logits, targets, sampled, 256), plain, *logits)


def test_boxes_of_proposals_are_averaged_over_what_is_not_zero_at_each_level():
    deltas = [drawn(2, n, 4, seed=i) for i, n in enumerate(LEVELS)]
    targets = [drawn(2, n, 4, seed=30 + i, grad=False) for i, n in enumerate(LEVELS)]
    targets[0][0, :, 2] = 0.0  # a coordinate that is right already is not in the mean
    positive = [chosen(2, n, seed=40 + i) for i, n in enumerate(LEVELS)]
    plain = torch.zeros((), dtype=torch.float64)
    for level, n in enumerate(LEVELS):
        found = [
            huber(deltas[level][image, anchor, c] - targets[level][image, anchor, c], 1 / 9)
            for image in range(2)
            for anchor in range(n)
            for c in range(4)
            if positive[level][image, anchor] and targets[level][image, anchor, c] != 0
        ]
        plain = plain + sum(found) / len(found)
    check(losses.proposal_box_loss(deltas, targets, positive), plain, *deltas)


def test_boxes_and_masks_of_regions():
    deltas, wanted = drawn(5, 4), 3 * drawn(5, 4, seed=1, grad=False)  # some errors are above 1
    plain = sum(huber(deltas[i, c] - wanted[i, c], 1.0) for i in range(5) for c in range(4)) / 20
    check(losses.region_box_loss(deltas, wanted), plain, deltas)
    logits, inside = drawn(2, 3, 3, seed=2), chosen(2, 3, 3, seed=3)
    plain = (
        sum(cross_entropy(logits[i, y, x], inside[i, y, x]) for i in range(2) for y in range(3) for x in range(3)) / 18
    )
    check(losses.region_mask_loss(logits, inside.double()), plain, logits)


def test_without_anything_to_learn_from_the_losses_are_zero_and_have_gradients():
    none = torch.zeros(2, 7, dtype=torch.bool)
    logits, deltas = drawn(2, 7), drawn(2, 7, 4)
    found = [
        losses.proposal_score_loss([logits], [none], [none], 256),
        losses.proposal_box_loss([deltas], [deltas.detach()], [none]),
        losses.region_box_loss(deltas[0, :0], deltas[0, :0].detach()),
        region_text(drawn(0, 3), torch.zeros(0, dtype=torch.int64)),
    ]
    assert [float(value.detach()) for value in found] == [0.0] * 4
    torch.stack([value.double() for value in found]).sum().backward()
    assert not logits.grad.any()
    assert not deltas.grad.any()


def named(scores, labels, judged):
    """Mean of −log of the softmax over the classes that each region is compared with."""
    total = torch.zeros((), dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        over = sum(torch.exp(scores[row, c]) for c in range(scores.shape[1]) if judged[row][c])
        total = total - torch.log(torch.exp(scores[row, label]) / over)
    return total / len(labels)


def test_names_are_learned_by_cross_entropy():
    scores, labels = drawn(6, 4), torch.tensor([0, 3, 1, 0, 2, 2])
    check(region_text(scores, labels), named(scores, labels, [[True] * 4] * 6), scores)


def test_where_annotation_is_federated_a_background_region_is_compared_with_what_the_image_was_searched_for():
    scores, labels = drawn(4, 4), torch.tensor([0, 2, 0, 3])
    images = torch.tensor([0, 0, 1, 1])
    known = torch.tensor([[True, False, False], [False, True, True]])  # classes 1, 2, 3 of each image
    judged = judged_classes(labels, images, known)
    assert judged.tolist() == [
        [True, True, False, False],  # background of the first image: class 1 alone is known
        [True, True, True, True],  # a labelled region is none of the others
        [True, False, True, True],
        [True, True, True, True],
    ]
    loss = region_text(scores, labels, judged)
    check(loss, named(scores, labels, judged), scores)
    (grad,) = torch.autograd.grad(region_text(scores, labels, judged), scores)
    assert not grad[0, 2:].any(), "what may be there is not pushed away"
    assert grad[1].all()


def test_the_teacher_is_copied_by_the_sum_over_the_embedding():
    student, teacher = drawn(3, 5), drawn(3, 5, seed=1, grad=False)
    plain = torch.zeros((), dtype=torch.float64)
    for row in (0, 2):
        s, t = student[row] / student[row].norm(), teacher[row] / teacher[row].norm()
        plain = plain + sum(abs(s[i] - t[i]) for i in range(5)) / 2
    check(embedding_distillation(student, teacher, torch.tensor([True, False, True])), plain, student)


def test_masks_of_regions_are_read_from_the_object_s_box():
    """A mask whose left half is the object; regions that are its box, its right half, and a box twice as wide."""
    masks = torch.zeros(1, 8, 8, dtype=torch.float64)
    masks[:, :, :4] = 1
    boxes = torch.tensor([[10.0, 20.0, 26.0, 36.0]], dtype=torch.float64)
    regions = torch.tensor(
        [[10.0, 20.0, 26.0, 36.0], [18.0, 20.0, 26.0, 36.0], [2.0, 20.0, 34.0, 36.0]], dtype=torch.float64
    )
    found = losses.mask_targets(masks, boxes, regions, torch.zeros(3, dtype=torch.int64), 8)
    assert found[0].equal(masks[0])
    assert not found[1].any()
    assert found[2].equal(torch.tensor([0.0, 0, 1, 1, 0, 0, 0, 0], dtype=torch.float64).expand(8, 8))


@pytest.mark.parametrize("error", [0.05, 0.5])
def test_huber_s_corner_is_at_a_ninth_for_proposals(error):
    loss = losses.proposal_box_loss(
        [torch.full((1, 1, 4), 1.0 + error)], [torch.ones(1, 1, 4)], [torch.ones(1, 1).bool()]
    )
    assert math.isclose(float(loss), huber(error, 1 / 9), rel_tol=1e-5)
