"""The objective of ViLD on a stand-in for its network, whose proposals and scores are known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rebus.backbones.vision.rpn import LevelOutput, Proposals
from rebus.core.labels import IGNORED
from rebus.nn.boxes import BOX_WEIGHTS, encode_boxes, grid_anchors
from rebus.objectives import OBJECTIVES, DistilledDetectionLoss
from rebus.objectives.accumulate import split
from rebus.objectives.distillation import embedding_distillation
from rebus.objectives.region_text import region_text

SIDE, WIDTH, CLASSES = 64, 6, 3


class Detector(nn.Module):
    """Regions are embedded by their sides, deltas and masks are zero; it proposes one box on nothing."""

    def __init__(self, background=True, second_head=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0)))
        self.background = nn.Parameter(torch.ones(1, WIDTH)) if background else None
        self.distill_head = nn.Identity() if second_head else None
        self.seen, self.copied = [], []

    @property
    def image(self):
        return self

    def features(self, pixels):
        return [pixels.mean(dim=1, keepdim=True)]

    def rpn_outputs(self, maps):
        anchors = grid_anchors(8, 8, 8, scale=2.0)
        zeros = self.weight.sum() * torch.zeros(len(maps[0]), len(anchors))
        return [LevelOutput(zeros, zeros[..., None].expand(-1, -1, 4), anchors)]

    def proposals(self, levels, size):
        boxes = torch.tensor([[50.0, 50.0, 60.0, 60.0]])
        return Proposals([boxes] * len(levels[0].logits), [torch.ones(1)] * len(levels[0].logits))

    def region_embeddings(self, maps, boxes):
        self.seen.append(boxes)
        joined = torch.cat(boxes)
        return F.normalize(joined @ self.weight, dim=1), 0 * (joined @ self.weight[:, :4])

    def image_embeddings(self, maps, boxes):
        self.copied.append(boxes)
        return F.normalize(torch.cat(boxes) @ self.weight.flip(1), dim=1)

    def class_logits(self, embeddings, labels):
        return embeddings @ torch.cat([F.normalize(self.background, dim=1), labels]).T / 0.1

    def mask_logits(self, maps, boxes):
        return self.weight.sum() * torch.zeros(sum(map(len, boxes)), 4, 4)


def batch():
    """Two images: two things, of which one has an outline, and none; the teacher knows one region of the first."""
    boxes = torch.zeros(2, 3, 4)
    boxes[0, 0], boxes[0, 1] = torch.tensor([8.0, 8, 24, 24]), torch.tensor([30.0, 8, 46, 24])
    taught_boxes = torch.zeros(2, 2, 4)
    taught_boxes[0, 1] = torch.tensor([1.0, 2.0, 30.0, 40.0])
    random = torch.Generator().manual_seed(1)
    return {
        "pixels": torch.randn(2, 3, SIDE, SIDE, generator=random),
        "boxes": boxes,
        "labels": torch.tensor([[2, 0, IGNORED], [IGNORED] * 3]),
        "masks": torch.full((2, 3, 4, 4), 255, dtype=torch.uint8),
        "outlined": torch.tensor([[True, False, False], [False] * 3]),
        "classes": F.normalize(torch.randn(CLASSES, WIDTH, generator=random), dim=1),
        "taught_boxes": taught_boxes,
        "taught": torch.randn(2, 2, WIDTH, generator=random),
    }


def test_each_part_is_what_its_transcription_says():
    network, given = Detector(), batch()
    loss = DistilledDetectionLoss(num_regions=16)(network, given)
    (seen,) = network.seen
    # Of the first image the two things themselves, the proposal, and the teacher's region; of the second the proposal.
    assert sorted(seen[0].tolist()) == sorted(
        [[8, 8, 24, 24], [30, 8, 46, 24], [50, 50, 60, 60], [1, 2, 30, 40]], key=lambda b: b
    )
    assert seen[0][-1].tolist() == [1, 2, 30, 40]
    assert seen[1].tolist() == [[50, 50, 60, 60]]
    joined = torch.cat([seen[0][:3], seen[1]])
    labels = torch.tensor([{8.0: 3, 30.0: 1}.get(float(box[0]), 0) for box in joined])
    scores = network.class_logits(F.normalize(joined @ network.weight, dim=1), given["classes"])
    parts = loss.parts
    torch.testing.assert_close(parts["text"], region_text(scores, labels).detach())
    own = F.normalize(seen[0][-1:] @ network.weight, dim=1)
    torch.testing.assert_close(parts["image"], embedding_distillation(own, given["taught"][0, 1:]).detach())
    assert float(parts["box"]) == 0, "the labelled boxes themselves are right already"
    torch.testing.assert_close(parts["mask"], torch.tensor(2.0).log())
    # Half of at most 256 anchors has a thing; where nothing was sampled nothing counts. All logits are 0.
    assert 0 < float(parts["proposal_score"]) <= 0.6932
    total = sum(parts[name] for name in ("text", "box", "mask", "proposal_score", "proposal_box"))
    torch.testing.assert_close(loss.total.detach(), total + 0.5 * parts["image"])


def test_boxes_of_regions_that_are_off_are_learned():
    class Off(Detector):
        def proposals(self, levels, size):
            found = torch.tensor([[9.0, 8.0, 25.0, 26.0]])
            return Proposals([found, found], [torch.ones(1)] * 2)

    loss = DistilledDetectionLoss(num_regions=16)(Off(), batch())
    wanted = encode_boxes(torch.tensor([8.0, 8, 24, 24]), torch.tensor([9.0, 8, 25, 26]), BOX_WEIGHTS)
    rows = torch.stack([wanted, torch.zeros(4), torch.zeros(4)])
    torch.testing.assert_close(loss.parts["box"], F.huber_loss(torch.zeros(3, 4), rows))


def test_the_second_head_sees_the_teacher_s_regions_alone():
    network = Detector(second_head=True)
    DistilledDetectionLoss()(network, batch())
    assert [len(boxes) for boxes in network.seen[0]] == [3, 1]
    assert [boxes.tolist() for boxes in network.copied[0]] == [[[1, 2, 30, 40]], []]


def test_without_a_background_or_a_teacher_there_is_one_loss_less():
    loss = DistilledDetectionLoss()(Detector(background=False), batch())
    assert "text" not in loss.parts
    assert "image" in loss.parts
    without = {name: value for name, value in batch().items() if not name.startswith("taught")}
    assert "image" not in DistilledDetectionLoss()(Detector(), without).parts


def test_where_annotation_is_federated_background_is_compared_with_what_is_known():
    given = batch()
    plain = DistilledDetectionLoss(num_regions=16)(Detector(), given).parts["text"]
    everything = DistilledDetectionLoss(num_regions=16)(Detector(), given | {"known": torch.ones(2, 3).bool()})
    torch.testing.assert_close(everything.parts["text"], plain)
    nothing = DistilledDetectionLoss(num_regions=16)(Detector(), given | {"known": torch.zeros(2, 3).bool()})
    assert nothing.parts["text"] < plain


def test_an_image_without_anything_is_no_trouble():
    given = {name: value if name == "classes" else value[1:] for name, value in batch().items()}
    network = Detector()
    loss = DistilledDetectionLoss()(network, given)
    assert {"mask", "box", "proposal_box"} <= {name for name, value in loss.parts.items() if float(value) == 0}
    loss.total.backward()
    assert network.weight.grad.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_what_is_sampled_depends_on_the_step_in_training_and_on_nothing_else(training):
    class Ranked(Detector):
        def rpn_outputs(self, maps):
            (level,) = super().rpn_outputs(maps)
            return [level._replace(logits=level.logits + torch.linspace(-1, 1, len(level.anchors)))]

    network, losses = Ranked().train(training), []
    for seed, drawn in ((1, 1), (1, 5), (2, 1)):
        torch.manual_seed(seed)
        torch.rand(drawn)  # whatever else there is
        losses.append(float(DistilledDetectionLoss(num_anchors=4)(network, batch()).parts["proposal_score"]))
    assert losses[0] == losses[1]
    assert (losses[1] == losses[2]) is (not training)


def test_parts_of_a_batch_share_what_the_labels_are_called():
    parts = split(batch(), 2)
    assert all(torch.equal(part["classes"], batch()["classes"]) for part in parts)
    assert [len(part["pixels"]) for part in parts] == [1, 1]
    assert OBJECTIVES["distilled detection"] is DistilledDetectionLoss
    assert DistilledDetectionLoss().examples(batch()) == 2
