"""CLIP B/16 in bfloat16 at a batch of 1,024: our training step against that of open_clip, images a second.

Ours: `Learner`, `backward`, gradient clipping and AdamW as a run makes them, blocks compiled. Theirs: the model, loss
and AdamW groups of open_clip's training script under autocast, as it is and compiled. Where open_clip is missing, the
CLIP of transformers stands in. All weights and moments are float32; batches lie on the device.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.measuring import busiest_kernels, in_turns, peaks, seconds_of, shares
from benchmarks.gpu.setting import Figures, Setting, free, reason
from rebus.models.contrastive import clip
from rebus.nn.blocks import blocks_of
from rebus.objectives import Learner, SoftmaxLoss, backward
from rebus.train import Optim
from rebus.train.distributed import clip_gradients
from rebus.train.optim import make_optimisers

Batch = dict[str, Tensor]
Step = Callable[[Batch], Any]


def run(setting: Setting, figures: Figures) -> None:
    cfg = clip.PRESETS["tiny" if setting.tiny else "b16_gelu"]
    known = peaks(setting)
    figures["peaks"] = known
    figures["flops_per_image"] = flops = _flops(cfg, setting)
    rival, theirs = _rival(cfg, setting, figures)
    ours = _ours(cfg, setting)
    batch = None
    for size in (8, 4) if setting.tiny else (1024, 768, 512, 256):
        batch = _batch(cfg, size, setting)
        fit = {name: _fits(step, batch, setting) for name, step in (("rebus", ours), (rival, theirs))}
        figures[f"batch {size}"] = fit
        if all(fit.values()):
            break
    else:
        raise RuntimeError("no batch size fits")
    figures["rival"], figures["batch"] = rival, size
    taken = in_turns({"rebus": lambda: ours(batch), rival: lambda: theirs(batch)}, setting, calls=3)
    figures["images_per_second"] = _rates(taken, size, flops, known)
    figures["times_the_rival"] = taken[rival]["median"] / taken["rebus"]["median"]
    figures.attempt("busiest kernels, rebus", lambda: busiest_kernels(lambda: ours(batch), setting.device))

    def compiled_rival() -> dict[str, Any]:
        step = _compiled_rival(cfg, setting, rival)
        first = seconds_of(lambda: step(batch), setting.device)
        taken = in_turns({"it": lambda: step(batch)}, setting, calls=3)
        return {"first_step_seconds": first, **_rates(taken, size, flops, known)["it"]}

    del ours, theirs
    free()
    figures.attempt_within(45, setting, f"{rival}, compiled", compiled_rival)


def _ours(cfg: clip.CLIPConfig, setting: Setting) -> Step:
    """Blocks compiled one by one, as a run does it."""
    torch.manual_seed(0)
    network = clip.CLIP(cfg).to(setting.device)
    for block in blocks_of(network):
        block.compile()
    learner = Learner(SoftmaxLoss(), network)
    optimisers = make_optimisers(network, Optim(lr=1e-5))
    learner.train()

    def step(batch: Batch) -> float:
        learner.zero_grad(set_to_none=True)
        losses = backward(learner, [batch], lambda: torch.autocast(setting.device.type, torch.bfloat16))
        clip_gradients(learner, 1.0)
        loss = float(losses.total)  # read before the weights move, as a run does
        for optimiser in optimisers:
            optimiser.step()
        return loss

    return step


def _rival(cfg: clip.CLIPConfig, setting: Setting, figures: Figures) -> tuple[str, Step]:
    try:
        return "open_clip", _open_clip(cfg, setting, compiled=False)
    except ImportError as error:
        figures["open_clip"] = f"not here, transformers stands in: {reason(error)}"
        return "transformers", _transformers(cfg, setting, compiled=False)


def _compiled_rival(cfg: clip.CLIPConfig, setting: Setting, rival: str) -> Step:
    return (_open_clip if rival == "open_clip" else _transformers)(cfg, setting, compiled=True)


def _open_clip(cfg: clip.CLIPConfig, setting: Setting, compiled: bool) -> Step:
    import open_clip

    torch.manual_seed(0)
    sizes = clip.SYSTEM.layouts["open_clip"].write_config(cfg)["model_cfg"]
    model = open_clip.CLIP(**sizes).to(setting.device).train()
    loss = open_clip.ClipLoss(local_loss=False, gather_with_grad=False, cache_labels=True, rank=0, world_size=1)
    run = torch.compile(model) if compiled else model

    def forward(batch: Batch) -> Tensor:
        image, text, scale = run(batch["pixels"], batch["tokens"])[:3]
        return loss(image, text, scale)

    return _their_step(model, forward, setting)


def _transformers(cfg: clip.CLIPConfig, setting: Setting, compiled: bool) -> Step:
    import transformers

    torch.manual_seed(0)
    config = transformers.CLIPConfig.from_dict(clip.write_transformers(cfg))
    model = transformers.CLIPModel(config).to(setting.device).train()
    run = torch.compile(model) if compiled else model

    def forward(batch: Batch) -> Tensor:
        return run(input_ids=batch["tokens"], pixel_values=batch["pixels"], return_loss=True).loss

    return _their_step(model, forward, setting)


def _their_step(model: nn.Module, forward: Callable[[Batch], Tensor], setting: Setting) -> Step:
    """open_clip's `train_one_epoch` by default: two groups of AdamW, autocast, no clipping, the scale clamped."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    rest = [p for n, p in named if not any(p is q for q in plain)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}]
    optimiser = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.98), eps=1e-6)
    scale = next(p for n, p in named if n.endswith("logit_scale"))

    def step(batch: Batch) -> Tensor:
        optimiser.zero_grad()
        with torch.autocast(setting.device.type, torch.bfloat16):
            total = forward(batch)
        total.backward()
        optimiser.step()
        with torch.no_grad():
            scale.clamp_(0, 4.6052)
        return total.detach()  # read every hundredth step there

    return step


def _batch(cfg: clip.CLIPConfig, size: int, setting: Setting) -> Batch:
    return {name: tensor.to(setting.device) for name, tensor in clip.SYSTEM.example(cfg, size).items()}


def _fits(step: Step, batch: Batch, setting: Setting) -> bool:
    """Whether two steps run; they also warm up."""
    try:
        for _ in range(2):
            seconds_of(lambda: step(batch), setting.device)
    except torch.OutOfMemoryError:
        return False
    finally:
        free()
    return True


def _flops(cfg: clip.CLIPConfig, setting: Setting) -> float:
    """Of one image and its text, forward and backward, by PyTorch's counter."""
    learner = Learner(SoftmaxLoss(), clip.CLIP(cfg).to(setting.device))
    with FlopCounterMode(display=False) as counter:
        backward(learner, [_batch(cfg, 4, setting)], lambda: torch.autocast(setting.device.type, torch.bfloat16))
    return counter.get_total_flops() / 4


def _rates(taken: dict[str, dict[str, float]], size: int, flops: float, known: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, values in taken.items():
        rate = size / values["median"]
        found[name] = {
            "images_per_second": rate,
            "slowest": size / values["slowest"],
            "fastest": size / values["fastest"],
            **shares(rate * flops, known, "flops"),
        }
    return found
