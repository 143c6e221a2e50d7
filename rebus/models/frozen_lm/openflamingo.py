"""What OpenFlamingo released: the trained tensors alone, to be laid over a language model and CLIP from elsewhere.

Awadalla et al., "OpenFlamingo: An Open-Source Framework for Training Large Autoregressive Vision-Language Models",
2023. A file has no configuration, so that the release is recognised by its names and shapes.
"""

import re
from collections.abc import Mapping
from typing import Any

from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadCheckpoint, BadConfig
from rebus.core.system import Assembled, Part
from rebus.models.frozen_lm.flamingo_config import PRESETS, FlamingoConfig
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor

RELEASED = ("open_3b", "open_4b", "open_9b", "open_9b_v1")
# Where the blocks of a language model and its tables of tokens are; v1 has its blocks elsewhere
_BLOCKS = {
    "mpt": "transformer.blocks.",
    "gpt_neox": "gpt_neox.layers.",
    "llama": "model.layers.",
    "opt": "model.decoder.layers.",
    "gpt2": "transformer.h.",
}
_V1 = "lang_encoder.gated_cross_attn_layers."
_TABLES = {
    "transformer.wte.weight": "added.weight",
    "gpt_neox.embed_in.weight": "added.weight",
    "model.embed_tokens.weight": "added.weight",
    "model.decoder.embed_tokens.weight": "added.weight",
    "embed_out.weight": "added_head.weight",
    "lm_head.weight": "added_head.weight",
}
_NOT_LEARNED = ("vision_encoder.", ".decoder_layer.", ".old_decoder_blocks.")


def _attention(theirs: str, ours: str) -> list[Row]:
    kv = (ours + "attn.k.weight", ours + "attn.v.weight")
    return [
        (theirs + "to_q.weight", ours + "attn.q.weight"),
        (theirs + "to_kv.weight", kv),
        (theirs + "to_out.weight", ours + "attn.out.weight"),
    ]


def _mlp(theirs: str, ours: str) -> list[Row]:
    return [
        (theirs + "0.{p}", ours + "norm2.{p}"),
        (theirs + "1.weight", ours + "mlp.up.weight"),
        (theirs + "3.weight", ours + "mlp.down.weight"),
    ]


def _cross(theirs: str, ours: str) -> list[Row]:
    return [
        (theirs + "attn_gate", ours + "attn_gate"),
        (theirs + "ff_gate", ours + "mlp_gate"),
        (theirs + "attn.norm.{p}", ours + "norm1.{p}"),
        *_attention(theirs + "attn.", ours),
        *_mlp(theirs + "ff.", ours),
    ]


def keys(cfg: FlamingoConfig) -> KeyMap:
    """The names of a release, after `prepare`; a block is numbered by that of the language model it stands before."""
    blocks = "lang_encoder." + _BLOCKS.get(cfg.text.system, "")
    layer, ours = "perceiver.layers.{i}.", "resampler.blocks.{i}."
    rows: list[Row] = [
        ("perceiver.latents", "resampler.latents"),
        ("perceiver.norm.{p}", "resampler.norm.{p}"),
        (layer + "0.norm_media.{p}", ours + "norm_media.{p}"),
        (layer + "0.norm_latents.{p}", ours + "norm1.{p}"),
        *_attention(layer + "0.", ours),
        *_mlp(layer + "1.", ours),
        *((f"lang_encoder.{theirs}", f"table.{theirs}") for theirs in _TABLES),
    ]
    for number, place in enumerate(cfg.cross.places(int(cfg.text.config["num_layers"]))):
        rows += _cross(f"{blocks}{place}.gated_cross_attn_layer.", f"cross.{number}.")
        rows += _cross(f"{_V1}{place}.", f"cross.{number}.")
    return KeyMap(rows)


def prepare(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The tensors that were learned: without the buffers and frozen networks that training saved beside them."""
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in plain.items() if not any(part in name for part in _NOT_LEARNED)}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> FlamingoConfig:
    """The release that has these blocks over this language model. Raises `BadConfig` where none has."""
    plain = {name.removeprefix("module."): shape for name, shape in shapes.items()}
    at, widths, v1 = set[int](), set[int](), False
    for name, shape in plain.items():
        found = re.fullmatch(r"lang_encoder\.(.*\.)?(\d+)\.(gated_cross_attn_layer\.)?ff\.3\.weight", name)
        if found:
            at.add(int(found[2]))
            widths.add(shape[0])
            v1 |= name.startswith(_V1)
    for preset in RELEASED:
        cfg = PRESETS[preset]
        table = any(name.startswith(f"lang_encoder.{_BLOCKS[cfg.text.system]}") for name in plain)
        same = at == set(cfg.cross.places(int(cfg.text.config["num_layers"]))) and widths == {cfg.cross.mlp_width // 4}
        if same and (table or (v1 and cfg.text.system == "llama")):
            return cfg
    raise BadConfig(f"cross-attention of width {sorted(widths)} before blocks {sorted(at)} is no release we know")


def assemble(trained: Any, text: Any, image: Any) -> Assembled:
    """A release over its language model and CLIP, all of them open. Raises `BadConfig` where they do not go together,
    `BadCheckpoint` where the file lacks the vectors of new tokens."""
    from rebus.models.frozen_lm.flamingo_layouts import join  # which builds on this file

    release: FlamingoConfig = trained.config
    wanted = to_dict(text.system.config(**release.text.config))
    found = to_dict(text.config)
    unlike = [name for name in wanted if name != "context" and wanted[name] != found.get(name)]
    if text.system.name != release.text.system or unlike:
        raise BadConfig(
            f"{trained.name} was trained over {release.text.system} of {wanted['width']} channels; {text.name} is "
            f"{text.system.name}, and differs in {', '.join(unlike) or 'its kind'}"
        )
    encoder = Part(system="vit", config=to_dict(image.config.image))
    if from_dict(type(image.config.image), release.image.config) != image.config.image:
        raise BadConfig(f"{trained.name} was trained with CLIP ViT-L/14 at 224 pixels; {image.name} is another encoder")
    cfg = from_dict(FlamingoConfig, {**to_dict(release), "text": {**to_dict(release.text), "config": found}})
    cfg = from_dict(FlamingoConfig, {**to_dict(cfg), "image": to_dict(encoder)})
    tensors = {
        **{f"text.{name}": tensor for name, tensor in text.tensors.items()},
        **{name: tensor for name, tensor in image.tensors.items() if name.startswith("image.") and "proj" not in name},
        **learned(cfg, trained.tensors, trained.name),
    }
    return Assembled(cfg, tensors, join(cfg, text.processor(), image.processor()))


def learned(cfg: FlamingoConfig, tensors: Mapping[str, LazyTensor], where: str) -> dict[str, LazyTensor]:
    """The tensors of a file by our names: of its tables the rows of new tokens alone, the others are frozen."""
    first, number = cfg.vocabulary, len(cfg.added)
    found: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith("table."):
            found[name] = tensor
            continue
        ours = _TABLES[name.removeprefix("table.")]
        if ours == "added_head.weight" and (not cfg.writes_added or cfg.text.system != "gpt_neox"):
            continue
        if tensor.shape[0] < first + number:
            raise BadCheckpoint(
                f"{where}: {tensor.shape[0]:,} rows of tokens, and new ones from {first:,} to {first + number - 1:,}"
            )
        found[ours] = tensor.between(first, first + number)
    if "added.weight" not in found:
        raise BadCheckpoint(f"{where}: holds no table of tokens, and so no vectors of {', '.join(cfg.added)}")
    return found
