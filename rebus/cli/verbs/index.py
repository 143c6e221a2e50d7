"""Index the images of a folder for search, and find duplicates, clusters and labels.

Updates are incremental: only new and changed files are read, and moved files are recognised by their content. Missing
files stay in the index (the disk may be unmounted) until --prune drops them.
"""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rebus.cli.arguments import positive, read_lines
from rebus.cli.choose_model import choose, domain_warning
from rebus.cli.output import Bar, bar, bold, emit, note, say, shown, table
from rebus.core.errors import RebusError, UsageError
from rebus.index.report import Options, Progress, Report

EXAMPLE = "rebus index ~/Pictures --exclude '*/thumbnails/*'"
_SHOWN = 5  # files of a group
_WATCHED = 5.0  # seconds between two looks at a folder


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder of images")
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="a dual encoder (default: that of the index, otherwise the best on this machine)",
    )
    parser.add_argument("--index", metavar="PATH", help="path of the index: a folder, or an object store (s3://…)")
    parser.add_argument("--exclude", metavar="GLOB", action="append", help="names or paths to exclude; may repeat")
    parser.add_argument("--follow", action="store_true", default=None, help="follow symbolic links")
    parser.add_argument("--fast", action="store_true", default=None, help="decode JPEGs at a fraction of their size")
    parser.add_argument("--verify", action="store_true", help="read every file again, and verify the index")
    parser.add_argument("--prune", action="store_true", help="drop missing files")
    parser.add_argument(
        "--captions", metavar="NAME", nargs="?", const="", help="also generate a caption for each image"
    )
    parser.add_argument("--labels", metavar="FILE", help="labels, one per line, for searches with --label")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--batch-size", metavar="N", type=positive, help="images per batch")
    parser.add_argument("--threads", metavar="N", type=positive, help="threads that read and decode")
    parser.add_argument("--watch", action="store_true", help="watch for changes until Ctrl-C")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, mps, … (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="dtype of the weights")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--status", action="store_true", help="show the contents of the index without scanning the folder"
    )
    asked.add_argument("--duplicates", choices=("exact", "same", "similar"), help="show duplicate images")
    asked.add_argument("--clusters", metavar="N", type=positive, help="group similar images")
    asked.add_argument("--tags", metavar="FILE", help="the best label of each image; labels from a file, one per line")
    parser.add_argument("--least", metavar="COSINE", type=float, help="duplicates: min similarity")


def run(args: argparse.Namespace) -> int:
    if args.least is not None and args.duplicates is None:
        raise UsageError("--least goes with --duplicates same or similar")
    root = Path(args.folder).expanduser()
    for asked, look in (("status", _status), ("duplicates", _duplicates), ("clusters", _clusters), ("tags", _tags)):
        if getattr(args, asked):
            return look(root, args)
    before = _look(root, args) if args.watch else None
    while True:
        report = _update(root, args)
        if args.json:
            emit(asdict(report))
        else:
            _say(report)
        if not args.watch:
            return 0
        before = _changed(root, args, before)


def _update(root: Path, args: argparse.Namespace) -> Report:
    from rebus.index.update import update_index

    with _Bars() as bars:
        return update_index(root, _options(args), args.index, bars)


def _options(args: argparse.Namespace) -> Options:
    def best() -> str:
        name, why = choose("embed_images")
        note(f"using {name} ({why})")
        return name

    if args.model is not None:
        _warn(args.model)
    return Options(
        model=args.model or best,
        chosen=args.model is not None,
        exclude=None if args.exclude is None else tuple(filter(None, args.exclude)),
        follow=args.follow,
        fast=args.fast,
        labels=None if args.labels is None else _labels(args.labels),
        verify=args.verify,
        prune=args.prune,
        captions=None if args.captions is None else (args.captions or choose("caption")[0]),
        engine=args.engine,
        batch=args.batch_size,
        threads=args.threads,
        device=args.device,
        dtype=args.dtype,
    )


def _warn(model: str) -> None:
    from rebus import catalog

    card = catalog.find(model)
    warning = None if card is None else domain_warning(card)
    if warning is not None:
        note(f"warning: {warning}")


def _labels(file: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(filter(None, read_lines(file))))
    if not found:
        raise UsageError(f"{file}: it has no labels")
    return found


class _Bars:
    """A progress bar for each kind of work, begun with the first of it. Its note says what bounds the speed."""

    def __init__(self) -> None:
        self._stack, self._bars = ExitStack(), dict[str, tuple[Bar, int]]()

    def __enter__(self) -> Callable[[Progress], None]:
        self._stack.__enter__()
        return self._show

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _show(self, progress: Progress) -> None:
        if progress.what not in self._bars:
            self._bars[progress.what] = self._stack.enter_context(bar(progress.what, progress.total)), 0
        shown_bar, done = self._bars[progress.what]
        for _ in range(progress.done - done):
            shown_bar.advance(note=f"bound by {progress.bound}")
        self._bars[progress.what] = shown_bar, progress.done


