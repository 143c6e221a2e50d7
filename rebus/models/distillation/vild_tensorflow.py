"""The released checkpoints of ViLD, which are TensorFlow 1's, by the names of their variables.

Layers without a name of their own are numbered as they were made: in a stage's first block of the backbone the shortcut
comes before the three convolutions. The kind follows from the variables; the table in the release's README has two rows
of configurations exchanged.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch

from rebus.backbones.vision.fpn import FIRST, LAST
from rebus.backbones.vision.mask_rcnn import MaskRCNNConfig, detector_backbone
from rebus.backbones.vision.roi_heads import BOX_SIDE, NUM_CONVS
from rebus.core.errors import BadConfig
from rebus.models.distillation.vild_config import ViLDConfig
from rebus.weights.key_sides import HWIO, Name, Permuted, Reshaped, Row, Transposed
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor

_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_HEAD = "frcnn_layer_0/fast_rcnn_head/"


def recognises(names: Iterable[str]) -> bool:
    """Whether these are a checkpoint's variables."""
    return f"{_HEAD}project-to-clip/kernel" in set(names)


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> ViLDConfig:
    """The network of a checkpoint, without a text encoder: there is none in it. Raises `BadConfig` for a backbone of
    another depth."""
    convs = sum(name.split("/")[1].startswith("conv2d") and name.endswith("/kernel") for name in shapes if "/" in name)
    found = {1 + 4 + 3 * sum(depths): name for name, depths in _DEPTHS.items()}  # a shortcut in each of four stages
    if convs not in found:
        raise BadConfig(f"a backbone of {convs} convolutions: expected one of {', '.join(_DEPTHS)}")
    mlp_width, embed = shapes[f"{_HEAD}project-to-clip/kernel"]
    image = MaskRCNNConfig(
        backbone=detector_backbone(variant=found[convs]), width=shapes["fpn/l2/kernel"][-1], mlp_width=mlp_width
    )
    double = f"{_HEAD}distill-project-to-clip/kernel" in shapes
    return ViLDConfig(image=image, embed=embed, variant="ensemble" if double else "vild")


