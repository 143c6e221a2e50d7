"""Score images against sentences; with --top, find the images that a sentence fits best."""

import argparse
from collections.abc import Sequence
from typing import Any

from rebus.cli.arguments import add_images, add_model, add_regions, positive, read_lines
from rebus.cli.choose_model import open_model
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import bold, say, shown
from rebus.core.errors import UsageError

EXAMPLE = 'rebus match photos/ --text "a dog on a beach" --top 5'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    add_regions(parser)
    parser.add_argument("--text", metavar="SENTENCE", action="append", help="a sentence; may repeat")
    parser.add_argument("--texts-file", metavar="FILE", help="sentences, one a line")
    parser.add_argument(
        "--top", metavar="N", type=positive, help="for each sentence only the N best images, best first"
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="show probabilities instead of cosines: each pair's own (SigLIP), or over the sentences (CLIP)",
    )
    add_model(parser, batch_size=8)


def run(args: argparse.Namespace) -> int:
    texts = [*(args.text or []), *(filter(None, read_lines(args.texts_file)) if args.texts_file else [])]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UsageError('match wants sentences: --text "a dog on a beach", or --texts-file FILE with one a line')
    files = find_images(args.images)
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, "match")
    from rebus.tasks.match import Matcher

    matcher = Matcher(model, texts)
    width = max(len(shown(p.path)) for p in files)
    column = "probabilities" if args.probabilities else "scores"

    def work(images: Sequence[Any]) -> list[dict[str, list[float]]]:
        rows = zip(*(part.tolist() for part in matcher.scores(images)), strict=True)
        return [{"scores": c, "logits": z, "probabilities": p} for c, z, p in rows]

    def show(path: str, row: dict[str, list[float]]) -> None:
        if args.top is None:
            said = [
                f"{score:8.3f}" + (f"  {shown(text)}" if len(texts) == 1 else "")
                for score, text in zip(row[column], texts)
            ]
            say(f"{shown(path):<{width}}  {' '.join(said)}")

    batch = work_through(
        files,
        work,
        show,
        lambda row: row,
        args,
        size=args.batch_size,
    )
    best = {text: _best(batch.rows, i, args.top, column) for i, text in enumerate(texts)} if args.top else {}
    if not args.json:
        for text, found in best.items():
            say(bold(shown(text)))
            for row in found:
                say(f"  {row['score']:8.3f}  {shown(row['image'])}")
    return batch.finish(args, model.card, texts=texts, **({"best": best} if best else {}))


def _best(rows: Sequence[dict[str, Any]], text: int, top: int, column: str) -> list[dict[str, Any]]:
    scored = [{"image": row["image"], "score": row[column][text]} for row in rows if column in row]
    return sorted(scored, key=lambda row: -row["score"])[:top]
