"""Embed the image regions of a data set with a dual encoder, as distillation targets of a detector (ViLD).

Regions are proposed by a detector, or are the data set's own boxes; each is cropped at 1x and 1.5x. The labels of the
data set are embedded as well. Give the folder to a recipe as `data.taught=DIR`. The same command on the same --out
resumes an interrupted run.
"""

import argparse
from pathlib import Path

from rebus.cli.arguments import add_placement, positive
from rebus.cli.dataset_arguments import add_source, going_on, name_damaged, open_source, share
from rebus.cli.output import emit, note, say

EXAMPLE = "rebus data regions lvis/ --split train --teacher clip/b32 --proposals runs/base/final --out taught/"
_TRUTH = "truth"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--scenes", metavar="N", type=positive, help="PATH is scenes: number of synthetic scenes")
    parser.add_argument("--teacher", metavar="NAME", required=True, help="a dual encoder: catalogue name or directory")
    parser.add_argument(
        "--proposals", metavar="NAME", default=_TRUTH, help="a detector, or truth: ground truth boxes (%(default)s)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="a new folder; an interrupted run resumes in it"
    )
    parser.add_argument("--most", metavar="N", type=positive, default=300, help="max regions per image (%(default)s)")
    parser.add_argument("--templates", metavar="NAME", help="prompt templates of the labels (default: lvis)")
    parser.add_argument("--unit", metavar="N", type=positive, default=500, help="images per output file (%(default)s)")
    parser.add_argument(
        "--max-bad",
        metavar="FRACTION",
        type=share,
        default=0.1,
        help="stop at this fraction of failed records (%(default)s)",
    )
    parser.add_argument("--over", choices=("process", "ray"), default="process", help="ray: run on a Ray cluster")
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    from rebus.cli.region_teacher import LoadedTeacher
    from rebus.data.damaged_files import damaged_files
    from rebus.data.region_embedding import EmbeddingSettings, RegionEmbedding
    from rebus.data.scene_records import SceneReader

    layout, reader = ("scenes", SceneReader(args.scenes)) if args.scenes else open_source(args)
    proposals = None if args.proposals == _TRUTH else args.proposals
    templates = args.templates or "lvis"
    teacher = LoadedTeacher(args.teacher, proposals, templates, device=args.device, dtype=args.dtype)
    settings = EmbeddingSettings(
        truth=proposals is None, most=args.most, unit=args.unit, most_damaged=args.max_bad, over=args.over
    )
    source = {
        "source": str(args.path if args.scenes else args.path.resolve()),
        "layout": layout,
        "split": args.split,
        "teacher": args.teacher,
        "proposals": args.proposals,
        "templates": templates,
    }
    work = RegionEmbedding(reader, args.out, source, teacher, settings)
    found = going_on(args.out, "images", work.total, lambda: work.done, work.run)
    if found is None:
        return 130
    faults = damaged_files(reader)
    if args.json:
        emit({"out": str(args.out), "images": work.total, **found, "units": work.count, "damaged_files": faults})
    else:
        say(f"{args.out}: the regions of {found['embedded']:,} images, and {len(reader.labels):,} labels")
    if found["damaged"]:
        note(f"{found['damaged']:,} damaged records were skipped: {work.units.last} lists them")
    name_damaged(faults)
    return 0
