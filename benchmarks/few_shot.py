"""Few-shot decoding of a Flamingo in IDEFICS' form: rebus against transformers' `generate`, on the same random weights.

    python benchmarks/few_shot.py [--batch 4] [--shots 4] [--tokens 20] [--threads 2] [--clock wall] [--json]

Each row holds examples, an image and a text each, and an image to go on from. Both encode the images, read the prompt
and decode greedily to the same length. The ratios of `whole` count all of it, those of `writing` subtract the time for
one token.
"""

import argparse
import logging
import warnings

import torch
import transformers
from alternating import about, options, ratios, report, summary, take_turns

from rebus import catalog
from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.generation import generate
from rebus.models.frozen_lm import idefics
from rebus.models.frozen_lm.bridge import CrossConfig, ResamplerConfig
from rebus.models.frozen_lm.flamingo_config import PRESETS, FlamingoConfig, part
from rebus.nn.linear import join_products
from rebus.weights.load_weights import load_into

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()

VOCAB, WORDS = 32_000, 12  # tokens known, and of an example's text
LIKE = PRESETS["idefics_9b"]
CONFIG = FlamingoConfig(
    text=part(
        "llama",
        LlamaConfig(
            width=768, num_layers=12, num_heads=12, num_kv_heads=12, head_width=64, mlp_width=2048, context=2048
        ),
    ),
    image=part(
        "vit",
        ViTConfig(
            width=384, num_layers=6, num_heads=6, mlp_width=1536, image_size=112, act="gelu", eps=1e-5, class_token=True
        ),
    ),
    resampler=ResamplerConfig(num_layers=2, num_heads=6, head_width=64, act="relu", qk_norm=True),
    cross=CrossConfig(every=4, num_heads=12, head_width=64, mlp_width=2048, norm="rms", gated_mlp=True, qk_norm=True),
    class_token=True,
    added=LIKE.added,
    mark=LIKE.mark,
    end=None,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=20)
    chosen = options(parser)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    hub = transformers.IdeficsForVisionText2Text(transformers.IdeficsConfig(**idefics.write_config(CONFIG))).eval()
    for weight in hub.parameters():
        torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.5)
    ours = catalog.system("flamingo").build(CONFIG).eval()
    load_into(ours, idefics.keys(CONFIG).to_ours(hub.state_dict()), device="cpu", dtype=torch.float32)
    join_products(ours)

    mark = [CONFIG.id_of(CONFIG.mark[0]), CONFIG.image_id, CONFIG.id_of(CONFIG.mark[0])]
    examples = [token for _ in range(chosen.shots) for token in (*mark, *torch.randint(5, VOCAB, (WORDS,)).tolist())]
    tokens = torch.tensor([[1, *examples, *mark, 7, 8]] * chosen.batch)
    images = chosen.shots + 1
    pixels = torch.randn(chosen.batch, images, 3, 112, 112)
    there = torch.ones(chosen.batch, images, dtype=torch.bool)
    looks = torch.nn.functional.one_hot((tokens == CONFIG.image_id).cumsum(1), images + 1)[..., 1:]

    def by_us(number: int) -> torch.Tensor:
        batch = {"pixels": pixels, "image_mask": there, "tokens": tokens}
        return generate(ours, batch, max_new_tokens=number, strategy="greedy", eos_id=None, pad_id=0)

    def by_them(number: int) -> torch.Tensor:
        given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "image_attention_mask": looks}
        length = {"max_new_tokens": number, "min_new_tokens": number, "do_sample": False}
        return hub.generate(**given, pixel_values=pixels, **length)[:, tokens.shape[1] :]

    same = torch.equal(by_us(chosen.tokens), by_them(chosen.tokens))
    names = {"rebus": by_us, "transformers": by_them}
    turns = {
        f"{name}, {number} tokens": (lambda call=call, number=number: call(number))
        for name, call in names.items()
        for number in (1, chosen.tokens)
    }
    seconds = take_turns(turns, chosen.rounds, chosen.clock)
    whole = {name: seconds[f"{name}, {chosen.tokens} tokens"] for name in names}
    writing = {
        f"{name}, writing": [a - b for a, b in zip(whole[name], seconds[f"{name}, 1 tokens"], strict=True)]
        for name in names
    }
    report(
        {
            "case": f"{chosen.batch} rows of {images} images, {tokens.shape[1]} tokens read, {chosen.tokens} written",
            "about": about(chosen),
            "times": summary({**seconds, **writing}),
            "ratios": {
                "whole": ratios(whole, ["transformers"])["transformers"],
                "writing": ratios(writing, ["transformers, writing"])["transformers, writing"],
            },
            "extra": {"same tokens": same},
        },
        chosen.json,
    )


if __name__ == "__main__":
    main()
