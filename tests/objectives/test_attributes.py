"""Encoders of one input: attributes of objects from a pooled vector, blanks in text alone."""

import torch
from torch.nn import functional as F

from rebus.backbones.text.bert import BERT, PRESETS
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_labels import SceneLabels
from rebus.data.scenes import COLOURS, SHAPES
from rebus.data.scenes.reader import scene_at
from rebus.objectives import AttributesLoss, MaskedTextLoss, attributes


def test_equals_the_sum_of_cross_entropies_over_what_is_there():
    torch.manual_seed(0)
    scores, kinds = torch.randn(3, 2, 8), (4, 3)
    labels = torch.tensor([[[1, 2], [3, 0]], [[0, 0], [-100, -100]], [[2, 1], [-100, -100]]])
    there = labels[..., 0] >= 0
    expected = F.binary_cross_entropy_with_logits(scores[..., 7], there.float())
    expected = expected + F.cross_entropy(scores[..., :4][there], labels[there][:, 0])
    expected = expected + F.cross_entropy(scores[..., 4:7][there], labels[there][:, 1])
    torch.testing.assert_close(attributes(scores, labels, kinds), expected)


def test_labels_are_the_objects_from_left_to_right():
    labels = SceneLabels().open(ModelInputs("any")).batch(3, 1, 4)["labels"]
    assert labels.shape == (4, 5, 4)
    objects = scene_at(3, 5, "train", 96).objects
    assert [(SHAPES[s], COLOURS[c]) for s, c, *_ in labels[1, : len(objects)].tolist()] == [
        (one.shape, one.colour) for one in objects
    ]
    assert (labels[1, len(objects) :] == -100).all()


def test_an_image_encoder_learns_from_labels_alone():
    torch.manual_seed(0)
    network = ViT(ViTConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, patch_size=24, image_size=96))
    objective, batch = AttributesLoss(), SceneLabels().open(ModelInputs("any")).batch(0, 0, 6)
    objective.extend(network)
    batch["pixels"] = batch["pixels"].float() / 255
    first = objective(network, batch)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(10):
        optimiser.zero_grad()
        objective(network, batch).total.backward()
        optimiser.step()
    assert objective(network, batch).total < first.total - 0.1
    assert set(first.parts) == {f"attribute_{i}" for i in range(4)}


def test_blanks_depend_on_the_batch_alone_and_spare_control_tokens():
    torch.manual_seed(0)
    network = BERT(PRESETS["tiny"]).eval()
    tokens = torch.randint(5, 67, (6, 12))
    tokens[:, 0], tokens[:, -1] = 2, 1
    batch = {"tokens": tokens, "mask": torch.ones_like(tokens, dtype=torch.bool)}
    objective = MaskedTextLoss(share=0.5)
    one, two = objective(network, batch), objective(network, batch)
    assert one.total == two.total > 0
    other = objective(network, {"tokens": tokens.flip(0), "mask": batch["mask"]})
    assert other.total != one.total
    asked: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda module, args: asked.append(args[0]))
    objective(network, batch)
    assert (asked[0][:, [0, -1]] == tokens[:, [0, -1]]).all()
    assert (asked[0] == objective.mask_id).any()


def test_captions_hold_a_token_for_each_blank():
    batch = SceneCaptions(context=40, begin=True).open(ModelInputs("any")).batch(0, 0, 3)
    assert (batch["tokens"] >= 5).sum() > 0
