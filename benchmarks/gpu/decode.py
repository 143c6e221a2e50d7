"""PaliGemma-3B-shaped decoding in bfloat16 with random weights of the published shape, greedy, no ends.

Batch 1 waits for memory: the bytes of the decoder's weights and of its cache, read once a token, over the seconds of a
token, as a share of the bandwidth. Batch 32 is measured against transformers' `generate`. The seconds of a token are
those of a long answer less those of one token, divided by the tokens between.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measuring import busiest_kernels, peaks, seconds_of, shares, wait
from benchmarks.gpu.setting import Figures, Setting
from rebus.generation import generate
from rebus.generation.cuda_graph import GraphedStep
from rebus.models.unified import paligemma
from rebus.nn.linear import join_products

Batch = dict[str, Tensor]
Write = Callable[[int], Any]  # tokens → an answer of that many
_PROMPT = 16


def run_alone(setting: Setting, figures: Figures) -> None:
    """Batch 1, as `load(compile=True)` has it, and without compilation."""
    known = peaks(setting)
    figures["peaks"] = known
    network = build(setting)
    batch = prompts(network, 1, setting)
    slots = batch["tokens"].shape[1] + _tokens(setting)
    figures["weight_bytes_per_token"] = weights = _bytes(network)
    figures["cache_bytes_per_token"] = cache = sum(
        2 * key.numel() * key.element_size() for key in network.text.empty_cache(1, slots).keys
    )

    def take() -> dict[str, Any]:
        first = seconds_of(lambda: write(network, batch, 1 + _tokens(setting)), setting.device)
        taken = per_token({"it": lambda n: write(network, batch, n)}, setting)["it"]
        rate = (weights + cache) / taken["median"]
        alone = _steps_alone(network, batch, setting)
        return {
            "first_call_seconds": first,
            "tokens_per_second": 1 / taken["median"],
            "milliseconds_per_token": {name: 1e3 * value for name, value in taken.items()},
            **shares(rate, known, "bandwidth"),
            "milliseconds_per_step_alone": 1e3 * alone,
            "step_alone": shares((weights + cache) / alone, known, "bandwidth"),
        }

    def kernels() -> list[dict[str, Any]]:
        return busiest_kernels(lambda: write(network, batch, 9), setting.device)

    def tuned(options: dict[str, Any]) -> dict[str, Any]:
        prepare(network, options)
        return take()

    prepare(network)
    if figures.attempt("compiled, in a graph", take):
        figures.attempt("busiest kernels", kernels)
    network.step = GraphedStep(type(network).step.__get__(network))
    figures.attempt("eager, in a graph", take)
    # What an adoption by `load` would bring; the second where the first fails.
    for name, options in {
        "products chosen by measuring, small kernels as one": {"max_autotune_gemm": True, "combo_kernels": True},
        "products chosen by measuring": {"max_autotune_gemm": True},
    }.items():
        if figures.attempt_within(45, setting, name, lambda o=options: tuned(o)):
            figures.attempt(f"busiest kernels, {name}", kernels)
            break


def run_together(setting: Setting, figures: Figures) -> None:
    """Batch 32, against transformers with a static cache (which compiles its step), and with a growing one."""
    network = build(setting)
    prepare(network)
    rows = 2 if setting.tiny else 32
    batch = prompts(network, rows, setting)
    figures["batch"] = rows
    ours = {"rebus": lambda n: write(network, batch, n)}
    figures["rebus, first call"] = seconds_of(lambda: write(network, batch, 4), setting.device)
    figures["rebus"] = _rate(per_token(ours, setting)["rebus"], rows)
    hub, same = _hub(network)
    figures["same weights"] = same
    rivals: dict[str, Write] = {}
    for name, kind in (("transformers, growing cache", None), ("transformers, static cache", "static")):

        def theirs(tokens: int, kind: str | None = kind) -> Tensor:
            return write_hub(hub, batch, tokens, kind)

        def first(run: Write = theirs) -> float:
            return seconds_of(lambda: run(4), setting.device)

        if figures.attempt_within(25 if kind else 10, setting, f"{name}, first call", first):
            rivals[name] = theirs
            taken = per_token({**ours, name: theirs}, setting)
            figures[name] = _rate(taken[name], rows)
            figures[f"times {name}"] = taken[name]["median"] / taken["rebus"]["median"]
    for name, theirs in rivals.items():
        figures.attempt(f"share of the first 8 tokens equal, {name}", lambda f=theirs: _equal(f(8), ours["rebus"](8)))


def build(setting: Setting) -> paligemma.PaliGemma:
    """The 3B shape with random weights, in bfloat16 on the device."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(setting.device):
            network = paligemma.PaliGemma(paligemma.PRESETS["tiny" if setting.tiny else "3b_224"])
            torch.nn.init.normal_(network.image_proj.weight, std=network.image_proj.in_features**-0.5)
    finally:
        torch.set_default_dtype(before)
    return network.eval().requires_grad_(False)


