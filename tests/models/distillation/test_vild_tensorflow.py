"""The released checkpoints of ViLD: every variable of the reference by its name, on ones that the test writes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rebus.backbones.vision.mask_rcnn import MaskRCNNConfig, detector_backbone
from rebus.core.errors import BadConfig
from rebus.models.distillation.vild import PRESETS, SYSTEM, ViLD
from rebus.models.distillation.vild_config import ViLDConfig
from rebus.open_checkpoint import open_checkpoint
from rebus.weights.checkpoint_files import open_weights
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.load_weights import load_into
from tests.weights.tensor_bundle import write_bundle

LAYOUT = SYSTEM.layouts["tensorflow"]
HEAD = "frcnn_layer_0/fast_rcnn_head/"


def small(variant):
    backbone = detector_backbone(variant="resnet50", depths=(2, 1, 1, 1), channels=(2, 3, 4, 5))
    image = MaskRCNNConfig(backbone=backbone, image_size=64, width=6, mlp_width=10, num_proposals=9)
    return ViLDConfig(image=image, embed=7, variant=variant, num_detections=9)


def filled(cfg):
    torch.manual_seed(0)
    network = ViLD(cfg).eval()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.1, 1)
    return network


def released(network):
    """Its weights as the release would have them, with what else lies in a TF1 checkpoint."""
    tensors = LAYOUT.keys(network.cfg).to_theirs(network.state_dict())
    found = {name: tensor.load() for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    extra = {f"{name}/Momentum": torch.zeros_like(t) for name, t in found.items() if not name.endswith("moving_mean")}
    return {**found, **extra, "global_step": torch.tensor(180_000), f"{HEAD}class-predict/kernel": torch.zeros(7, 12)}


@pytest.mark.parametrize("variant", ["vild", "ensemble"])
def test_a_checkpoint_fills_the_network(tmp_path, variant):
    network = filled(small(variant))
    index = write_bundle(tmp_path / "model.ckpt-180000", released(network), shards=2)
    arrays = LAYOUT.prepare(open_weights(index))
    assert LAYOUT.recognises(arrays)
    again = load_into(ViLD(network.cfg), LAYOUT.keys(network.cfg).to_ours(arrays)).eval()
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    pixels, labels = torch.randn(1, 3, 64, 64), torch.nn.functional.normalize(torch.randn(3, 7), dim=-1)
    for one, other in zip(network.find_regions(pixels, labels)[0], again.find_regions(pixels, labels)[0], strict=True):
        torch.testing.assert_close(one, other)


def names_of(preset):
    """name → shape in a released checkpoint of the true size."""
    with torch.device("meta"):
        network = ViLD(PRESETS[preset])
    tensors = LAYOUT.keys(network.cfg).to_theirs(network.state_dict())
    return {name: t.shape for name, t in tensors.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("preset", ["resnet50", "resnet50_ensemble", "resnet152", "resnet152_ensemble"])
def test_what_a_checkpoint_is_follows_from_its_names(preset):
    shapes = names_of(preset)
    assert LAYOUT.infer_config(shapes) == PRESETS[preset]
    assert LAYOUT.recognises(shapes)


def test_variables_have_the_reference_s_names_and_shapes():
    shapes = names_of("resnet50_ensemble")
    assert f"{HEAD}distill-project-to-clip/kernel" in shapes
    wanted = {
        "resnet50/conv2d/kernel": (7, 7, 3, 64),
        "resnet50/conv2d_1/kernel": (1, 1, 64, 256),  # the shortcut first
        "resnet50/conv2d_2/kernel": (1, 1, 64, 64),
        "resnet50/conv2d_3/kernel": (3, 3, 64, 64),
        "resnet50/conv2d_4/kernel": (1, 1, 64, 256),
        "resnet50/conv2d_5/kernel": (1, 1, 256, 64),
        "resnet50/conv2d_11/kernel": (1, 1, 256, 512),  # of the second stage
        "resnet50/conv2d_52/kernel": (1, 1, 512, 2048),
        "resnet50/batch_normalization/gamma": (64,),
        "resnet50/batch_normalization_1/moving_variance": (256,),
        "resnet50/batch_normalization_52/moving_mean": (2048,),
        "fpn/l5/kernel": (1, 1, 2048, 256),
        "fpn/post_hoc_d2/kernel": (3, 3, 256, 256),
        "fpn/p6/bias": (256,),
        "fpn/p6-bn/beta": (256,),
        "rpn_head/rpn-1/kernel": (3, 3, 256, 256),
        "rpn_head/rpn-l2-bn/gamma": (256,),
        "rpn_head/rpn-l6-bn-1/gamma": (256,),
        "rpn_head/rpn-class/kernel": (1, 1, 256, 3),
        "rpn_head/rpn-box/kernel": (1, 1, 256, 12),
        f"{HEAD}conv_3/kernel": (3, 3, 256, 256),
        f"{HEAD}fc6/kernel": (12544, 1024),
        f"{HEAD}fc7/kernel": (1024, 1024),
        f"{HEAD}project-to-clip/kernel": (1024, 512),
        f"{HEAD}background-class-predict/kernel": (512, 1),
        f"{HEAD}box-predict/kernel": (1024, 4),
        f"{HEAD}distill_conv_0/kernel": (3, 3, 256, 256),
        f"{HEAD}distill_fc6/kernel": (12544, 1024),
        f"{HEAD}distill_fc7/bias": (1024,),
        f"{HEAD}batch_normalization/gamma": (256,),
        f"{HEAD}batch_normalization_5/gamma": (1024,),
        f"{HEAD}batch_normalization_6/gamma": (256,),
        f"{HEAD}batch_normalization_11/gamma": (1024,),
        "mask_head/mask-conv-l3/kernel": (3, 3, 256, 256),
        "mask_head/conv5-mask/kernel": (2, 2, 256, 256),
        "mask_head/mask_fcn_logits/kernel": (1, 1, 256, 1),
        "mask_head/batch_normalization_4/gamma": (256,),
    }
    assert {name: shapes.get(name) for name in wanted} == wanted
    trained = sum(np.prod(shape) for name, shape in shapes.items() if "moving_" not in name)
    assert trained == 64_838_228
    assert "resnet50/conv2d_53/kernel" not in shapes


def test_the_cells_of_a_box_are_laid_in_a_row_as_tensorflow_does():
    network = filled(small("vild"))
    theirs = LAYOUT.keys(network.cfg).to_theirs(network.state_dict())
    kernel, bias = theirs[f"{HEAD}fc6/kernel"].load(), theirs[f"{HEAD}fc6/bias"].load()
    cells = torch.randn(2, 6, 7, 7)
    wanted = network.image.box_head.linears[0](cells.flatten(1))
    torch.testing.assert_close(cells.permute(0, 2, 3, 1).flatten(1) @ kernel + bias, wanted, atol=1e-4, rtol=1e-5)


def test_the_transposed_convolution_is_turned_and_not_flipped():
    """TensorFlow's kernel (height, width, out, in): each input cell adds its kernel to the two by two under it."""
    network = filled(small("vild"))
    kernel = LAYOUT.keys(network.cfg).to_theirs(network.state_dict())["mask_head/conv5-mask/kernel"].load()
    x, up = torch.randn(1, 6, 3, 3), network.image.mask_head.up
    wanted = torch.zeros(6, 6, 6)
    for row in range(3):
        for column in range(3):
            for y in range(2):
                for x_ in range(2):
                    wanted[:, 2 * row + y, 2 * column + x_] += kernel[y, x_] @ x[0, :, row, column]
    torch.testing.assert_close(up(x)[0], wanted + up.bias[:, None, None], atol=1e-4, rtol=1e-5)


