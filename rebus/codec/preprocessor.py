"""The preprocessor files of released checkpoints ⇄ `ImageSpec`: transformers (every version) and open_clip.

Only what changes pixels matters, and all of that does: a field that would change them and cannot be honoured is
refused by name, and so is a field never heard of, unless it is switched off.
"""

import sys
from collections.abc import Mapping
from typing import Any

from rebus.core.errors import BadConfig
from rebus.core.limits import limit
from rebus.core.specs import ImageSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_ONE = (1.0, 1.0, 1.0)
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # the numbers are Pillow's

# What a file of each processor leaves unsaid.
_CLIP_DEFAULTS: dict[str, Any] = {
    "size": 224,
    "crop_size": 224,
    "do_center_crop": True,
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
}
_SIGLIP_DEFAULTS: dict[str, Any] = {"size": {"height": 224, "width": 224}, "mean": _HALF, "std": _HALF}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP_DEFAULTS,
    "CLIPFeatureExtractor": _CLIP_DEFAULTS,
    "SiglipImageProcessor": _SIGLIP_DEFAULTS,
    "Siglip2ImageProcessor": {**_SIGLIP_DEFAULTS, "resample": 2},
    "ChameleonImageProcessor": {
        "size": {"shortest_edge": 512},
        "crop_size": 512,
        "do_center_crop": True,
        "resample": 1,
        "rescale_factor": 0.0078,
        "mean": _ONE,
        "std": _ONE,
    },
    "EfficientNetImageProcessor": {  # ALIGN's
        "size": {"height": 346, "width": 346},
        "crop_size": 289,
        "include_top": True,
        "mean": _HALF,
        "std": _HALF,
    },
    "SamImageProcessor": {  # the one that resizes the longer side and pads
        "size": {"longest_edge": 1024},
        "pad_size": 1024,
        "do_pad": True,
        "rounding": "up",
        "resample": 2,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
}
_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std", "patch_size", "max_num_patches", "image_processor_type", "feature_extractor_type"),
    *("do_pad", "pad_size", "rescale_offset", "include_top", "interpolation"),
    *("crop_offset", "alpha", "rounding", "pad", "pad_colour"),  # ours
}
_HARMLESS = {
    *("processor_class", "_processor_class", "auto_map", "_valid_processor_keys", "default_to_square"),
    *("do_convert_rgb", "image_seq_length", "image_seq_len", "model_input_names", "transformers_version"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "name_or_path"),
    *("mask_size", "mask_pad_size"),
}
_OPEN_CLIP = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}


def image_spec_from_json(config: Mapping[str, Any]) -> ImageSpec:
    """What a `preprocessor_config.json`, a `processor_config.json` or an `open_clip_config.json` asks for.

    Raises `BadConfig` naming every field that is unknown, mistyped or cannot be honoured.
    """
    if not isinstance(config, Mapping):
        raise BadConfig(f"a preprocessor file must hold an object; got {type(config).__name__}")
    if isinstance(config.get("image_processor"), Mapping):
        return image_spec_from_json(config["image_processor"])
    if "preprocess_cfg" in config:
        size = _mapping(_mapping(config, "model_cfg"), "vision_cfg").get("image_size")
        return _from_open_clip({**({} if size is None else {"size": size}), **_mapping(config, "preprocess_cfg")})
    if "resize_mode" in config:
        return _from_open_clip(config)
    return _from_transformers(config)


def _mapping(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name, {})
    if not isinstance(value, Mapping):
        raise BadConfig(f"{name} must be an object; got {value!r}")
    return value


def _from_transformers(config: Mapping[str, Any]) -> ImageSpec:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor")
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    if kind not in _PROCESSORS:
        raise BadConfig(f"image_processor_type {kind}: known are {', '.join(_PROCESSORS)}")
    unknown = [k for k, v in config.items() if k not in _READ | _HARMLESS and v not in (None, False)]
    if unknown:
        raise BadConfig(f"unknown preprocessor fields that may change the pixels: {', '.join(unknown)}")
    said = {**_PROCESSORS[kind], **{name: value for name, value in config.items() if value is not None}}
    if not said.get("do_resize", True):
        raise BadConfig("do_resize is false: images of any size cannot form a batch")
    common: dict[str, Any] = {
        "resample": _filter(said.get("resample", said.get("interpolation", 3))),
        "alpha": _choice(said.get("alpha", "white"), "alpha", "white", "drop"),
        **_values(said),
    }
    if kind == "Siglip2ImageProcessor":
        patch, most = _whole(said.get("patch_size", 16), "patch_size"), said.get("max_num_patches", 256)
        max_patches = _whole(most, "max_num_patches")
        return ImageSpec(size=(0, 0), resize="patches", patch_size=patch, max_patches=max_patches, **common)
    cropped = said.get("do_center_crop", False)
    edge, size = _size(said["size"], bare="shortest_edge" if cropped or kind.startswith("CLIP") else "")
    common["rounding"] = _choice(said.get("rounding", "down"), "rounding", "down", "even", "up")
    if kind == "SamImageProcessor":
        return _padded(said, edge, size, common)
    if said.get("do_pad"):
        raise BadConfig(f"do_pad: {kind} pads to the largest image of a batch; only SamImageProcessor is read with it")
    if edge == "longest_edge":
        raise BadConfig(f"size: {kind} expects height and width, or shortest_edge; got longest_edge")
    if not cropped:
        if edge:
            raise BadConfig("size: shortest_edge without do_center_crop gives images of several shapes")
        return ImageSpec(size=size, **common)
    crop = _both(said.get("crop_size"), "crop_size")
    common["crop_offset"] = _choice(said.get("crop_offset", "down"), "crop_offset", "down", "even")
    if edge:
        side = None if size[0] == min(crop) else size[0]
        return ImageSpec(size=crop, resize="shorter", side=side, **common)
    if size[0] != size[1]:
        raise BadConfig(f"size: with do_center_crop, height and width must be equal; got {size[0]} × {size[1]}")
    return ImageSpec(size=crop, side=None if crop == size else size[0], **common)


