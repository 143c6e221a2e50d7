"""Images as vectors in bfloat16: CLIP B/16 against open_clip and transformers, SigLIP So400m/14 against transformers.

Each as it is; ours compiled, too. All have random weights; batches lie on the device.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measuring import in_turns, peaks, seconds_of
from benchmarks.gpu.setting import Figures, Setting, reason
from rebus.models.contrastive import clip, siglip

Embed = Callable[[Tensor], Any]


@torch.no_grad()
def run(setting: Setting, figures: Figures) -> None:
    figures["peaks"] = peaks(setting)
    clip_cfg = clip.PRESETS["tiny" if setting.tiny else "b16_gelu"]
    siglip_cfg = siglip.PRESETS["tiny" if setting.tiny else "so400m14_224"]
    cases = {
        "CLIP B/16": (clip_cfg, {"rebus": _clip, "open_clip": _open_clip, "transformers": _hub_clip}),
        "SigLIP So400m/14": (siglip_cfg, {"rebus": _siglip, "transformers": _hub_siglip}),
    }
    made: dict[str, tuple[Tensor, dict[str, Embed]]] = {}
    for title, (cfg, makers) in cases.items():
        size = cfg.image.image_size
        pixels = torch.randn(4 if setting.tiny else 256, 3, size, size, device=setting.device, dtype=torch.bfloat16)
        made[title] = pixels, _made(title, cfg, makers, setting, figures)
        _compare(title, *made[title], setting, figures)
    for title, (pixels, embeds) in made.items():
        run = torch.compile(embeds["rebus"])

        def first(run: Embed = run, pixels: Tensor = pixels) -> float:
            return seconds_of(lambda: run(pixels), setting.device)

        if figures.attempt_within(15, setting, f"{title}, compiled, first call seconds", first):
            _compare(f"{title}, compiled", pixels, {**embeds, "rebus": run}, setting, figures)


def _made(title: str, cfg: Any, makers: dict[str, Any], setting: Setting, figures: Figures) -> dict[str, Embed]:
    found: dict[str, Embed] = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        try:
            found[name] = make(cfg, setting.device)
        except Exception as error:  # what is not here is left out
            figures[f"{title}, {name}"] = f"left out: {reason(error)}"
    return found


def _compare(title: str, pixels: Tensor, embeds: dict[str, Embed], setting: Setting, figures: Figures) -> None:
    """Images a second of each, and how many times as fast ours is."""

    def rates() -> dict[str, Any]:
        taken = in_turns({n: lambda e=e: e(pixels) for n, e in embeds.items()}, setting, calls=4)
        found: dict[str, Any] = {n: {"images_per_second": len(pixels) / v["median"]} for n, v in taken.items()}
        for name, value in taken.items():
            if name != "rebus":
                found[name]["rebus_times"] = value["median"] / taken["rebus"]["median"]
        return found

    figures.attempt(title, rates)


def _clip(cfg: Any, device: torch.device) -> Embed:
    return clip.CLIP(cfg).to(device, torch.bfloat16).eval().embed_image


def _siglip(cfg: Any, device: torch.device) -> Embed:
    return siglip.SigLIP(cfg).to(device, torch.bfloat16).eval().embed_image


def _open_clip(cfg: Any, device: torch.device) -> Embed:
    import open_clip

    model = open_clip.CLIP(**clip.SYSTEM.layouts["open_clip"].write_config(cfg)["model_cfg"])
    model = model.to(device, torch.bfloat16).eval()
    return lambda pixels: model.encode_image(pixels, normalize=True)


def _hub_clip(cfg: Any, device: torch.device) -> Embed:
    import transformers

    model = transformers.CLIPModel(transformers.CLIPConfig.from_dict(clip.write_transformers(cfg)))
    model = model.to(device, torch.bfloat16).eval()
    return lambda pixels: model.get_image_features(pixel_values=pixels)


def _hub_siglip(cfg: Any, device: torch.device) -> Embed:
    import transformers

    model = transformers.SiglipModel(transformers.SiglipConfig.from_dict(siglip.write_transformers(cfg)))
    model = model.to(device, torch.bfloat16).eval()
    return lambda pixels: model.get_image_features(pixel_values=pixels)
