"""Beam search of a Florence-2 beside transformers' on the same random weights, image encoder included, and the image
encoders alone. Says whether both write the same tokens.

`python benchmarks/florence2.py`: captions of a fixed length, batch 8, three beams, base shape. In bfloat16 our weights
are packed, as `load(pack=True)` does. Freed memory is kept, as the commands of rebus keep it; both profit. A round in
float32 takes two minutes on two cores. `--dtype loaded`: each library opens the same float16 file, as the weights were
released, without being told a dtype: float32 here, float16 there, in which a processor is slow; only the whole is timed
then.
"""

import argparse
import tempfile

import torch
import transformers
from alternating import about, options, ratios, report, summary, take_turns

import rebus
from rebus.core.allocator import keep_freed_memory
from rebus.nn.packed import pack_linears


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="base", choices=["base", "large"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=20, help="of each answer")
    parser.add_argument("--side", type=int, default=768, help="of the images, in pixels")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "loaded"], default="float32")
    chosen = options(parser)
    transformers.logging.set_verbosity_error()
    keep_freed_memory()
    torch.manual_seed(0)
    ours = rebus.create(f"florence2/{chosen.preset}", text={"vocab_size": 51_328})  # as transformers has it
    for parameter in ours.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    as_loaded = chosen.dtype == "loaded"
    with tempfile.TemporaryDirectory() as folder:
        saved = (ours.to(torch.float16) if as_loaded else ours).save(f"{folder}/model")
        theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(saved).eval()
        ours = rebus.load(saved) if as_loaded else ours
    if not as_loaded:
        dtype = getattr(torch, chosen.dtype)
        theirs.to(dtype)
        pack_linears(ours.to(dtype).network)
    pixels = torch.randn(chosen.batch, 3, chosen.side, chosen.side)
    our_pixels, their_pixels = pixels.to(ours.dtype), pixels.to(theirs.dtype)
    prompt = [0, *torch.randint(100, 50_000, (9,)).tolist(), 2]
    with torch.inference_mode():
        images = ours.network.see(our_pixels[:1]).shape[1]
    tokens = torch.tensor([[ours.config.image_id] * images + prompt] * chosen.batch)

    def by_us() -> torch.Tensor:
        how = {"strategy": "beam", "num_beams": chosen.beams, "no_repeat_ngram_size": 3, "early_stopping": True}
        return ours.generate(pixels=our_pixels, tokens=tokens, max_new_tokens=chosen.tokens, eos_id=None, **how)

    def by_them() -> torch.Tensor:
        found = theirs.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=their_pixels,
            max_new_tokens=chosen.tokens,
            num_beams=chosen.beams,
            no_repeat_ngram_size=3,
            early_stopping=True,
            do_sample=False,
            forced_bos_token_id=0,
            forced_eos_token_id=2,
            eos_token_id=-1,  # never: answers of one length
        )
        return found[:, 1:]

    contestants = {"rebus": by_us, "transformers": by_them}
    if not as_loaded:
        contestants["rebus, images alone"] = lambda: ours.network.see(our_pixels)
        contestants["transformers, images alone"] = lambda: theirs.get_image_features(their_pixels)
    with torch.inference_mode():
        extra = {} if as_loaded else {"the same tokens": by_us().tolist() == by_them().tolist()}
        times = take_turns(contestants, chosen.rounds, chosen.clock)
    if not as_loaded:
        for name in ("rebus", "transformers"):
            alone = times[f"{name}, images alone"]
            times[f"{name}, all but the images"] = [a - b for a, b in zip(times[name], alone, strict=True)]
    pairs = sorted(other / own for own, other in zip(times["rebus"], times["transformers"], strict=True))
    extra |= {"ratio of each pair": ", ".join(f"{pair:.2f}" for pair in pairs), **about(chosen)}
    dtypes = f"{ours.dtype} and {theirs.dtype}".replace("torch.", "")
    case = f"batch {chosen.batch}, {chosen.beams} beams, {chosen.tokens} tokens, {chosen.side} pixels, {dtypes}"
    compared = ratios(times, [name for name in times if name.startswith("transformers")])
    report({"case": case, "times": summary(times), "ratios": compared, "extra": extra}, chosen.json)


if __name__ == "__main__":
    main()