def _values(said: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a byte: (byte · rescale − mean) / std."""
    factor = said.get("rescale_factor", 1 / 255)
    if not said.get("do_rescale", True) or not isinstance(factor, float) or not 0 < factor < 0.02:
        raise BadConfig(f"rescale_factor {factor!r}: expected about 1/255, or 2/255 with rescale_offset")
    scaled = {"rescale": factor}
    if said.get("include_top"):
        raise BadConfig("include_top is true: values divided by the deviation twice are not made here")
    if not said.get("do_normalize", True):
        return {**scaled, "mean": _ONE if said.get("rescale_offset") else (0.0, 0.0, 0.0), "std": _ONE}
    if said.get("rescale_offset"):
        raise BadConfig("rescale_offset is true: expected do_normalize false, since it is a normalisation itself")
    mean, std = said.get("image_mean") or said["mean"], said.get("image_std") or said["std"]
    return {**scaled, "mean": _three(mean, "image_mean"), "std": _three(std, "image_std")}


def _padded(said: Mapping[str, Any], edge: str, size: tuple[int, int], common: dict[str, Any]) -> ImageSpec:
    if edge != "longest_edge":
        raise BadConfig(f"size {said['size']}: expected longest_edge")
    if not said["do_pad"]:
        raise BadConfig("do_pad is false: longest_edge without it gives images of several shapes")
    room = _both(said["pad_size"], "pad_size")
    colour = said.get("pad_colour")
    return ImageSpec(
        size=room,
        resize="longer",
        side=None if size[0] == max(room) else size[0],
        pad=_choice(said.get("pad", "end"), "pad", "end", "centre"),
        pad_colour=None if colour is None else _colour(colour, "pad_colour"),
        **common,
    )


def _from_open_clip(config: Mapping[str, Any]) -> ImageSpec:
    unknown = [name for name in config if name not in _OPEN_CLIP]
    if unknown:
        raise BadConfig(f"preprocess_cfg: unknown fields {', '.join(unknown)}")
    if "size" not in config:
        raise BadConfig("preprocess_cfg: no size, and none in model_cfg.vision_cfg.image_size")
    size = _both(config["size"], "size")
    mode = _choice(config.get("resize_mode") or "shortest", "resize_mode", "shortest", "longest", "squash")
    if mode != "squash" and size[0] != size[1]:
        raise BadConfig(f"preprocess_cfg: resize_mode {mode} expects a square size; got {size}")
    how: dict[str, Any] = {}
    if mode == "shortest":
        how = {"resize": "shorter"}
    elif mode == "longest":
        grey = config.get("fill_color") or 0
        how = {"resize": "longer", "rounding": "even", "pad": "centre", "pad_colour": _colour([grey] * 3, "fill_color")}
    return ImageSpec(
        size=size,
        resample=_choice(config.get("interpolation") or "bicubic", "interpolation", "bicubic", "bilinear"),
        mean=_three(config.get("mean") or CLIP_MEAN, "mean"),
        std=_three(config.get("std") or CLIP_STD, "std"),
        crop_offset="even",
        alpha="drop",
        **how,
    )


def image_spec_to_json(spec: ImageSpec, *, processor_class: str | None = None) -> dict[str, Any]:
    """The `preprocessor_config.json` of transformers. `processor_class` is its whole processor (`CLIPProcessor`).

    What transformers has no field for is written too (`crop_offset`, `alpha`), when it departs from its ways; it
    passes over such fields. With "open_clip" as `processor_class`: the `preprocess_cfg` of that library.
    """
    if processor_class == "open_clip":
        return _to_open_clip(spec)
    height, width = spec.size
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "resample": next((number for number, name in _FILTERS.items() if name == spec.resample), spec.resample),
        "rescale_factor": spec.rescale,
    }
    if processor_class is not None:
        config["processor_class"] = processor_class
    if spec.alpha != "white":
        config["alpha"] = spec.alpha
    if spec.resize == "patches":
        config |= {"image_processor_type": "Siglip2ImageProcessor", "patch_size": spec.patch_size}
        return config | {"max_num_patches": spec.max_patches}
    room = {"height": height, "width": width}
    if spec.resize == "longer":
        ours = {"pad": spec.pad, "pad_colour": spec.pad_colour and list(spec.pad_colour), "rounding": spec.rounding}
        usual = {"pad": "end", "pad_colour": None, "rounding": "up"}
        return config | {
            "image_processor_type": "SamImageProcessor",
            "size": {"longest_edge": spec.side or max(spec.size)},
            "do_pad": True,
            "pad_size": room,
            **{name: value for name, value in ours.items() if value != usual[name]},
        }
    if spec.resize == "exact" and spec.side is None:
        return config | {"image_processor_type": "SiglipImageProcessor", "size": room}
    if spec.crop_offset != "down":
        config["crop_offset"] = spec.crop_offset
    if spec.rounding != "down":
        config["rounding"] = spec.rounding
    side = spec.side or min(spec.size)
    return config | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side} if spec.resize == "shorter" else {"height": side, "width": side},
        "do_center_crop": True,
        "crop_size": room,
    }


def _to_open_clip(spec: ImageSpec) -> dict[str, Any]:
    """Raises `BadConfig` for what that library cannot do."""
    height, width = spec.size
    mode = {"exact": "squash", "shorter": "shortest", "longer": "longest"}.get(spec.resize)
    if mode is None or spec.resample not in ("bicubic", "bilinear") or spec.rescale != 1 / 255:
        raise BadConfig(f"open_clip has no preprocessing with resize {spec.resize} and resampling {spec.resample}")
    if (mode != "squash" and height != width) or spec.side not in (None, height):
        raise BadConfig("open_clip only pads to squares, and resizes to the side of the square")
    colour = spec.pad_colour or (0, 0, 0)
    if mode == "longest" and (
        (spec.pad, spec.rounding) != ("centre", "even") or spec.pad_colour is None or len(set(colour)) > 1
    ):
        raise BadConfig("open_clip pads symmetrically, with a grey value, and rounds halves to even")
    return {
        "size": [height, width],
        "mode": "RGB",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.resample,
        "resize_mode": mode,
        "fill_color": colour[0],
    }


def _size(value: Any, *, name: str = "size", bare: str = "") -> tuple[str, tuple[int, int]]:
    """("", (height, width)), or the name of an edge and its length twice. A bare number means the edge `bare`."""
    if isinstance(value, Mapping):
        names = {name for name, side in value.items() if side is not None}
        if names == {"height", "width"}:
            return "", (_pixels(value["height"], f"{name}.height"), _pixels(value["width"], f"{name}.width"))
        if names in ({"shortest_edge"}, {"longest_edge"}):
            (edge,) = names
            side = _pixels(value[edge], f"{name}.{edge}")
            return edge, (side, side)
        raise BadConfig(f"{name} {dict(value)}: expected height and width, shortest_edge or longest_edge")
    if isinstance(value, list | tuple) and len(value) == 2:
        return "", (_pixels(value[0], name), _pixels(value[1], name))
    side = _pixels(value, name)
    return bare, (side, side)


def _both(value: Any, name: str) -> tuple[int, int]:
    edge, size = _size(value, name=name)
    if edge:
        raise BadConfig(f"{name} {value!r}: expected height and width")
    return size


def _colour(value: Any, name: str) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) is int and 0 <= v < 256 for v in value):
        raise BadConfig(f"{name}: expected values of 0 to 255; got {value!r}")
    return value[0], value[1], value[2]


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100_000:
        raise BadConfig(f"{name}: expected a whole number of pixels; got {value!r}")
    return value


def _pixels(value: Any, name: str) -> int:
    """A side of what the network reads: one pixel or tens of thousands of them are a mistake in the file."""
    side, most = _whole(value, name), limit("MAX_INPUT_SIDE")
    if not 2 <= side <= most:
        raise BadConfig(f"{name}: expected 2 to MAX_INPUT_SIDE = {most:,} pixels; got {side:,}")
    return side


def _three(value: Any, name: str) -> tuple[float, float, float]:
    values = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(_is_finite(v) for v in values):
        raise BadConfig(f"{name}: expected three numbers that are finite; got {value!r}")
    if name.endswith("std") and min(values) <= 0:
        raise BadConfig(f"{name}: expected numbers above 0; got {value!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and -sys.float_info.max <= value <= sys.float_info.max


def _filter(value: Any) -> Any:
    name = _FILTERS.get(value, value) if isinstance(value, int) else value
    return _choice(name, "resample", *_FILTERS.values(), "bilinear_tf1")


def _choice(value: Any, name: str, *choices: str) -> Any:
    if value not in choices:
        raise BadConfig(f"{name}: expected one of {', '.join(choices)}; got {value!r}")
    return value
