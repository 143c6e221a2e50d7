"""How well photos are captioned after minutes of training: the figures of `virtex_photos`, `simvlm_photos`,
`visualgpt_photos` and `flamingo_photos`.

    python benchmarks/photo_captions.py FOLDER… [--resnet resnet50.pth] [--only RECIPE …] [--minutes 6] [--out DIR]

FOLDER holds photos and their captions, in `captions.jsonl` or `annotations.jsonl`; `split` says which are held out
("val"), otherwise each sixth is. All folders are learned from, and each is measured. `keras_resnet.py` makes
`--resnet`, which all but `flamingo_photos` begin with. The image encoder is locked and photos are at most mirrored, so
each is seen once and remembered, as is what the frozen blocks before Flamingo's first cross-attention make of a text:
the numbers are those of `rebus train`, in less time. Steps are as many as fit in the minutes, by the pace of the first
ones. Prints one JSON document: for each folder the CIDEr-D of the held-out photos against their five human captions,
what it is if each has the next photo's caption, and the first ten captions by file name.

`rebus/checkpoints/flamingo_photos/learned.safetensors` was made by

    python benchmarks/photo_captions.py flickr8k_1k coco_mini --only flamingo_photos --steps 480 --learned FILE
"""

import argparse
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, track
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

import rebus
from rebus import catalog
from rebus.backbones.text.causal import Layers
from rebus.backbones.text.llama import Llama
from rebus.backbones.vision import resnet
from rebus.backbones.vision.efficientnet import EfficientNet
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.codec.images import ImagePipeline, image_spec_to_json
from rebus.core import extras
from rebus.evaluate.caption_metrics import cider_d, words
from rebus.recipes import recipe
from rebus.train.config import TrainConfig
from rebus.train.loop import train
from rebus.train.setup import processor_of, resolved
from rebus.train.warm_start import build
from rebus.weights.checkpoint_files import open_weights, read_config

