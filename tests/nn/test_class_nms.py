"""Many classes over the same boxes: class by class, as the reference does it."""

import torch
from torchvision.ops import box_iou, nms

from rebus.nn.class_nms import class_nms


def plainly(boxes, scores, most, num_kept):
    """Each class alone, then the best of all."""
    pairs = []
    for label in range(scores.shape[1]):
        at = [i for i in nms(boxes, scores[:, label], most).tolist() if scores[i, label] > 0]
        pairs += [(float(scores[i, label]), i, label) for i in at]
    return [(i, label) for _, i, label in sorted(pairs, reverse=True)[:num_kept]]


def test_equals_class_by_class():
    for seed, (number, classes, kept) in enumerate([(40, 7, 30), (200, 60, 300), (30, 3, 300), (1, 1, 5)]):
        torch.manual_seed(seed)
        corner = torch.rand(number, 2) * 20
        boxes = torch.cat([corner, corner + 5 + torch.rand(number, 2) * 20], dim=1)
        scores = torch.rand(number, classes) ** 3
        scores[torch.rand(number, classes) < 0.1] = 0
        at, label = class_nms(boxes, scores, max_overlap=0.5, num_kept=kept)
        assert list(zip(at.tolist(), label.tolist(), strict=True)) == plainly(boxes, scores, 0.5, kept)


def test_looks_further_than_the_first_candidates_where_they_all_overlap():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 10, 10]]).expand(4200, 4) + torch.rand(4200, 1) * 0.01
    boxes = torch.cat([boxes, torch.tensor([[50.0, 50, 60, 60], [80, 80, 90, 90]])])
    scores = torch.cat([0.5 + torch.rand(4200, 1) / 2, torch.tensor([[0.1], [0.2]])])
    at, label = class_nms(boxes, scores, max_overlap=0.5, num_kept=3)
    assert at.tolist() == [int(scores.argmax()), 4201, 4200]
    assert box_iou(boxes[at], boxes[at]).fill_diagonal_(0).max() == 0
    assert label.tolist() == [0, 0, 0]


def test_nothing_above_zero_is_nothing():
    at, label = class_nms(torch.rand(4, 4), torch.zeros(4, 9), max_overlap=0.5, num_kept=3)
    assert (len(at), len(label)) == (0, 0)
    assert len(class_nms(torch.zeros(0, 4), torch.zeros(0, 9), max_overlap=0.5, num_kept=3)[0]) == 0
