"""Images as vectors in bfloat16: CLIP B/16 against open_clip and transformers, SigLIP So400m/14 against transformers.

Each as it is and compiled. All have random weights; batches lie on the device.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.measuring import in_turns, peaks, seconds_of, shares
from benchmarks.gpu.setting import Figures, Setting, free, reason
from rebus.models.contrastive import clip, siglip

Embed = Callable[[Tensor], Any]


def run(setting: Setting, figures: Figures) -> None:
    known = peaks(setting)
    figures["peaks"] = known
    clip_cfg = clip.PRESETS["tiny" if setting.tiny else "b16_gelu"]
    siglip_cfg = siglip.PRESETS["tiny" if setting.tiny else "so400m14_224"]
    for title, cfg, makers in (
        ("CLIP B/16", clip_cfg, {"rebus": _clip, "open_clip": _open_clip, "transformers": _hub_clip}),
        ("SigLIP So400m/14", siglip_cfg, {"rebus": _siglip, "transformers": _hub_siglip}),
    ):
        size = cfg.image.image_size
        pixels = torch.randn(4 if setting.tiny else 256, 3, size, size, device=setting.device, dtype=torch.bfloat16)
        with torch.no_grad():
            _side_by_side(title, cfg, makers, pixels, known, setting, figures)
        free()


def _side_by_side(
    title: str,
    cfg: Any,
    makers: dict[str, Any],
    pixels: Tensor,
    known: dict[str, Any],
    setting: Setting,
    figures: Figures,
) -> None:
    there: dict[str, Embed] = {}
    for name, make in makers.items():
        try:
            torch.manual_seed(0)
            there[name] = make(cfg, setting.device)
            there[name](pixels)
        except Exception as error:
            figures[f"{title}, {name}"] = {"error": reason(error)}
            there.pop(name, None)
    with FlopCounterMode(display=False) as counter:
        there["rebus"](pixels)
    flops = counter.get_total_flops() / len(pixels)

    def rates(contestants: dict[str, Embed]) -> dict[str, Any]:
        taken = in_turns({n: lambda e=e: e(pixels) for n, e in contestants.items()}, setting, calls=4)
        found = {}
        for name, values in taken.items():
            rate = len(pixels) / values["median"]
            found[name] = {"images_per_second": rate, **shares(rate * flops, known, "flops")}
            if name.split(",")[0] != "rebus":
                found[name]["rebus_times"] = values["median"] / taken[next(iter(taken))]["median"]
        return found

    figures.attempt(title, lambda: rates(there))
    quick: dict[str, Embed] = {}
    for name, embed in there.items():
        run = torch.compile(embed)
        if figures.attempt(
            f"{title}, {name} compiled, first call seconds", lambda r=run: seconds_of(lambda: r(pixels), setting.device)
        ):
            quick[f"{name}, compiled"] = run
    if "rebus, compiled" in quick:
        figures.attempt(f"{title}, compiled", lambda: rates(quick))


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