def test_another_backbone_is_refused():
    shapes = {name: shape for name, shape in names_of("resnet50").items() if not name.startswith("resnet50/conv2d_5")}
    with pytest.raises(BadConfig, match="a backbone of 49 convolutions"):
        LAYOUT.infer_config(shapes)


def test_an_unpacked_archive_opens_by_its_directory(tmp_path, monkeypatch):
    """The names and shapes of the true size over a file of holes; nothing of it is read."""
    shapes = {**names_of("resnet50_ensemble"), "global_step": ()}
    nowhere = {name: LazyTensor(shape, torch.float32, lambda: None) for name, shape in shapes.items()}
    (tmp_path / "model.ckpt-180000.index").write_bytes(b"index")
    (tmp_path / "model.ckpt-180000.meta").write_bytes(b"graph")
    monkeypatch.setattr("rebus.weights.checkpoint_files.open_bundle", lambda path: nowhere)
    for source in (tmp_path, tmp_path / "model.ckpt-180000.index"):
        opened = open_checkpoint(source)
        assert opened.system.name == "vild"
        assert opened.config == PRESETS["resnet50_ensemble"]
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in ViLD(opened.config).state_dict().items()}
        assert {name: tensor.shape for name, tensor in opened.tensors.items()} == wanted
    assert replace(opened.config, variant="vild") == PRESETS["resnet50"]
