"""Chameleon in the files that Meta released, which are Anole's too.

    models/7b/   params.json  consolidate_params.json  consolidated.pth, or consolidated.00.pth … in shards
    tokenizer/   text_tokenizer.json  vqgan.ckpt  vqgan.yaml

The first folder is the checkpoint; the second lies two levels up beside `models`, or its files lie with the others.
Queries and keys are stored for rotary positions that turn neighbouring numbers together, so their norms are, too; these
are shared by the heads of a shard. Nothing in the files tells Anole's weights, which draw, from Meta's, which do not.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.vision.vqgan import ROWS, VQGANConfig, infer_config
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor, load_processor, text_pipeline
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile
from rebus.core.small_files import read_small
from rebus.core.specs import ImageSpec, TextSpec
from rebus.models.early_fusion.chameleon_config import ChameleonConfig
from rebus.models.early_fusion.chameleon_layouts import read_ids
from rebus.weights.checkpoint_files import MAX_JSON, open_weights, read_json
from rebus.weights.key_sides import Row, nested, rotary_pairs
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor

CODES, TEXT = "vqgan.ckpt", "text_tokenizer.json"
_ALONG_WIDTH = ("tok_embeddings", "wo", "w2")  # split among shards by what they read or give, not by their rows
_HEAD_NORMS = ("q_normalization", "k_normalization")


def is_release(params: Mapping[str, Any]) -> bool:
    """Whether a `params.json` is that of a Chameleon: Llama's know no norms of queries and keys."""
    return "qk_normalization" in {**params, **_part(params)}


def _part(params: Mapping[str, Any]) -> Mapping[str, Any]:
    model = params.get("model")
    return model if isinstance(model, Mapping) else {}


