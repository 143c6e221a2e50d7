"""Beam search of a Florence-2 beside transformers' on the same random weights, in one run.

`python benchmarks/florence2.py`: seconds a batch for captions of a fixed length, image encoder included, and whether
both libraries write the same tokens.
"""

import argparse
import tempfile
import time

import torch
import transformers

import rebus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="base", choices=["base", "large"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=20, help="of each answer")
    parser.add_argument("--side", type=int, default=768, help="of the images, in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    ours = rebus.create(f"florence2/{args.preset}", text={"vocab_size": 51_328})  # as transformers has it
    for parameter in ours.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    with tempfile.TemporaryDirectory() as folder:
        saved = ours.save(f"{folder}/model")
        theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(saved).eval()
    dtype = getattr(torch, args.dtype)
    ours.to(args.device, dtype)
    theirs.to(args.device, dtype)
    pixels = torch.randn(args.batch, 3, args.side, args.side).to(args.device, dtype)
    images = ours.network.see(pixels[:1]).shape[1]
    prompt = [0, *torch.randint(100, 50_000, (9,)).tolist(), 2]
    tokens = torch.tensor([[ours.config.image_id] * images + prompt] * args.batch, device=args.device)
    eos = -1  # never: answers of one length

    def by_us() -> torch.Tensor:
        options = {"strategy": "beam", "num_beams": args.beams, "no_repeat_ngram_size": 3, "early_stopping": True}
        return ours.generate(pixels=pixels, tokens=tokens, max_new_tokens=args.tokens, eos_id=None, **options)

    def by_them() -> torch.Tensor:
        found = theirs.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=pixels,
            max_new_tokens=args.tokens,
            num_beams=args.beams,
            no_repeat_ngram_size=3,
            early_stopping=True,
            do_sample=False,
            forced_bos_token_id=0,
            forced_eos_token_id=2,
            eos_token_id=eos,
        )
        return found[:, 1:]

    def seconds(work: object) -> float:
        best = float("inf")
        for _ in range(args.repeats):
            if args.device != "cpu":
                torch.cuda.synchronize()
            begun = time.perf_counter()
            work()  # type: ignore[operator]
            if args.device != "cpu":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begun)
        return best

    with torch.inference_mode():
        same = by_us().tolist() == by_them().tolist()
        mine, other = seconds(by_us), seconds(by_them)
        see, look = seconds(lambda: ours.network.see(pixels)), seconds(lambda: theirs.get_image_features(pixels))
    print(
        f"batch {args.batch}, {args.beams} beams, {args.tokens} tokens, {torch.get_num_threads()} threads, {args.dtype}"
    )
    print(f"rebus {mine:.2f} s (images {see:.2f} s), transformers {other:.2f} s (images {look:.2f} s)")
    print(f"{other / mine:.2f} times as fast; the same tokens: {same}")


if __name__ == "__main__":
    main()
