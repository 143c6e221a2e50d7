"""A folder of photos to vectors, decoding included: `embed_images(files)` of a CLIP ViT-B/32 against open_clip's
preprocessing in a DataLoader with two workers, the same random weights.

    python benchmarks/folders.py FOLDER [--number 384] [--large 32] [--threads 2] [--rounds 3] [--json]

First the photos as they are, then `--large` copies of 12 megapixels. Freed memory is kept, as the commands of rebus
keep it; both profit.
"""

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import open_clip
import torch
from alternating import about, options, ratios, report, summary, take_turns
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import rebus
from rebus.core.allocator import keep_freed_memory

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Photos(Dataset):
    def __init__(self, files: list[Path], prepare: Any):
        self.files, self.prepare = files, prepare

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.prepare(Image.open(self.files[index]).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=384)
    parser.add_argument("--large", type=int, default=32)
    chosen = options(parser)
    keep_freed_memory()
    torch.manual_seed(0)
    files = sorted(chosen.folder.glob("*.jpg"))[: chosen.number]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = rebus.create("clip/b32").save(folder / "model")
        large = []
        for number, file in enumerate(files[: chosen.large]):
            large.append(folder / f"{number}.jpg")
            with Image.open(file) as image:
                image.convert("RGB").resize((4000, 3000)).save(large[-1], quality=90)
        half = rebus.load(saved, dtype=torch.bfloat16, pack=True)
        integer = rebus.load(saved, quantize="int8")
        theirs, _, prepare = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", precision="bf16")
        theirs.eval()

        def by_them(some: list[Path]) -> torch.Tensor:
            loader = DataLoader(Photos(some, prepare), batch_size=32, num_workers=2)
            with torch.no_grad():
                return torch.cat([theirs.encode_image(batch.bfloat16(), normalize=True) for batch in loader])

        for case, some in (("photos as they are", files), ("12 megapixels", large)):
            times = take_turns(
                {
                    "open_clip bfloat16": lambda some=some: by_them(some),
                    "rebus bfloat16": lambda some=some: half.embed_images(some),
                    "rebus int8": lambda some=some: integer.embed_images(some),
                },
                chosen.rounds,
                chosen.clock,
            )
            pace = {name: f"{len(some) / sorted(took)[len(took) // 2]:.1f} images/s" for name, took in times.items()}
            compared = ratios(times, ["open_clip bfloat16"])
            result = {"case": f"{len(some)} {case}", "about": about(chosen), "times": summary(times)}
            report({**result, "ratios": compared, "extra": pace}, chosen.json)


if __name__ == "__main__":
    main()