def prompts(network: paligemma.PaliGemma, rows: int, setting: Setting) -> Batch:
    made = paligemma.SYSTEM.example(network.cfg, rows, prompt=_PROMPT, answer=1)
    return {"pixels": made["pixels"].to(setting.device, torch.bfloat16), "tokens": made["tokens"].to(setting.device)}


def write(network: paligemma.PaliGemma, batch: Batch, tokens: int) -> Tensor:
    return generate(network, batch, eos_id=None, pad_id=0, max_new_tokens=tokens)


def write_hub(hub: Any, batch: Batch, tokens: int, cache: str | None) -> Tensor:
    options = {} if cache is None else {"cache_implementation": cache}
    out = hub.generate(
        pixel_values=batch["pixels"],
        input_ids=batch["tokens"],
        attention_mask=torch.ones_like(batch["tokens"]),
        token_type_ids=torch.zeros_like(batch["tokens"]),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    )
    return out[:, batch["tokens"].shape[1] :]


def per_token(writers: dict[str, Write], setting: Setting) -> dict[str, dict[str, float]]:
    """Seconds of a token by name: median, fastest and slowest round."""
    many = _tokens(setting)
    found: dict[str, list[float]] = {name: [] for name in writers}
    with torch.inference_mode():
        for turn in range(setting.rounds + 1):
            for name, writer in writers.items():
                one = seconds_of(lambda w=writer: w(1), setting.device)
                whole = seconds_of(lambda w=writer: w(1 + many), setting.device)
                if turn:
                    found[name].append(max(whole - one, 1e-9) / many)
    return {n: {"median": statistics.median(v), "fastest": min(v), "slowest": max(v)} for n, v in found.items()}


def _tokens(setting: Setting) -> int:
    return 4 if setting.tiny else 64


def _steps_alone(network: paligemma.PaliGemma, batch: Batch, setting: Setting) -> float:
    """Seconds of `network.step` and the choice of a token when the host never waits."""
    many = _tokens(setting)

    def steps(step: Any) -> None:
        for _ in range(many):
            step = network.step(step.logits.argmax(dim=1), step.cache)

    taken = []
    with torch.inference_mode():
        for _ in range(3):
            begun = network.start(room=many + 1, **batch)
            wait(setting.device)
            taken.append(seconds_of(lambda s=begun: steps(s), setting.device) / many)
    return statistics.median(taken[1:])


def _bytes(network: paligemma.PaliGemma) -> int:
    """Of the weights that a step reads: the whole decoder, the table of tokens once, as its head."""
    return sum(p.numel() * p.element_size() for p in network.text.parameters())


def prepare(network: paligemma.PaliGemma, options: dict[str, Any] | None = None) -> None:
    """The step as `load(compile=True)` has it, the products joined; prompts are read uncompiled."""
    torch._dynamo.reset()
    join_products(network)
    step = type(network).step.__get__(network)
    network.step = GraphedStep(torch.compile(step, dynamic=False, options=options))


def _hub(network: paligemma.PaliGemma) -> tuple[Any, bool | str]:
    """transformers' network of the same shape, and whether it got the same weights."""
    import logging
    import warnings

    import transformers

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    config = transformers.PaliGemmaConfig.from_dict(paligemma.write_transformers(network.cfg))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(network.text.norm.weight.device):
            hub = transformers.PaliGemmaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    hub = hub.to(torch.bfloat16).eval().requires_grad_(False)
    try:
        ours = network.state_dict()
        keys = paligemma.keys(network.cfg).to_ours(hub.state_dict())
        if set(keys) != set(ours):
            return hub, "no: other names"
        for name, row in keys.items():
            theirs = row.load()
            theirs.copy_(ours[name])
        return hub, True
    except Exception as error:
        return hub, f"no: {error}"


def _rate(taken: dict[str, float], rows: int) -> dict[str, float]:
    return {
        "tokens_per_second": rows / taken["median"],
        "milliseconds_per_step": 1e3 * taken["median"],
        "fastest": 1e3 * taken["fastest"],
        "slowest": 1e3 * taken["slowest"],
    }


def _equal(first: Tensor, second: Tensor) -> float:
    return float((first == second).float().mean())
