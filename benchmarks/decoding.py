"""PaliGemma-shaped decoding with a decoder of 200 million weights: rebus against transformers' `generate`.

    python benchmarks/decoding.py [--dtype bfloat16] [--batch 1] [--tokens 64] [--threads 2] [--clock wall] [--json]

A small image encoder, 64 image tokens and a prompt of 8; both decode greedily to the same length. The ratios of
`whole` count reading the prompt too, those of `writing` subtract it (the time for one token).
"""

import argparse
import logging
import statistics
import warnings

import torch
import transformers
from alternating import about, options, ratios, report, summary, take_turns

from rebus.backbones.text.gemma import GemmaConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.generation import generate
from rebus.models.unified import paligemma
from rebus.nn.packed import pack_linears
from rebus.nn.quantized import quantize_linears

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()

VOCAB = 32_000
CONFIG = paligemma.PaliGemmaConfig(
    image=ViTConfig(width=384, num_layers=4, num_heads=6, mlp_width=1536, patch_size=14, image_size=112),
    text=GemmaConfig(
        width=1024, num_layers=12, num_heads=8, num_kv_heads=1, head_width=128, mlp_width=4096, vocab_size=VOCAB
    ),
    image_id=VOCAB - 1,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    chosen = options(parser)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    dtype = getattr(torch, chosen.dtype)

    hub = transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig.from_dict(paligemma.write_transformers(CONFIG))
    ).eval()
    for weight in hub.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    rows = {name: row.load() for name, row in paligemma.keys(CONFIG).to_ours(hub.state_dict()).items()}
    ours = _ours(rows).to(dtype)
    packed = pack_linears(_ours(rows).to(dtype))  # what load(pack=True) gives, and the commands use
    integer = quantize_linears(_ours(rows))  # float32 between the products: what load(quantize="int8") gives on a CPU
    integer_half = quantize_linears(_ours(rows).to(dtype))
    four = quantize_linears(_ours(rows), "int4")
    hub = hub.to(dtype)

    pixels = torch.randn(chosen.batch, 3, 112, 112, dtype=dtype)
    image = torch.full((chosen.batch, CONFIG.num_image_tokens), VOCAB - 1)
    tokens = torch.cat([image, torch.randint(3, VOCAB - 1, (chosen.batch, 8))], dim=1)

    def write(network: paligemma.PaliGemma, length: int, kind: torch.dtype = dtype) -> torch.Tensor:
        batch = {"pixels": pixels.to(kind), "tokens": tokens}
        return generate(network, batch, eos_id=None, pad_id=0, max_new_tokens=length)

    def write_hub(length: int) -> torch.Tensor:
        return hub.generate(
            pixel_values=pixels,
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            token_type_ids=torch.zeros_like(tokens),
            max_new_tokens=length,
            do_sample=False,
            eos_token_id=None,
        )[:, tokens.shape[1] :]

    writers = {
        f"transformers {chosen.dtype}": write_hub,
        f"rebus {chosen.dtype}": lambda length: write(ours, length),
        f"rebus {chosen.dtype}, packed": lambda length: write(packed, length),
        "rebus int8": lambda length: write(integer, length, torch.float32),
        f"rebus int8, {chosen.dtype} between": lambda length: write(integer_half, length),
        "rebus int4": lambda length: write(four, length, torch.float32),
    }
    equal = [torch.equal(writers[name](16), write_hub(16)) for name in writers]
    whole = take_turns({k: lambda w=w: w(chosen.tokens) for k, w in writers.items()}, chosen.rounds, chosen.clock)
    first = take_turns({k: lambda w=w: w(1) for k, w in writers.items()}, chosen.rounds, chosen.clock)
    reading = {name: statistics.median(values) for name, values in first.items()}
    writing = {name: [value - reading[name] for value in values] for name, values in whole.items()}
    reference = f"transformers {chosen.dtype}"
    for case, seconds in (("whole", whole), ("writing", writing)):
        result = {
            "case": f"{case}: {chosen.tokens} tokens, batch {chosen.batch}, "
            f"decoder of {sum(p.numel() for p in ours.text.parameters()) / 1e6:.0f} million weights, {chosen.dtype}",
            "about": about(chosen),
            "times": summary(seconds),
            "ratios": ratios(seconds, [reference]),
            "extra": {"first 16 tokens as transformers": dict(zip(writers, equal, strict=True))},
        }
        report(result, chosen.json)


def _ours(rows: dict[str, torch.Tensor]) -> paligemma.PaliGemma:
    network = paligemma.PaliGemma(CONFIG)
    network.load_state_dict(rows)
    return network.eval()


if __name__ == "__main__":
    main()
