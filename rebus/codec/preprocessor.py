"""The preprocessor files of released checkpoints ⇄ `ImageSpec`: transformers (every version) and open_clip.

Only what changes pixels matters, and all of that does: a field that would change them and cannot be honoured is
refused by name, and so is a field never heard of, unless it is switched off.
"""

from collections.abc import Mapping
from typing import Any

from rebus.core.errors import BadConfig
from rebus.core.specs import ImageSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # the numbers are Pillow's

# What a file of each processor leaves unsaid.
_CLIP_DEFAULTS: dict[str, Any] = {
    "size": 224,
    "resample": 3,
    "do_center_crop": True,
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
}
_SIGLIP_DEFAULTS: dict[str, Any] = {
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_center_crop": False,
    "mean": _HALF,
    "std": _HALF,
}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP_DEFAULTS,
    "CLIPFeatureExtractor": _CLIP_DEFAULTS,
    "SiglipImageProcessor": _SIGLIP_DEFAULTS,
    "Siglip2ImageProcessor": {**_SIGLIP_DEFAULTS, "resample": 2},
}
_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std", "patch_size", "max_num_patches", "image_processor_type", "feature_extractor_type"),
    *("crop_offset", "alpha", "interpolation"),
}
_HARMLESS = {
    *("processor_class", "_processor_class", "auto_map", "_valid_processor_keys", "default_to_square"),
    *("do_convert_rgb", "image_seq_length", "image_seq_len", "model_input_names", "transformers_version"),
    *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "name_or_path"),
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
        raise BadConfig(f"preprocessor fields that may change the pixels and are not known: {', '.join(unknown)}")
    default = _PROCESSORS[kind]
    if not config.get("do_resize", True):
        raise BadConfig("do_resize is false: images of any size cannot form a batch")
    factor = config.get("rescale_factor", 1 / 255)
    if not config.get("do_rescale", True) or not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-6:
        raise BadConfig(f"rescale_factor {factor!r}: bytes are scaled by 1/255 here")
    normalised = config.get("do_normalize", True)
    common: dict[str, Any] = {
        "resample": _filter(config.get("resample", config.get("interpolation", default["resample"]))),
        "mean": _three(config.get("image_mean") or default["mean"], "image_mean") if normalised else (0.0, 0.0, 0.0),
        "std": _three(config.get("image_std") or default["std"], "image_std") if normalised else (1.0, 1.0, 1.0),
        "alpha": _choice(config.get("alpha", "white"), "alpha", "white", "drop"),
    }
    if kind == "Siglip2ImageProcessor":
        patch, most = _count(config, "patch_size", 16), _count(config, "max_num_patches", 256)
        return ImageSpec(size=(0, 0), fit="naflex", patch_size=patch, max_patches=most, **common)
    cropped = config.get("do_center_crop", default["do_center_crop"])
    size, shorter = _size(config.get("size", default["size"]), cropped or kind.startswith("CLIP"))
    if not cropped:
        if size is None:
            raise BadConfig("size: shortest_edge without do_center_crop gives images of several shapes")
        return ImageSpec(size=size, fit="squash", **common)
    crop, side = _size(config.get("crop_size", 224), False)
    if crop is None:
        raise BadConfig(f"crop_size {side!r}: wants height and width")
    if size is not None:
        raise BadConfig("size: height and width together with do_center_crop; wanted shortest_edge")
    offset = _choice(config.get("crop_offset", "down"), "crop_offset", "down", "even")
    return ImageSpec(
        size=crop, fit="crop", shorter_side=None if shorter == min(crop) else shorter, crop_offset=offset, **common
    )


