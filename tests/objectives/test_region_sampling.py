"""Anchors and regions against loops over the rules, and what is drawn of them."""

import torch
from torchvision.ops import box_iou

from rebus.objectives.region_sampling import Matches, match_anchors, match_regions, sample


def boxes(number, seed, side=40.0):
    corners = torch.rand(number, 2, 2, generator=torch.Generator().manual_seed(seed)) * side
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return torch.cat([low, high + 1], dim=1)


def test_anchors_follow_the_rules():
    anchors, objects = boxes(300, 0), boxes(4, 1)
    objects = torch.cat([objects, anchors[7:8]])  # one that an anchor fits exactly
    overlaps = box_iou(anchors, objects)
    found = match_anchors(anchors, objects)
    best = [i for o in range(5) for i in range(300) if overlaps[i, o] == overlaps[:, o].max()]
    for i in range(300):
        most = float(overlaps[i].max())
        assert bool(found.positive[i]) == (most >= 0.7 or i in best)
        assert bool(found.negative[i]) == (most < 0.3 and i not in best)
    assert found.objects[7] == 4
    for o in range(5):  # each object has its best anchor, even where that overlaps another one more
        own = int(overlaps[:, o].argmax())
        assert found.positive[own]
    assert (~found.positive & ~found.negative).any()


def test_regions_follow_the_rules():
    objects = boxes(3, 1)
    regions = torch.cat([objects + 1, boxes(100, 2)])
    overlaps = box_iou(regions, objects)
    found = match_regions(regions, objects)
    assert found.positive.equal(overlaps.amax(dim=1) >= 0.5)
    assert found.negative.equal(~found.positive)
    assert found.objects.equal(overlaps.argmax(dim=1))


def test_without_objects_all_is_background():
    for match in (match_anchors, match_regions):
        found = match(boxes(5, 0), torch.zeros(0, 4))
        assert found.negative.all()
        assert not found.positive.any()


def test_an_object_far_from_all_anchors_has_none():
    found = match_anchors(boxes(5, 0), torch.tensor([[500.0, 500.0, 510.0, 510.0]]))
    assert not found.positive.any()


def matches(positive, neither, number=2000):
    is_positive = torch.arange(number) < positive
    ignored = torch.arange(number) >= number - neither
    return Matches(torch.zeros(number, dtype=torch.int64), is_positive, ~is_positive & ~ignored)


def test_a_quarter_has_an_object_at_most_and_the_rest_fills_up():
    def of(found):
        return torch.Generator().manual_seed(found)

    many, few = matches(900, 100), matches(10, 0)
    drawn = sample(many, 512, 0.25, of(0))
    assert len(drawn.unique()) == 512
    assert many.positive[drawn[:128]].all()
    assert many.negative[drawn[128:]].all()
    drawn = sample(few, 512, 0.25, of(0))
    assert few.positive[drawn].sum() == 10
    assert len(drawn) == 512
    assert len(sample(matches(3, 1990), 512, 0.25, of(0))) == 10  # no more there are
    assert sample(many, 512, 0.25, of(0)).equal(sample(many, 512, 0.25, of(0)))
    assert not sample(many, 512, 0.25, of(0)).equal(sample(many, 512, 0.25, of(1)))
