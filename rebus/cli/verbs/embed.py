"""Write embeddings of images or texts to a file: unit vectors, one per row, with the name of each.

Names are in F.npy.jsonl, in the column `name` of F.parquet, or in the metadata of F.safetensors. The same command
resumes an interrupted run (F.partial). Unreadable images are skipped and listed.
"""

import argparse
from pathlib import Path

from rebus.cli.arguments import add_model, positive, read_lines
from rebus.cli.choose_model import choose, open_model
from rebus.cli.dataset_arguments import going_on, share
from rebus.cli.image_arguments import find_images
from rebus.cli.output import emit, note, say, shown
from rebus.cli.output_files import check_folder
from rebus.core.errors import UsageError

EXAMPLE = "rebus embed photos/ --out photos.npy"
_NAMED = 10  # failures that are said


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="images: files, folders, or patterns like '*.jpg'")
    parser.add_argument("--text", metavar="TEXT", action="append", help="embed this text instead; may repeat")
    parser.add_argument("--texts-file", metavar="FILE", help="embed the texts of a file instead, one per line")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="a .npy, .parquet or .safetensors")
    parser.add_argument(
        "--max-bad", metavar="FRACTION", type=share, default=0.5, help="fraction of items that may fail (%(default)s)"
    )
    parser.add_argument("--unit", metavar="N", type=positive, default=128, help="items saved at a time (%(default)s)")
    parser.add_argument("--engine", choices=("process", "ray"), default="process", help="ray: run on a Ray cluster")
    add_model(parser, batch_size=32)


def run(args: argparse.Namespace) -> int:
    from rebus.cli.file_embedder import FileEmbedder
    from rebus.data.embedding_files import EmbeddingFile, EmbeddingFileSettings, check_ending

    check_ending(args.out)
    check_folder(args.out.parent)
    texts = _texts(args)
    found = find_images(args.images) if texts is None else []
    items = [file.path for file in found if file.error is None] if texts is None else texts
    absent = {file.path: str(file.error) for file in found if file.error is not None}
    if args.model is None:
        args.model, why = choose("match")
        note(f"using {args.model} ({why})")
    kind = "images" if texts is None else "texts"
    embedder = FileEmbedder(
        args.model,
        "images" if texts is None else "texts",
        args.batch_size,
        args.device,
        args.dtype,
        args.quantize,
        args.compile,
        args.truncate,
    )
    if items and args.engine == "process":
        embedder.loaded = open_model(args, f"embed_{kind}")
    failures, rows = absent, 0
    if items:
        source = {"model": args.model, "kind": kind, "dtype": args.dtype, "quantize": args.quantize}
        gpus = int((args.device or "").startswith("cuda"))
        settings = EmbeddingFileSettings(unit=args.unit, most_failed=args.max_bad, engine=args.engine, gpus=gpus)
        work = EmbeddingFile(items, args.out, embedder, source, settings)
        written = going_on(work.units.folder, kind, work.total, lambda: work.done, work.run)
        if written is None:
            return 130
        failures, rows = absent | written.failures, written.rows
    if args.json:
        emit({"model": args.model, "out": str(args.out) if rows else None, "rows": rows, "failures": failures})
    elif rows:
        say(f"{shown(str(args.out))}: {rows:,} vectors of {kind}")
    for name, reason in list(failures.items())[:_NAMED]:
        note(reason if name in reason else f"{name}: {reason}")
    if len(failures) > _NAMED:
        note(f"and {len(failures) - _NAMED:,} more; --json lists all")
    return 1 if failures else 0


def _texts(args: argparse.Namespace) -> list[str] | None:
    """The texts that were given; None where images were. Raises `UsageError` unless it is one of the two."""
    typed = args.text or []
    lines = [line for line in read_lines(args.texts_file) if line] if args.texts_file else []
    wanted = args.text is not None or args.texts_file is not None
    if wanted == bool(args.images):
        raise UsageError("embed needs images (IMAGE…) or texts (--text TEXT, --texts-file FILE), not both")
    if wanted and not (typed or lines):
        raise UsageError(f"{args.texts_file}: it has no text")
    return [*typed, *lines] if wanted else None