RECIPES = ("virtex_photos", "visualgpt_photos", "simvlm_photos", "flamingo_photos")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHOWN = Console(stderr=True)
SHOWN_CAPTIONS = 10
TIMED = 8  # steps by which the pace is known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--resnet", type=Path, help="all but flamingo_photos need it")
    parser.add_argument("--only", choices=RECIPES, nargs="+", default=RECIPES)
    parser.add_argument("--minutes", type=float, default=6.0, help="of training, for each recipe")
    parser.add_argument("--steps", type=int, help="in place of what fits in the minutes")
    parser.add_argument("--out", type=Path, help="where the trained models are kept")
    parser.add_argument("--learned", type=Path, help="a file for the weights that flamingo_photos learns")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        rows = {folder.name: rows_of(folder) for folder in args.folders}
        learned = [row for of_folder in rows.values() for row in of_folder if row["split"] == "train"]
        data = out / "photos"
        data.mkdir(parents=True, exist_ok=True)
        (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in learned))
        for name in args.only:
            found: dict[str, Any] = {"recipe": name, "threads": 1, "torch": torch.__version__}
            config = prepared(recipe(name), data, args.resnet, learned, out / name)
            root = os.path.commonpath([folder.resolve() for folder in args.folders])
            config = replace(config, data=replace(config.data, root=root))
            found |= trained(config, args.minutes, args.steps, [Path(row["file"]) for row in learned], out / name)
            if args.learned is not None and name == "flamingo_photos":
                keep_learned(out / name / "run" / "final", args.learned)
            for folder, of_folder in rows.items():
                held_out = [row for row in of_folder if row["split"] == "val"]
                found[folder] = captioned(out / name / "run" / "final", held_out)
            print(json.dumps(found, indent=2, ensure_ascii=False), flush=True)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Its photos by file name, which is absolute here, with captions whose marks stand where one writes them."""
    source = next(path for name in ("captions", "annotations") if (path := folder / f"{name}.jsonl").is_file())
    rows = sorted((json.loads(line) for line in source.read_text().splitlines()), key=lambda row: row["file"])
    return [
        {
            "file": str((folder / row["file"]).resolve()),
            "captions": [re.sub(r"\s+([.,!?])", r"\1", text).strip() for text in row["captions"]],
            "split": row.get("split", "train" if number % 6 else "val"),
        }
        for number, row in enumerate(rows)
    ]


def prepared(
    config: TrainConfig, folder: Path, eyes: Path | None, learned: Sequence[dict[str, Any]], out: Path
) -> TrainConfig:
    """The recipe with its parts: word pieces and preprocessor are made here."""
    if config.start_from is not None:  # which has all of them
        return resolved(replace(config, data=replace(config.data, path=str(folder)), eval_every=0))
    parts = out / "words"
    number = write_words(parts, [text for row in learned for text in row["captions"]])
    side = getattr(config.model, "image_size", 160)
    spec = replace(resnet.image_spec(ResNetConfig()), size=(side, side), side=None, resize="exact")
    (parts / "preprocessor_config.json").write_text(json.dumps(image_spec_to_json(spec)))
    starts = [replace(start, source=str(eyes if start.source.endswith(".pth") else parts)) for start in config.starts]
    text = getattr(config.model, "text", None)
    sized = {"vocab_size": number} if text is None else {"text": replace(text, vocab_size=number)}
    return replace(
        config,
        model=replace(config.model, **sized),
        data=replace(config.data, path=str(folder)),
        starts=tuple(starts),
        processor=str(parts),
        eval_every=0,
    )


def write_words(folder: Path, captions: Sequence[str]) -> int:
    """The word pieces of MiniLM that the captions need, with their embeddings, as a BERT without its blocks; how many
    they are. Single letters and digits are kept too, so that other words can be spelled."""
    extras.demand("starter", "the words of photo_captions.py")
    found = find_spec(extras.PACKAGES["starter"][-1])
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / "model"
    whole = Tokenizer.from_file(str(source / "tokenizer.json"))
    whole.no_padding()
    whole.no_truncation()
    used = {i for one in whole.encode_batch(list(captions), add_special_tokens=False) for i in one.ids}
    letters = [mark + c for c in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
    used |= {i for c in letters if (i := whole.token_to_id(c)) is not None}
    special = [whole.token_to_id(name) for name in SPECIAL]
    kept = [*special, *sorted(used - set(special))]
    table = open_weights(source)["embeddings.word_embeddings.weight"].load().float()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings.word_embeddings.weight": table[kept].contiguous()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**read_config(source), "vocab_size": len(kept)}))
    pieces = {whole.id_to_token(i): at for at, i in enumerate(kept)}
    small = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    small.normalizer = normalizers.BertNormalizer(lowercase=True)
    small.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    small.decoder = decoders.WordPiece()
    small.add_special_tokens(list(SPECIAL))
    small.save(str(folder / "tokenizer.json"))
    return len(kept)


class Remembered:
    """The grids of features of a locked image encoder, by the pixels they are of: while this is entered, every image is
    seen once."""

    def __init__(self, encoder: type[ResNet] | type[EfficientNet] = ResNet) -> None:
        self.grids: dict[bytes, Tensor] = {}
        self.encoder, self.see = encoder, encoder.feature_map

    def __enter__(self) -> "Remembered":
        def feature_map(network: Any, pixels: Tensor) -> Tensor:
            keys = [digest(one) for one in pixels]
            new = [i for i, key in enumerate(keys) if key not in self.grids]
            if new:
                with torch.no_grad():
                    seen = self.see(network, pixels[new])
                self.grids |= {keys[i]: grid.clone() for i, grid in zip(new, seen, strict=True)}
            return torch.stack([self.grids[key] for key in keys])

        self.encoder.feature_map = feature_map  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self.encoder.feature_map = self.see  # type: ignore[method-assign]


class RememberedTexts:
    """The same of what the first `number` blocks of a frozen Llama make of a whole text, which no image changes."""

    def __init__(self, number: int) -> None:
        self.states: dict[bytes, Tensor] = {}
        self.number, self.lay_out = number, Llama.lay_out

    def __enter__(self) -> "RememberedTexts":
        def lay_out(network: Llama, x: Tensor, real: Tensor, cache: Any = None) -> Layers:
            layers = self.lay_out(network, x, real, cache)
            if cache is not None:
                return layers
            keys = [digest(row[there]) for row, there in zip(x, real, strict=True)]
            new = [i for i, key in enumerate(keys) if key not in self.states]
            if new:
                self.read(network, x[new], real[new], [keys[i] for i in new])
            x = torch.zeros_like(x, dtype=self.states[keys[0]].dtype)
            x[real] = torch.cat([self.states[key] for key in keys])
            return Layers(x, [torch.nn.Identity()] * self.number + list(layers.blocks[self.number :]), None)

        Llama.lay_out = lay_out  # type: ignore[method-assign]
        return self

    @torch.no_grad()
    def read(self, network: Llama, x: Tensor, real: Tensor, keys: Sequence[bytes]) -> None:
        x, blocks, _ = self.lay_out(network, x, real)
        for block in blocks[: self.number]:
            x = block(x)
        self.states |= {key: row[there] for key, row, there in zip(keys, x, real, strict=True)}

    def __exit__(self, *_: object) -> None:
        Llama.lay_out = self.lay_out  # type: ignore[method-assign]


def digest(values: Tensor) -> bytes:
    return hashlib.blake2b(values.contiguous().view(torch.uint8).numpy().tobytes()).digest()


def trained(
    config: TrainConfig, minutes: float, steps: int | None, photos: Sequence[Path], out: Path
) -> dict[str, Any]:
    """Train for about that long: how many steps, and the seconds. Photos are seen within the time."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    flamingo = config.system == "flamingo"
    texts = RememberedTexts(config.model.cross.first) if flamingo else nullcontext()
    with Remembered(EfficientNet if flamingo else ResNet), texts, Progress(console=SHOWN) as progress:
        seeing = progress.add_task("photos seen", total=len(photos))
        see_all(config, photos, lambda number: progress.advance(seeing, number))
        if steps is None:
            pace = seconds_a_step(config, out / "pace")
            left = 60 * minutes - (time.perf_counter() - began)
            steps = max(TIMED, int(left / pace))
        config = replace(config, steps=steps, save_every=steps)
        going = progress.add_task(f"{config.system}: steps", total=steps)
        losses: list[float] = []

        def report(line: Any) -> None:
            losses.append(line["loss"])
            progress.update(going, advance=1, description=f"{config.system}: loss {line['loss']:.2f}")

        train(config, out / "run", report)
    last = losses[-50:]
    return {
        "steps": steps,
        "batch": config.batch_size,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "loss_of_the_last_50": round(sum(last) / len(last), 3),
    }