def prepare(arrays: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """PyTorch also counts the batches that statistics were taken over, which matters only for averages over all."""
    counts = {
        f"{name.removesuffix('moving_mean')}num_batches_tracked": LazyTensor.of(torch.tensor(0))
        for name in arrays
        if name.endswith("/moving_mean")
    }
    return {**arrays, **counts}


def keys(cfg: ViLDConfig) -> KeyMap:
    """The table; optimiser state, the step, and the embeddings of LVIS's names are dropped.

    Raises `BadConfig` for a network that the release has no place for.
    """
    if cfg.text is not None or cfg.image.backbone.variant not in _DEPTHS or cfg.variant not in ("vild", "ensemble"):
        raise BadConfig(f"the TensorFlow layout holds {', '.join(_DEPTHS)}, without a text encoder, vild or ensemble")
    head = [*_box_head(cfg, "", "image.box_head", 0), *_dense(f"{_HEAD}project-to-clip", "project")]
    if cfg.variant == "ensemble":
        head += _box_head(cfg, "distill_", "distill_head", 6)
        head += _dense(f"{_HEAD}distill-project-to-clip", "distill_project")
    rows: list[Row] = [
        *_backbone(cfg),
        *_fpn(),
        *_rpn(),
        *head,
        (Transposed(f"{_HEAD}background-class-predict/kernel"), "background"),
        *_dense(f"{_HEAD}box-predict", "image.deltas"),
        *_mask_head(),
    ]
    return KeyMap(rows, ignore=["*/Momentum", "global_step", f"{_HEAD}class-predict/kernel"])


def _backbone(cfg: ViLDConfig) -> Iterator[Row]:
    variant, depths = cfg.image.backbone.variant, cfg.image.backbone.depths
    net = "image.backbone.net."
    made = [("conv1", "bn1")]
    for stage, depth in enumerate(depths or _DEPTHS[variant], 1):
        for block in range(depth):
            where = f"layer{stage}.{block}."
            if block == 0:
                made.append((f"{where}downsample.0", f"{where}downsample.1"))
            made += [(f"{where}conv{i}", f"{where}bn{i}") for i in (1, 2, 3)]
    for number, (conv, norm) in enumerate(made):
        yield Permuted(f"{variant}/{_numbered('conv2d', number)}/kernel", HWIO), f"{net}{conv}.weight"
        yield from _norm(f"{variant}/{_numbered('batch_normalization', number)}", f"{net}{norm}")


def _fpn() -> Iterator[Row]:
    for i, level in enumerate(range(FIRST, LAST)):
        yield from _conv(f"fpn/l{level}", f"image.fpn.lateral.{i}")
        yield from _conv(f"fpn/post_hoc_d{level}", f"image.fpn.output.{i}")
    yield from _conv(f"fpn/p{LAST}", "image.fpn.coarsest")
    for i, level in enumerate(range(FIRST, LAST + 1)):
        yield from _norm(f"fpn/p{level}-bn", f"image.fpn.norms.{i}")


def _rpn() -> Iterator[Row]:
    for number, ending in enumerate(("", "-1")):
        yield from _conv(f"rpn_head/rpn{ending}", f"image.rpn.convs.{number}")
        for i, level in enumerate(range(FIRST, LAST + 1)):
            yield from _norm(f"rpn_head/rpn-l{level}-bn{ending}", f"image.rpn.norms.{i}.{number}")
    yield from _conv("rpn_head/rpn-class", "image.rpn.logits")
    yield from _conv("rpn_head/rpn-box", "image.rpn.deltas")


def _box_head(cfg: ViLDConfig, kind: str, ours: str, first_norm: int) -> Iterator[Row]:
    width, mlp_width = cfg.image.width, cfg.image.mlp_width
    for i in range(NUM_CONVS):
        yield from _conv(f"{_HEAD}{kind}conv_{i}", f"{ours}.convs.{i}")
        yield from _norm(f"{_HEAD}{_numbered('batch_normalization', first_norm + i)}", f"{ours}.conv_norms.{i}")
    # There a box's cells are laid in a row as height, width, channels; here channels come first.
    there, here = (mlp_width, BOX_SIDE, BOX_SIDE, width), (mlp_width, width, BOX_SIDE, BOX_SIDE)
    flat = (mlp_width, width * BOX_SIDE**2)
    cells = Reshaped(Transposed(f"{_HEAD}{kind}fc6/kernel"), flat, there)
    yield Reshaped(Permuted(cells, (0, 3, 1, 2)), here, flat), f"{ours}.linears.0.weight"
    yield f"{_HEAD}{kind}fc6/bias", f"{ours}.linears.0.bias"
    yield from _dense(f"{_HEAD}{kind}fc7", f"{ours}.linears.1")
    for i in range(2):
        number = first_norm + NUM_CONVS + i
        yield from _norm(f"{_HEAD}{_numbered('batch_normalization', number)}", f"{ours}.linear_norms.{i}")


def _mask_head() -> Iterator[Row]:
    head = "mask_head/"
    for i in range(NUM_CONVS):
        yield from _conv(f"{head}mask-conv-l{i}", f"image.mask_head.convs.{i}")
    yield from _conv(f"{head}conv5-mask", "image.mask_head.up")  # (height, width, out, in): the same order
    yield from _conv(f"{head}mask_fcn_logits", "image.mask_head.logits")
    for i in range(NUM_CONVS + 1):
        yield from _norm(f"{head}{_numbered('batch_normalization', i)}", f"image.mask_head.norms.{i}")


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _conv(theirs: str, ours: str) -> Iterator[Row]:
    yield Permuted(f"{theirs}/kernel", HWIO), f"{ours}.weight"
    yield f"{theirs}/bias", f"{ours}.bias"


def _dense(theirs: str, ours: str) -> Iterator[Row]:
    yield Transposed(f"{theirs}/kernel"), f"{ours}.weight"
    yield f"{theirs}/bias", f"{ours}.bias"


def _norm(theirs: str, ours: str) -> Iterator[Row]:
    names: dict[str, Name] = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "num_batches_tracked": "num_batches_tracked",
    }
    for there, here in names.items():
        yield f"{theirs}/{there}", f"{ours}.{here}"