def _say(report: Report) -> None:
    if report.rebuilt:
        note(f"rebuilt: {report.rebuilt}")
    for title, faults in (("damaged", report.damaged), ("could not be read", report.unread)):
        for path, reason in list(faults.items())[:_SHOWN]:
            note(reason if path in reason else f"{path}: {reason}")
        if len(faults) > _SHOWN:
            note(f"{len(faults):,} files {title}, of which {_SHOWN} are listed; --json lists all")
    counts = {
        "new": report.new,
        "changed": report.changed,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "missing": report.missing,
        "pruned": report.pruned,
        "left out": report.excluded,
        "damaged": len(report.damaged),
        "not read": len(report.unread),
        "captions": report.captioned,
    }
    said = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)
    speed = ""
    if report.embedded:
        speed = f" ({report.embedded / max(report.embedding, 1e-3):.1f} images/s, bound by {report.bound})"
    say(f"{report.rows:,} images of {shown(report.root)} can be searched: {said} in {report.seconds:.1f} s{speed}")


def _changed(root: Path, args: argparse.Namespace, before: Any) -> Any:
    """What the folder holds once that is another than `before`, and stays so from one look to the next: a file that is
    being copied is left alone."""
    last = before
    while True:
        time.sleep(_WATCHED)
        now = _look(root, args)
        if now is not None and now != before and now == last:
            return now
        last = now


def _look(root: Path, args: argparse.Namespace) -> Any:
    """The files of the folder; None while it is away."""
    from rebus.index.manifest import place_of
    from rebus.index.scan import scan_folder

    manifest = place_of(root, args.index).manifest
    exclude = () if manifest is None else manifest.exclude
    try:
        found = scan_folder(root, args.exclude or exclude, bool(args.follow or (manifest and manifest.follow)))
    except OSError:
        return None
    return None if found.empty else found.files


def _status(root: Path, args: argparse.Namespace) -> int:
    from rebus.index.search import open_index

    index = open_index(root, args.index)
    snapshot, manifest = index.snapshot, index.manifest
    errors = {
        os.fsdecode(path): error
        for path, error in zip(snapshot.paths, snapshot.rows["error"].to_pylist(), strict=True)
        if error is not None
    }
    taken = snapshot.column("taken")[~snapshot.missing]
    found = {
        "root": manifest.root,
        "root_there": os.path.isdir(manifest.root),
        "index": str(index.place.folder),
        "model": manifest.model,
        "images": len(index),
        "missing": int(snapshot.missing.sum()),
        "damaged": errors,
        "bytes": sum(file.stat().st_size for file in index.place.folder.rglob("*") if file.is_file()),
        "labels": list(manifest.labels),
        "oldest": int(taken.min()) if len(taken) else None,
        "newest": int(taken.max()) if len(taken) else None,
        "faults": snapshot.verify() if args.verify else None,
    }
    if args.json:
        emit(found)
    else:
        rows = [[name.replace("_", " "), _cell(value)] for name, value in found.items() if value is not None]
        for line in table(["", ""], rows):
            say(line)
        for path, error in errors.items():
            note(error if path in error else f"{path}: {error}")
    return 1 if found["faults"] else 0


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{len(value):,}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:,}" if isinstance(value, int) else shown(str(value))


def _duplicates(root: Path, args: argparse.Namespace) -> int:
    from rebus.index.duplicates import duplicates
    from rebus.index.search import open_index

    index = open_index(root, args.index)
    with _Bars() as bars:
        groups = duplicates(
            index.snapshot,
            args.duplicates,
            args.least,
            lambda done, total: bars(Progress(done, total, "the product", "compared")),
        )
    said = [[index.path(row) for row in group] for group in groups]
    if args.json:
        emit({"root": index.manifest.root, "kind": args.duplicates, "groups": said})
    else:
        for group in said:
            for path in group:
                say(shown(path))
            say()
        note(f"{len(said):,} groups, {sum(map(len, said)) - len(said):,} files beside the first of each")
    return 0


def _clusters(root: Path, args: argparse.Namespace) -> int:
    from rebus.index.clusters import clusters
    from rebus.index.search import open_index

    index = open_index(root, args.index)
    found = [[index.path(int(row)) for row in one.rows] for one in clusters(index.snapshot, args.clusters)]
    if args.json:
        emit({"root": index.manifest.root, "clusters": found})
    else:
        for number, group in enumerate(found, 1):
            say(bold(f"{number}: {len(group):,} images"))
            for path in group[:_SHOWN]:
                say(f"  {shown(path)}")
    return 0


def _tags(root: Path, args: argparse.Namespace) -> int:
    from rebus.index.search import open_index

    index, labels = open_index(root, args.index), _labels(args.tags)
    there = [row for row in range(len(index)) if not index.snapshot.missing[row]]
    probabilities = index.labels(labels)
    if len(probabilities) == 0:
        raise RebusError(f"{root}: its index has no images")
    best = probabilities.argmax(axis=1)
    rows = [
        {"image": index.path(row), "label": labels[best[row]], "probability": float(probabilities[row, best[row]])}
        for row in there
    ]
    if args.json:
        emit({"root": index.manifest.root, "model": index.manifest.model, "labels": list(labels), "images": rows})
    else:
        width = max(len(shown(label)) for label in labels)
        for row in rows:
            say(f"{row['probability']:6.3f}  {shown(str(row['label'])):<{width}}  {shown(str(row['image']))}")
    return 0
