"""Tiny YOLOv2 and its Darknet files, against a plain transcription."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import batched_nms

from rebus.backbones.starter_networks import starter_detector
from rebus.backbones.vision.yolo import PRESETS, YOLO, YOLOConfig, read_cfg, read_darknet
from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile
from rebus.evaluate.detection import Detections, Truth, coco_scores

CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
POOL = "[maxpool]\nsize=2\nstride={}\n"
END = (
    "[convolutional]\nsize=1\nstride=1\npad=1\nfilters={}\nactivation=linear\n"
    "[region]  # the last\nanchors = {}\nclasses={}\ncoords=4\nnum={}\nsoftmax=1\n"
)


def cfg_text(cfg: YOLOConfig) -> str:
    text = f"[net]\nwidth={cfg.image_size}\nheight={cfg.image_size}\n"
    for number, width in enumerate(cfg.widths):
        text += CONV.format(width) + (POOL.format(2 if number < 5 else 1) if number < 6 else "")
    anchors = ", ".join(str(side) for anchor in cfg.anchors for side in anchor)
    return text + END.format(len(cfg.anchors) * (5 + cfg.num_classes), anchors, cfg.num_classes, len(cfg.anchors))


def write(folder: Path, cfg: YOLOConfig, header: bytes) -> list[np.ndarray]:
    """Random files; gives the arrays of the weights in their order: four of the normalisation, the kernel, …"""
    random = np.random.default_rng(0)
    arrays, ins = [], 3
    for width in cfg.widths:
        arrays += [random.normal(size=width), random.normal(size=width), random.normal(size=width)]
        arrays += [random.uniform(0.5, 2, size=width), random.normal(size=(width, ins, 3, 3)) * 0.3]
        ins = width
    outs = len(cfg.anchors) * (5 + cfg.num_classes)
    arrays += [random.normal(size=outs), random.normal(size=(outs, ins, 1, 1)) * 0.3]
    arrays = [array.astype("<f4") for array in arrays]
    (folder / "net.cfg").write_text(cfg_text(cfg))
    (folder / "net.weights").write_bytes(header + b"".join(array.tobytes() for array in arrays))
    return arrays


NEW, OLD = np.array([0, 2, 0, 7, 0], "<i4").tobytes(), np.array([0, 1, 0, 7], "<i4").tobytes()


@pytest.mark.parametrize("header", [NEW, OLD], ids=["version 0.2", "version 0.1"])
def test_files_give_the_boxes_of_a_plain_transcription(tmp_path, header):
    cfg = PRESETS["tiny"]
    arrays = [torch.from_numpy(array) for array in write(tmp_path, cfg, header)]
    found, tensors = read_darknet(tmp_path, "net")
    assert found == cfg
    network = YOLO(cfg).eval()
    network.load_state_dict(tensors)
    pixels = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        boxes, objectness, classes = network(pixels)

    x = pixels
    for number in range(len(cfg.widths)):
        beta, gamma, mean, variance, kernel = arrays[5 * number : 5 * number + 5]
        x = F.conv2d(x, kernel, padding=1)
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-6).sqrt()
        x = F.leaky_relu(x * gamma[:, None, None] + beta[:, None, None], 0.1)
        if number < 5:
            x = F.max_pool2d(x, 2)
        elif number == 5:
            rows, columns = x.shape[2:]
            corners = [x[:, :, r : r + 2, c : c + 2].amax((2, 3)) for r in range(rows) for c in range(columns)]
            x = torch.stack(corners, dim=-1).unflatten(-1, (rows, columns))
    x = F.conv2d(x, arrays[-1], arrays[-2])
    rows, columns, each = 3, 5, 5 + cfg.num_classes
    at = 0
    for anchor, (wide, high) in enumerate(cfg.anchors):
        for r in range(rows):
            for c in range(columns):
                for b in range(2):
                    tx, ty, tw, th, to, *tc = x[b, anchor * each : (anchor + 1) * each, r, c].tolist()
                    centre = (c + 1 / (1 + math.exp(-tx))) / columns, (r + 1 / (1 + math.exp(-ty))) / rows
                    half = math.exp(tw) * wide / columns / 2, math.exp(th) * high / rows / 2
                    box = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
                    torch.testing.assert_close(boxes[b, at], torch.tensor(box), rtol=1e-4, atol=1e-4)
                    assert float(objectness[b, at]) == pytest.approx(1 / (1 + math.exp(-to)), abs=1e-4)
                    torch.testing.assert_close(classes[b, at], torch.tensor(tc).softmax(0), rtol=1e-4, atol=1e-4)
                at += 1
    assert boxes.shape == (2, at, 4)


def test_other_networks_and_damaged_files_are_refused(tmp_path):
    cfg = PRESETS["tiny"]
    write(tmp_path, cfg, NEW)
    whole = (tmp_path / "net.weights").read_bytes()
    for damaged in (whole[:-4], whole + b"\0\0\0\0", b"", whole[:7]):
        (tmp_path / "net.weights").write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match=f"bytes; got {len(damaged):,}$"):
            read_darknet(tmp_path, "net")
    (tmp_path / "net.weights").unlink()
    with pytest.raises(MissingFile, match=r"net\.weights is not there"):
        read_darknet(tmp_path, "net")
    good = cfg_text(cfg)
    assert read_cfg(good) == cfg
    for bad in (good.replace("leaky", "relu"), good.replace("stride=2", "stride=1", 1), good + "[route]\nlayers=-9\n"):
        with pytest.raises(BadConfig):
            read_cfg(bad)
    for bad in ("", "<html>", "[net]\nwidth=416", good.replace("filters=4", "filters=four"), good.replace(", 2.0", "")):
        with pytest.raises(BadConfig, match="no Darknet configuration"):
            read_cfg(bad)
    with pytest.raises(BadConfig, match="multiple of 32"):
        read_cfg(good.replace("width=416", "width=400"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("object_detector") is None, reason='the extra "detector" is not installed')
def test_the_released_detector_finds_what_it_was_trained_on(shared):
    cfg, tensors = starter_detector("this test")
    assert cfg == YOLOConfig()
    network = YOLO(cfg).eval()
    network.load_state_dict(tensors)
    renamed = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant"}
    renamed |= {"diningtable": "dining table", "tvmonitor": "tv"}
    package = Path(str(find_spec("object_detector").origin)).parent / "data" / "coco.names"
    names = [renamed.get(name, name) for name in package.read_text().split("\n") if name]
    rows = [json.loads(line) for line in (shared / "coco_mini" / "annotations.jsonl").read_text().splitlines()]
    pairs = []
    for row in rows:
        if not row["boxes"]:
            continue
        image = Image.open(shared / "coco_mini" / row["file"]).convert("RGB")
        pixels = torch.from_numpy(np.array(image.resize((416, 416), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        with torch.no_grad():
            boxes, objectness, classes = (part[0] for part in network(pixels[None].float() / 255))
        score, label = (objectness[:, None] * classes).max(dim=1)
        boxes = boxes.clamp(0, 1) * torch.tensor([*image.size, *image.size])
        kept = (score > 0.005).nonzero()[:, 0]
        kept = kept[batched_nms(boxes[kept], score[kept], label[kept], 0.45)[:100]]
        true = np.array([box["bbox_xywh"] for box in row["boxes"]], dtype=float)
        true[:, 2:] += true[:, :2]
        pairs.append(
            (
                Truth(labels=[box["category"] for box in row["boxes"]], boxes=true),
                Detections(
                    labels=[names[i] for i in label[kept]], scores=score[kept].numpy(), boxes=boxes[kept].numpy()
                ),
            )
        )
    assert len(pairs) == 127
    assert coco_scores(pairs, names).ap50 == pytest.approx(0.324, abs=0.002)
