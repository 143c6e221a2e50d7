"""CLIP ViT-B/32 on images: rebus against open_clip and transformers, the same random weights of the real size.

python benchmarks/clip_image.py [--batch 1 8 32] [--threads 2] [--rounds 7] [--clock wall|thread] [--json]
"""

import argparse
import logging
import warnings

import open_clip
import torch
import transformers
from alternating import about, options, ratios, report, summary, take_turns
from torch.nn import functional as F

from rebus.models.contrastive import clip
from rebus.nn.packed import pack_linears
from rebus.nn.quantized import quantize_linears
from rebus.weights.keymap import KeyMap

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    chosen = options(parser)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    whole = clip.CLIP(clip.PRESETS["b32"]).eval()
    rows = whole.state_dict()
    half = _ours(rows).bfloat16()
    packed = pack_linears(_ours(rows).bfloat16())  # what load(pack=True) gives, and the commands use
    integer, integer_half = quantize_linears(_ours(rows)), quantize_linears(_ours(rows).bfloat16())

    theirs = open_clip.create_model("ViT-B-32-quickgelu", precision="bf16").eval()
    theirs.load_state_dict(_theirs(clip.SYSTEM.layouts["open_clip"].keys(clip.PRESETS["b32"]), rows), strict=False)
    config = transformers.CLIPConfig.from_dict(clip.write_transformers(clip.PRESETS["b32"]))
    hub = transformers.CLIPModel(config).eval()
    hub.load_state_dict(_theirs(clip.KEYS, rows), strict=False)
    hub.bfloat16()

    for batch in chosen.batch:
        pixels = torch.randn(batch, 3, 224, 224)
        small = pixels.bfloat16()

        def embed_hub(x: torch.Tensor = small) -> torch.Tensor:
            return hub.get_image_features(pixel_values=x)

        contestants = {
            "open_clip bfloat16": lambda x=small: theirs.encode_image(x, normalize=True),
            "transformers bfloat16": embed_hub,
            "rebus bfloat16": lambda x=small: half.embed_image(x),
            "rebus bfloat16, packed": lambda x=small: packed.embed_image(x),
            "rebus int8": lambda x=pixels: integer.embed_image(x),
            "rebus int8, bfloat16": lambda x=small: integer_half.embed_image(x),
        }
        exact = whole.embed_image(pixels)
        likeness = {
            f"least cosine to float32, {name}": round(F.cosine_similarity(exact, run().float()).min().item(), 5)
            for name, run in contestants.items()
            if name != "transformers bfloat16"
        }
        seconds = take_turns(contestants, chosen.rounds, chosen.clock)
        result = {
            "case": f"CLIP ViT-B/32 image embedding, batch {batch}",
            "about": about(chosen),
            "times": summary(seconds),
            "ratios": ratios(seconds, ["open_clip bfloat16", "transformers bfloat16"]),
            "extra": likeness,
        }
        report(result, chosen.json)


def _ours(rows: dict[str, torch.Tensor]) -> clip.CLIP:
    network = clip.CLIP(clip.PRESETS["b32"])
    network.load_state_dict(rows)
    return network.eval()


def _theirs(keys: KeyMap, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: row.load() for name, row in keys.to_theirs(rows).items()}


if __name__ == "__main__":
    main()