def read_params(params: Mapping[str, Any]) -> LlamaConfig:
    """The text side of a `params.json`, where settings of the training stand beside those of the network. Raises
    `BadConfig` naming a field."""
    given = {**params, **_part(params)}

    def number(name: str, kind: Any, default: Any = None) -> Any:
        value: Any = given.get(name, default)
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) or value <= 0:
            raise BadConfig(f"params.json.{name}: expected {kind.__name__} above 0; got {value!r}")
        return value

    if given.get("qk_normalization") is not True:
        raise BadConfig(f"params.json.qk_normalization: must be true; got {given.get('qk_normalization')!r}")
    width, heads = number("dim", int), number("n_heads", int)
    multiplier = number("ffn_dim_multiplier", float, 1.0) if given.get("ffn_dim_multiplier") is not None else 1.0
    each = number("multiple_of", int, 256)
    text = LlamaConfig(
        width=width,
        num_layers=number("n_layers", int),
        num_heads=heads,
        num_kv_heads=number("n_kv_heads", int, heads) if given.get("n_kv_heads") is not None else heads,
        head_width=width // heads,
        mlp_width=each * -(-int(multiplier * int(8 * width / 3)) // each),
        vocab_size=number("vocab_size", int),
        context=4096,
        rope_base=number("rope_theta", float, 10_000.0),
        eps=number("norm_eps", float, 1e-5),
        qk_norm=True,
        norm_after=bool(given.get("swin_norm", False)),
    )
    if width % heads or text.num_heads % text.num_kv_heads or text.head_width % 2:
        raise BadConfig(f"params.json: {heads} heads of an even width are to share {text.num_kv_heads} of keys")
    return text


def open_release(folder: Path, text: LlamaConfig) -> tuple[ChameleonConfig, dict[str, LazyTensor]]:
    """The whole configuration, and the tensors: `keys_of_release` has their names. Raises `MissingFile` for a file that
    is not there, `BadCheckpoint` for shards that do not go together."""
    codes = {f"vq.{name}": tensor for name, tensor in open_weights(_beside(folder, CODES)).items()}
    image = infer_config({name.removeprefix("vq."): tensor.shape for name, tensor in codes.items()})
    ids = read_ids(_vocabulary(folder), image.num_codes)
    cfg = ChameleonConfig(text=text, image=replace(image, image_size=_side(folder)), draws=True, **ids)
    shards = [open_weights(file) for file in _text_files(folder)]
    return cfg, {**_joined(shards, text), **codes}


def keys_of_release(cfg: ChameleonConfig) -> KeyMap:
    """Tensors of `open_release` ⇄ ours."""
    text, layer, block = cfg.text, "layers.{i}.", "text.blocks.{i}."
    heads = {"q": text.num_heads, "k": text.num_kv_heads}
    attention = layer + "attention."
    rows: list[Row] = [
        ("tok_embeddings.weight", "text.tokens.weight"),
        ("norm.weight", "text.norm.weight"),
        ("output.weight", "text.head.weight"),
        (layer + "attention_norm.weight", block + "norm1.weight"),
        (layer + "ffn_norm.weight", block + "norm2.weight"),
        *((rotary_pairs(attention + f"w{n}.weight", heads[n]), block + f"attn.{n}.weight") for n in "qk"),
        *((attention + f"{n}_normalization.{{p}}", block + f"attn.{n}_norm.{{p}}") for n in "qk"),
        (attention + "wv.weight", block + "attn.v.weight"),
        (attention + "wo.weight", block + "attn.out.weight"),
        *(
            (layer + f"feed_forward.{theirs}.weight", block + f"mlp.{ours}.weight")
            for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down"))
        ),
        *nested(ROWS, theirs="vq.", ours="image."),
    ]
    return KeyMap(rows, ignore=["rope.freqs", "vq.loss.*"])


def release_processor(folder: Path, image: ImageSpec, text: TextSpec) -> Processor:
    """The processor of a folder: of the release, which has a tokenizer by another name and no preprocessor, where there
    is no `tokenizer.json`."""
    file = _found(folder, TEXT)
    if file is None or (folder / "tokenizer.json").is_file():
        return load_processor(folder, image, text)
    data = file.read_bytes()
    tokenizer = Tokenizer(_definition(file), {"tokenizer.json": data})
    return Processor(ImagePipeline(image), text_pipeline(tokenizer, text))


def _found(folder: Path, name: str) -> Path | None:
    places = (folder, folder / "tokenizer", folder.resolve().parent.parent / "tokenizer")
    return next((place / name for place in places if (place / name).is_file()), None)


def _beside(folder: Path, name: str) -> Path:
    found = _found(folder, name)
    if found is None:
        raise MissingFile(
            f"no {name} in {folder}, nor in ../../tokenizer. The release has it in a folder `tokenizer` beside `models`"
        )
    return found


def _definition(file: Path) -> Any:
    try:
        found = json.loads(read_small(file, MAX_JSON))
        dict(found["model"]["vocab"])
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{file}: not a tokenizer ({type(error).__name__}: {error})") from None


def _vocabulary(folder: Path) -> dict[str, Any]:
    definition = _definition(_beside(folder, TEXT))
    added = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
    return {**definition["model"]["vocab"], **added}


def _side(folder: Path) -> int:
    """Pixels of an image, as vqgan.yaml says; 512 in the release."""
    file = _found(folder, "vqgan.yaml")
    said = None if file is None else re.search(rb"^\s*resolution:\s*(\d{1,6})\s*$", read_small(file, MAX_JSON), re.M)
    return VQGANConfig().image_size if said is None else int(said[1])


def _text_files(folder: Path) -> list[Path]:
    """`consolidated.pth`, or all its shards in order."""
    shards = sorted(folder.glob("consolidated.[0-9][0-9].pth"))
    lacking = [i for i, file in enumerate(shards) if file.name != f"consolidated.{i:02d}.pth"]
    if lacking:
        raise MissingFile(f"{folder}: consolidated.{lacking[0]:02d}.pth is missing")
    wanted = _shards_wanted(folder)
    if not (folder / "consolidated.pth").is_file() and (not shards or wanted not in (None, len(shards))):
        raise MissingFile(f"{folder}: {len(shards)} of {wanted or 'the'} shards consolidated.NN.pth are there")
    return shards or [folder / "consolidated.pth"]


def _shards_wanted(folder: Path) -> int | None:
    file = folder / "consolidate_params.json"
    said = read_json(file).get("model_parallel_size") if file.is_file() else None
    return said if isinstance(said, int) else None


def _joined(shards: Sequence[Mapping[str, LazyTensor]], cfg: LlamaConfig) -> dict[str, LazyTensor]:
    """The tensors of all shards as those of one, and norms of heads for every head."""
    if any(shard.keys() != shards[0].keys() for shard in shards):
        raise BadCheckpoint("the shards consolidated.NN.pth hold other weights than each other")
    found = {}
    for name in shards[0]:
        pieces = [shard[name] for shard in shards]
        kind = name.split(".")[-2]
        if kind in _HEAD_NORMS:
            found[name] = _for_heads(pieces, cfg.num_heads if kind[0] == "q" else cfg.num_kv_heads, cfg.head_width)
        elif len(pieces) == 1 or len(pieces[0].shape) < 2:
            found[name] = pieces[0]  # norms, which are the same in all
        elif kind in _ALONG_WIDTH:
            found[name] = LazyTensor.joined([piece.turned() for piece in pieces]).turned()
        else:
            found[name] = LazyTensor.joined(pieces)
    return found


def _for_heads(pieces: Sequence[LazyTensor], heads: int, width: int) -> LazyTensor:
    """(heads, width): the gains or offsets of each shard, (width) or (shards, width), for all of its heads, the two
    numbers of each rotary pair half the width apart."""

    def load() -> Tensor:
        rows = torch.cat([piece.load().reshape(-1, width) for piece in pieces])
        if heads % len(rows):
            raise BadCheckpoint(f"{len(rows)} norms of queries or keys are to be shared by {heads} heads")
        return rows.unflatten(1, (-1, 2)).mT.flatten(1).repeat_interleave(heads // len(rows), dim=0)

    return LazyTensor((heads, width), pieces[0].dtype, load)
