"""Similarity of images and texts; with --top, the most similar images for each text."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rebus.cli.arguments import add_images, add_model, add_regions, positive, read_lines
from rebus.cli.choose_model import open_model
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import bold, say, shown
from rebus.cli.output_files import ResultFiles, add_results, check_folder
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import UsageError

EXAMPLE = 'rebus match photos/ --text "a dog on a beach" --top 5'
_ON_A_PAGE = 24  # images of each sentence where neither --top nor --min-score says otherwise


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    add_regions(parser)
    parser.add_argument("--text", metavar="TEXT", action="append", help="a text; may repeat")
    parser.add_argument("--texts-file", metavar="FILE", help="texts, one per line")
    parser.add_argument(
        "--top", metavar="N", type=positive, help="for each text only the N most similar images, best first"
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="show probabilities instead of cosine similarities: per pair (SigLIP), or over the texts (CLIP)",
    )
    parser.add_argument(
        "--min-score", metavar="S", type=float, help="for each text only images with at least this score"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page with the best images for each text")
    add_results(parser, sidecars=False)
    add_model(parser, batch_size=8)


def run(args: argparse.Namespace) -> int:
    texts = [*(args.text or []), *(filter(None, read_lines(args.texts_file)) if args.texts_file else [])]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise UsageError('match needs texts: --text "a dog on a beach", or --texts-file FILE with one per line')
    if args.html is not None:
        if args.html.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--html {args.html}: a page ends in .html; got {args.html.suffix or 'nothing'}")
        check_folder(args.html.parent)
    files = find_images(args.images)
    column = "probabilities" if args.probabilities else "scores"
    results = ResultFiles(args, [file.path for file in files], lambda row: [dict(zip(texts, row[column], strict=True))])
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, "match")
    from rebus.tasks.match import Matcher

    matcher = Matcher(model, texts)
    width = max(len(shown(p.path)) for p in files)

    def work(images: Sequence[Any]) -> list[dict[str, list[float]]]:
        rows = zip(*(part.tolist() for part in matcher.scores(images)), strict=True)
        return [{"scores": c, "logits": z, "probabilities": p} for c, z, p in rows]

    def show(path: str, row: dict[str, list[float]]) -> None:
        if args.top is None and args.min_score is None:
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
        files=results,
    )
    listed = args.top is not None or args.min_score is not None
    best = {text: _best(batch.rows, i, args, column) for i, text in enumerate(texts)} if listed or args.html else {}
    if args.html is not None:
        from rebus.cli.hit_page import hit_page

        write_bytes_atomically(args.html, hit_page(args.html, best, column).encode())
    if not args.json and listed:
        for text, found in best.items():
            say(bold(shown(text)))
            for row in found:
                say(f"  {row['score']:8.3f}  {shown(row['image'])}")
    return batch.finish(args, model.card, texts=texts, **({"best": best} if best else {}))


def _best(rows: Sequence[dict[str, Any]], text: int, args: argparse.Namespace, column: str) -> list[dict[str, Any]]:
    scored = [{"image": row["image"], "score": row[column][text]} for row in rows if column in row]
    enough = [row for row in scored if args.min_score is None or row["score"] >= args.min_score]
    most = args.top if args.top is not None or args.min_score is not None else _ON_A_PAGE
    return sorted(enough, key=lambda row: -row["score"])[:most]
