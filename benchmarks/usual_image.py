"""How `rebus/checkpoints/asif_starter/usual_image.safetensors` was made: the mean direction of images of anything.

    python benchmarks/usual_image.py FOLDER [--out FILE]

FOLDER holds `imagenet_samples` (one photo of each of 750 classes of ImageNet, as `benchmarks/README.md` describes it).
Each is encoded by the image encoder of `asif/starter` (EfficientNet-B0's 1,280 pooled features), made a unit vector,
and the mean of these is kept in float16 under the name `direction`. `rebus asif teach` takes it off the mean of the
examples (Qi et al., 2018). Prints the cosine and the largest difference to the file that is there.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from starter import see

import rebus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="write the direction there")
    args = parser.parse_args()
    folder = args.folder / "imagenet_samples"
    model = rebus.load("asif/starter", device="cpu")
    rows = json.loads((folder / "labels.json").read_text())
    seen = see(model, [folder / row["file"] for row in rows])
    direction = torch.nn.functional.normalize(seen, dim=1).mean(0)
    kept = model.network.usual
    cosine = torch.nn.functional.cosine_similarity(direction, kept, dim=0)
    print(json.dumps({"images": len(rows), "cosine": float(cosine), "max": float((direction - kept).abs().max())}))
    if args.out is not None:
        save_file({"direction": direction.half()}, args.out)


if __name__ == "__main__":
    main()
