"""Filter image-text pairs: thresholds on COYO's columns, ALIGN's rules (Jia et al. 2021), near duplicates of evaluation
images.

The result is written as shards; Parquet files of URLs are written as Parquet again, ready for `rebus data download`.
The same command on the same --out resumes an interrupted run.
"""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.arguments import positive
from rebus.cli.dataset_arguments import add_source, add_writing, carry_out, converter, name_damaged, open_source
from rebus.cli.output import bar, emit, note, say, table
from rebus.core.errors import UsageError

EXAMPLE = "rebus data filter coyo/ --out kept/ --min-clip-b32 0.28 --max-watermark 0.5 --min-width 200"

# field of Filters → type, what it asks
OPTIONS: dict[str, tuple[Any, str]] = {
    "min_width": (positive, "pixels, at least"),
    "min_height": (positive, "pixels, at least"),
    "shorter_side_over": (positive, "shorter side, more than this many pixels"),
    "aspect_under": (float, "aspect ratio (longer / shorter side), less than this"),
    "min_clip_b32": (float, "image-text similarity, column clip_similarity_vitb32"),
    "min_clip_l14": (float, "the same, column clip_similarity_vitl14"),
    "min_aesthetic": (float, "column aesthetic_score_laion_v2"),
    "max_nsfw_opennsfw2": (float, "column nsfw_score_opennsfw2"),
    "max_nsfw_gantman": (float, "column nsfw_score_gantman"),
    "max_watermark": (float, "column watermark_score"),
    "min_faces": (int, "column num_faces"),
    "max_faces": (int, "column num_faces"),
    "min_words": (positive, "words of a text, at least"),
    "max_words": (positive, "words of a text, at most"),
    "texts_per_image": (positive, "max different texts per image"),
    "images_per_text": (positive, "max different images per text"),
    "min_gram_count": (positive, "drop texts with a unigram or bigram less frequent than this"),
    "most_grams": (positive, "drop texts with a unigram or bigram outside the N most frequent"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_writing(parser)
    group = parser.add_argument_group("filters")
    group.add_argument("--align", action="store_true", help="ALIGN's rules; the options below override them")
    for name, (kind, what) in OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar="N", type=kind, help=what)
    group.add_argument(
        "--no-copies-of",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="an evaluation data set whose near duplicates are dropped; may repeat",
    )


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from rebus.data.converting import without_images
    from rebus.data.filters import ALIGN, Filters, sift
    from rebus.data.layouts import open_layout
    from rebus.data.near_duplicates import looks_of

    asked = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    if not asked and not args.align and not args.no_copies_of:
        raise UsageError("no filter given: give --align or one of the filters; rebus data filter --help lists them")
    filters = replace(ALIGN if args.align else Filters(), **asked)
    layout, reader = open_source(args)
    to = "parquet" if without_images(reader) else "webdataset"
    if to == "parquet" and args.resize:
        raise UsageError("--resize: these files have no images; give it to rebus data download")
    if to == "parquet" and args.no_copies_of:
        raise UsageError("--no-copies-of: these files have no images; filter the output of rebus data download")
    readers = [open_layout(path) for path in args.no_copies_of]
    from rebus.data.damaged_files import check_files

    faults = check_files(reader, args.max_bad, "give --max-bad")
    total = int(sum(reader.sizes))
    passes = 2 if filters.needs_counting else 1
    tested = None
    try:
        if readers:
            with bar("test images", sum(sum(one.sizes) for one in readers)) as progress:
                tested = looks_of(readers, progress.advance)
        with bar("looking", passes * total) as progress:
            sifted = sift(reader, filters, tested=tested, progress=lambda seen, of: progress.advance())
    except KeyboardInterrupt:
        note("interrupted while scanning; nothing was written")
        return 130
    chosen = {name: value for name, value in asdict(filters).items() if value is not None}
    if readers:
        chosen["no_copies_of"] = [str(path.resolve()) for path in args.no_copies_of]
    work = converter(args, sifted, layout, to, work="filter", filters=chosen)
    counts = carry_out(work)
    if counts is None:
        return 130
    refused = dict(sorted(sifted.refused.items(), key=lambda item: -item[1]))
    skipped = counts.skipped + sifted.damaged
    if args.json:
        document = {"out": str(args.out), "to": to, "records": total, "written": counts.written, "skipped": skipped}
        emit({**document, "damaged_files": faults, "refused": refused})
    else:
        rows = [(why, f"{number:,}") for why, number in refused.items()]
        for line in table(("refused because", "texts"), rows, right=(1,)) if rows else ():
            say(line)
        say(f"{args.out}: {counts.written:,} of {total:,} records kept, in {work.count:,} {to} files")
    if skipped:
        note(f"{skipped:,} damaged records were skipped")
    if tested is not None and tested.damaged:
        note(f"{tested.damaged:,} records of --no-copies-of have no readable image and were not compared")
    name_damaged(faults)
    if not counts.written:
        note("no record passes these filters")
    return 0 if counts.written else 1