def see_all(config: TrainConfig, photos: Sequence[Path], advance: Any, size: int = 20) -> None:
    """Show every photo to the image encoder."""
    network: Any = build(config).network.eval()
    pipeline = processor_of(config, catalog.system(str(config.system))).image
    assert pipeline is not None
    pipeline = ImagePipeline(pipeline.spec, threads=1)
    for first in range(0, len(photos), size):
        batch = [pipeline([photo])["pixels"] for photo in photos[first : first + size]]
        network.image.feature_map(torch.cat(batch))
        advance(len(batch))


def seconds_a_step(config: TrainConfig, out: Path) -> float:
    """By the clock, without the first step."""
    times: list[float] = []
    train(replace(config, steps=TIMED, save_every=TIMED), out, lambda line: times.append(time.perf_counter()))
    return (times[-2] - times[0]) / (TIMED - 2)


def keep_learned(model_folder: Path, path: Path) -> None:
    """Without the frozen networks, which users have from elsewhere."""
    parts = {name: one.load() for name, one in open_weights(model_folder).items()}
    learned = {name: one for name, one in parts.items() if name.split(".")[0] in ("resampler", "cross")}
    save_file(learned, path)


def captioned(model_folder: Path, rows: Sequence[dict[str, Any]], size: int = 10) -> dict[str, Any]:
    """CIDEr-D of the held-out photos, and what is said of the first ten."""
    model = rebus.load(model_folder, device="cpu")
    said: list[str] = []
    began = time.perf_counter()
    for first in track(range(0, len(rows), size), description="captions", console=SHOWN):
        said += model.caption([row["file"] for row in rows[first : first + size]], batch_size=size)
    human = [[words(text) for text in row["captions"]] for row in rows]
    plain = [words(text) for text in said]
    return {
        "photos": len(rows),
        "CIDEr-D": round(cider_d(plain, human), 4),
        "CIDEr-D of the next photo's captions": round(cider_d([*plain[1:], plain[0]], human), 4),
        "different_captions": len(set(said)),
        "seconds_a_photo": round((time.perf_counter() - began) / len(rows), 2),
        "first": {Path(row["file"]).name: text for row, text in zip(rows[:SHOWN_CAPTIONS], said, strict=False)},
    }


if __name__ == "__main__":
    main()