def _from_open_clip(config: Mapping[str, Any]) -> ImageSpec:
    unknown = [name for name in config if name not in _OPEN_CLIP]
    if unknown:
        raise BadConfig(f"preprocess_cfg: unknown fields {', '.join(unknown)}")
    if "size" not in config:
        raise BadConfig("preprocess_cfg: no size, and none in model_cfg.vision_cfg.image_size")
    size, _ = _size(config["size"], False)
    mode = _choice(config.get("resize_mode") or "shortest", "resize_mode", "shortest", "squash")
    assert size is not None
    if mode == "shortest" and size[0] != size[1]:
        raise BadConfig(f"preprocess_cfg: resize_mode shortest wants a square size; got {size}")
    return ImageSpec(
        size=size,
        fit="crop" if mode == "shortest" else "squash",
        resample=_choice(config.get("interpolation") or "bicubic", "interpolation", "bicubic", "bilinear"),
        mean=_three(config.get("mean") or CLIP_MEAN, "mean"),
        std=_three(config.get("std") or CLIP_STD, "std"),
        crop_offset="even",
        alpha="drop",
    )


def image_spec_to_json(spec: ImageSpec, *, processor_class: str | None = None) -> dict[str, Any]:
    """The `preprocessor_config.json` of transformers. `processor_class` is its whole processor (`CLIPProcessor`).

    What transformers has no field for is written too (`crop_offset`, `alpha`), when it departs from its ways; it
    passes over such fields. With "open_clip" as `processor_class`: the `preprocess_cfg` of that library.
    """
    if processor_class == "open_clip":
        return _to_open_clip(spec)
    config: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "resample": next(number for number, name in _FILTERS.items() if name == spec.resample),
        "rescale_factor": 1 / 255,
    }
    if processor_class is not None:
        config["processor_class"] = processor_class
    if spec.alpha != "white":
        config["alpha"] = spec.alpha
    if spec.fit == "naflex":
        config |= {"image_processor_type": "Siglip2ImageProcessor", "patch_size": spec.patch_size}
        return config | {"max_num_patches": spec.max_patches}
    height, width = spec.size
    if spec.fit == "squash":
        return config | {"image_processor_type": "SiglipImageProcessor", "size": {"height": height, "width": width}}
    if spec.crop_offset != "down":
        config["crop_offset"] = spec.crop_offset
    return config | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": spec.shorter_side or min(spec.size)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }


def _to_open_clip(spec: ImageSpec) -> dict[str, Any]:
    height, width = spec.size
    if spec.fit == "naflex" or spec.resample not in ("bicubic", "bilinear"):
        raise BadConfig(f"open_clip has no preprocessing with fit {spec.fit} and resampling {spec.resample}")
    if spec.fit == "crop" and (height != width or spec.shorter_side not in (None, height)):
        raise BadConfig("open_clip crops squares out of a shorter side of the same length")
    return {
        "size": [height, width],
        "mode": "RGB",
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": spec.resample,
        "resize_mode": "shortest" if spec.fit == "crop" else "squash",
        "fill_color": 0,
    }


def _size(value: Any, shortest: bool) -> tuple[tuple[int, int] | None, int | None]:
    """((height, width), None) or (None, shorter side). A bare number means the latter where `shortest`."""
    if isinstance(value, Mapping):
        names = {name for name, side in value.items() if side is not None}
        if names == {"height", "width"}:
            return (_whole(value["height"], "size.height"), _whole(value["width"], "size.width")), None
        if names == {"shortest_edge"}:
            return None, _whole(value["shortest_edge"], "size.shortest_edge")
        raise BadConfig(f"size {dict(value)}: wants height and width, or shortest_edge")
    if isinstance(value, list | tuple) and len(value) == 2:
        return (_whole(value[0], "size"), _whole(value[1], "size")), None
    side = _whole(value, "size")
    return (None, side) if shortest else ((side, side), None)


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100_000:
        raise BadConfig(f"{name}: wants a whole number of pixels; got {value!r}")
    return value


def _count(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name)
    return default if value is None else _whole(value, name)


def _three(value: Any, name: str) -> tuple[float, float, float]:
    values = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise BadConfig(f"{name}: wants three numbers; got {value!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _filter(value: Any) -> Any:
    name = _FILTERS.get(value, value) if isinstance(value, int) else value
    return _choice(name, "resample", *_FILTERS.values())


def _choice(value: Any, name: str, *choices: str) -> Any:
    if value not in choices:
        raise BadConfig(f"{name}: wants one of {', '.join(choices)}; got {value!r}")
    return value
