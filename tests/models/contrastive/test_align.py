"""ALIGN: a temperature that is free and stays positive, smoothed labels, statistics and padding as in the paper."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rebus import catalog
from rebus.backbones.vision.efficientnet import EfficientNet
from rebus.core.errors import BadConfig
from rebus.models.contrastive import align
from rebus.models.contrastive.align_config import align_image, read_transformers, write_transformers
from rebus.objectives import SoftmaxLoss, objective_of, softmax_contrastive
from rebus.tasks.embed import scaled
from rebus.tasks.task_model import TaskModel


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return align.ALIGN(align.PRESETS["tiny"])


@pytest.fixture
def batch(network):
    return align.example(network.cfg, 3)


@pytest.mark.parametrize(("temperature", "scale"), [(-0.3, 100.0), (0.001, 100.0), (0.07, 1 / 0.07), (2.0, 0.5)])
def test_a_step_that_carries_the_temperature_across_zero_is_put_back(network, batch, temperature, scale):
    """Above, it is free: unlike CLIP's scale, ALIGN's may fall below 1."""
    network.temperature.data.fill_(temperature)
    losses = SoftmaxLoss()(network.eval(), batch)
    assert float(losses.parts["scale"]) == pytest.approx(scale)
    assert float(network.temperature.detach()) == pytest.approx(1 / scale)


def test_it_is_trained_with_smoothed_labels(network, batch):
    objective = objective_of(align.SYSTEM, align.PRESETS["tiny"])
    with torch.no_grad():
        found = network.eval()(**batch)
        assert objective(network, batch).total == softmax_contrastive(found, 0.1).loss
        assert objective(network, batch).total != softmax_contrastive(found).loss


def test_the_loss_of_perfect_pairs_has_the_floor_of_the_spec():
    """Eight orthogonal pairs: 1.3615 at a temperature of 1, 5.6 at 1/64 (by hand: 64 · 0.1 · 7/8)."""
    from rebus.core.outputs import Embeddings

    def loss(scale):
        return float(softmax_contrastive(Embeddings(torch.eye(8), torch.eye(8), torch.tensor(scale)), 0.1).loss)

    assert loss(1.0) == pytest.approx(1.3615, abs=1e-4)
    assert loss(64.0) == pytest.approx(5.6, abs=1e-4)


def test_tasks_see_cosines_divided_by_the_temperature(network):
    network.temperature.data.fill_(0.05)
    model = TaskModel.__new__(TaskModel)
    object.__setattr__(model, "network", network)
    torch.testing.assert_close(scaled(model, torch.tensor([[0.1, 0.3]])), torch.tensor([[2.0, 6.0]]))


def test_everything_but_the_pooler_learns(network, batch):
    network.train()
    SoftmaxLoss()(network, batch).total.backward()
    still = {name for name, p in network.named_parameters() if p.grad is None}
    assert still == {"text.pooler.weight", "text.pooler.bias"}


def test_the_stages_of_289_pixels_are_those_of_the_released_network(network):
    sizes = []
    hooks = [
        m.register_forward_hook(lambda m, i, o: sizes.append(o.shape[-1]))
        for m in network.image.modules()
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    ]
    with torch.no_grad():
        network.eval().embed_image(torch.zeros(1, 3, 289, 289))
    for hook in hooks:
        hook.remove()
    assert sizes == [144, 72, 36, 18, 9]


def test_texts_of_the_example_are_as_long_as_in_training_not_as_bert_could_read():
    cfg = replace(align.PRESETS["tiny"], text=replace(align.PRESETS["tiny"].text, context=512))
    assert align.example(cfg, 2)["tokens"].shape == (2, 64)
    assert align.example(align.PRESETS["tiny"], 2)["tokens"].shape == (2, 21)


def test_images_are_prepared_as_the_released_file_says():
    spec = align.image_spec(align.PRESETS["b7_base"])
    assert (spec.size, spec.resize, spec.side, spec.resample) == ((289, 289), "exact", 346, "bilinear")
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.5,) * 3)
    assert align.text_spec(align.PRESETS["b7_base"]).context == 64


@pytest.mark.parametrize("preset", ["b5_base", "b3_mini"])
def test_sizes_with_a_projection_are_written_and_read(preset):
    cfg = align.PRESETS[preset]
    written = write_transformers(cfg)
    assert written["image_projection"] is True
    assert read_transformers(written) == cfg
    assert cfg.image.widths[-1] != cfg.embed == 640


@pytest.mark.parametrize(("momentum", "written"), [(0.01, 0.99), (0.1, 0.9), (0.3, 0.7)])
def test_the_momentum_of_the_statistics_is_written_as_tensorflow_states_it(momentum, written):
    cfg = replace(align.PRESETS["tiny"], image=replace(align.PRESETS["tiny"].image, momentum=momentum))
    data = write_transformers(cfg)
    assert data["vision_config"]["batch_norm_momentum"] == written
    assert read_transformers(data) == cfg
    data["vision_config"]["batch_norm_momentum"] = 1.5
    with pytest.raises(BadConfig, match=r"batch_norm_momentum: expected .* got 1\.5"):
        read_transformers(data)


def test_towers_that_the_layout_does_not_have_are_refused():
    cfg = align.PRESETS["tiny"]
    for image in (replace(cfg.image, head=True), replace(cfg.image, padding="same"), replace(cfg.image, num_classes=3)):
        with pytest.raises(BadConfig, match="neither head nor classes"):
            write_transformers(replace(cfg, image=image))
    with pytest.raises(BadConfig, match="with a pooler"):
        write_transformers(replace(cfg, text=replace(cfg.text, pooler=False)))
    with pytest.raises(BadConfig, match="a width multiplier of"):
        write_transformers(replace(cfg, image=align_image(scales=(0.25, 1.0)), embed=80))


def test_the_parts_count_as_in_the_spec():
    with torch.device("meta"):
        towers = {v: EfficientNet(align_image(variant=v)) for v in ("b1", "b3", "b5", "b7", "l2")}
    counts = {v: sum(p.numel() for p in tower.parameters()) for v, tower in towers.items()}
    assert counts == {"b1": 6_101_024, "b3": 10_103_336, "b5": 27_288_112, "b7": 62_143_440, "l2": 467_219_796}
    assert catalog.info("align/base").repo == "kakaobrain/align-base"
