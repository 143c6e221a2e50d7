"""Bring an index up to date with its folder. Nothing is lost by a kill, a full disk or a disk that is away.

Commits to the table are atomic, so that a killed run resumes. Searches read the last
snapshot until a new one is in its place. Another model, or other weights under the same name, are indexed into a table
beside the first, which is dropped when the new one is whole.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import MissingFile, RebusError
from rebus.core.folder_lock import locked
from rebus.index.captions import caption_images
from rebus.index.known import Difference, Known, differences
from rebus.index.manifest import FILE, NEXT, WRITING, Manifest, Place, identity_of, place_of, read_manifest
from rebus.index.outcome import hash_of
from rebus.index.report import Options, Progress, Report
from rebus.index.scan import Scan, scan_folder
from rebus.index.search import APPROXIMATE
from rebus.index.snapshot import Snapshot, remove_others, write_snapshot
from rebus.index.store import Store
from rebus.index.writer import Writer

if TYPE_CHECKING:
    from rebus.index.engine import Engine


def update_index(
    root: Path,
    options: Options,
    where: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Report:
    """Index a folder. Raises `UsageError` while another process does, `MissingFile` for a root that is away or empty,
    `RebusError` where more than half of the files are gone, each changing nothing; `CannotWrite` for a full disk."""
    began = time.perf_counter()
    root = root.expanduser()
    if not root.is_dir():
        raise MissingFile(
            f"{root}: {'not a folder' if root.exists() else 'no such folder'}. Is its disk mounted? Nothing was changed"
        )
    root = Path(os.path.realpath(root))
    place = place_of(root, where)
    with locked(place.folder):
        report = _Run(root, place, options, on_progress).update()
    report.seconds = time.perf_counter() - began
    return report


class _Run:
    def __init__(self, root: Path, place: Place, options: Options, on_progress: Callable[[Progress], None]):
        self.root, self.place, self.options, self.on_progress = root, place, options, on_progress
        self.report = Report(root=str(root), index=str(place.folder))
        self.begun = read_manifest(place.folder / NEXT)

    def update(self) -> Report:
        options, whole = self.options, self.place.manifest
        if whole is not None:
            whole = _with_options(whole.at(self.root), options)
            if options.verify:  # then the snapshot is made again, from the table
                write_bytes_atomically(self.place.folder / WRITING, whole.table.encode())
        scan = self._scan(whole)
        current = self._target(whole)
        known = self._known(current)
        difference = differences(known, scan, _exclude(whole, options), options.verify)
        self._find_moved(known, scan, difference)
        self._guard(known, difference)
        engine: "Engine | None" = None
        if difference.new or difference.changed or current is None:
            manifest, engine = self._engine(current)
            if current is not None and manifest.table != current.table:  # other weights under that name
                known = Known()
                difference = differences(known, scan, _exclude(whole, options), options.verify)
            current = manifest
        assert current is not None
        writer = Writer(self.place, current, known, self.report)
        writer.note(difference, prune=options.prune)
        if engine is not None:
            self._embed(engine, writer, known, difference)
        if options.captions is not None:
            caption_images(self.root, writer, options.captions, options.device, self.on_progress)
        self._finish(writer)
        return self.report

    def _scan(self, whole: Manifest | None) -> Scan:
        exclude, follow = _exclude(whole, self.options), self.options.follow
        try:
            scan = scan_folder(self.root, exclude, bool(whole and whole.follow) if follow is None else follow)
        except OSError as error:
            raise MissingFile(f"{self.root}: {error.strerror}. Nothing was changed") from None
        if scan.empty:
            raise MissingFile(f"{self.root}: an empty folder. Is its disk mounted? Nothing was changed")
        if whole is None and not scan.files:
            raise MissingFile(f"{self.root}: no images in this folder")
        self.report.unread |= {os.fsdecode(path): reason for path, reason in scan.unread.items()}
        return scan

    def _target(self, whole: Manifest | None) -> Manifest | None:
        """The index that is to be filled: the one that a run began and did not end, the whole one, or one of another
        model beside it; None where there is none yet."""
        options, begun = self.options, self.begun
        wanted = options.model if isinstance(options.model, str) and options.chosen else None
        candidates = [one for one in (begun, whole) if one is not None]
        for one in candidates:
            if wanted in (None, one.model) and options.fast in (None, one.fast):
                return _with_options(one.at(self.root), options)
        if not candidates:
            return None
        return self._manifest(wanted or candidates[-1].model, candidates[-1])

    def _known(self, current: Manifest | None) -> Known:
        """The rows of a table: from its snapshot where that is all, which is faster."""
        if current is None:
            return Known()
        if current.snapshot is not None and not (self.place.folder / WRITING).exists():
            return Known(Snapshot(self.place.folder / current.snapshot).rows)
        store = Store(self.place.uri, current.table)
        return Known(store.metadata()) if store.exists else Known()

    def _find_moved(self, known: Known, scan: Scan, difference: Difference) -> None:
        """New files with the size and the content of a row whose file is gone are that file."""
        sizes: dict[int, list[int]] = {}
        for row in difference.gone:
            sizes.setdefault(int(known.sizes[row]), []).append(row)
        for path in difference.new if sizes else []:
            rows = sizes.get(scan.files[path].size)
            if not rows:
                continue
            content = self._hash(path)
            same = next((row for row in rows if known.hash(row) == content), None)
            if same is not None:
                rows.remove(same)
                difference.moved[same] = path, scan.files[path]
        taken = {path for path, _ in difference.moved.values()}
        difference.new = [path for path in difference.new if path not in taken]
        difference.gone = [row for row in difference.gone if row not in difference.moved]
        difference.newly_gone = [row for row in difference.newly_gone if row not in difference.moved]

    def _hash(self, path: bytes) -> bytes | None:
        try:
            with open(os.path.join(os.fsencode(self.root), path), "rb") as file:
                return hash_of(file.read())
        except OSError:
            return None

    def _guard(self, known: Known, difference: Difference) -> None:
        there = len(known) - int(known.missing.sum())
        gone = len(difference.newly_gone)
        if 2 * gone > there and not self.options.prune:
            raise RebusError(
                f"{self.root}: {gone:,} of {there:,} indexed files are missing. Is a disk unmounted? Nothing "
                f"was changed. If they were deleted: rebus index {self.root} --prune"
            )

    def _manifest(self, model: str, like: Manifest | None) -> Manifest:
        """Of a new table for a model, with the settings of another one. Raises what opening the model raises."""
        from rebus.index.text_encoder import fingerprints
        from rebus.open_checkpoint import open_checkpoint

        text, image = fingerprints(open_checkpoint(model))
        fast = bool(like and like.fast) if self.options.fast is None else self.options.fast
        found = Manifest(
            root=str(self.root),
            model=model,
            text_print=text,
            image_print=image,
            width=0,
            dtype=self.options.dtype or "float32",
            table=f"images-{image[:8]}{'-fast' if fast else ''}",
            uri=self.place.uri,
            identity=identity_of(self.root),
            exclude=like.exclude if like is not None else (),
            follow=like is not None and like.follow,
            fast=fast,
            labels=like.labels if like is not None else (),
        )
        return _with_options(found, self.options)

    def _engine(self, current: Manifest | None) -> "tuple[Manifest, Engine]":
        """What embeds, and the manifest of the table that it fills, which is a new one where the weights are others
        than those that `current` was filled by."""
        options = self.options
        wanted = options.model
        model = current.model if current is not None else wanted if isinstance(wanted, str) else wanted()
        found = self._manifest(model, current)
        if current is not None and found.image_print == current.image_print:
            found = current
        elif current is not None:
            self.report.rebuilt = f"{model} has other weights, anchors or preprocessing than the index"
        from rebus.index.engine import LocalEngine, RayEngine  # imports torch, which a run without news does without

        if options.engine == "ray":
            return found, RayEngine(model, options.dtype, options.batch, found.fast)
        from rebus.api import load

        loaded = load(model, device=options.device, dtype=options.dtype)
        return found, LocalEngine(loaded, options.batch, found.fast, options.threads)

    def _embed(self, engine: "Engine", writer: Writer, known: Known, difference: Difference) -> None:
        paths = [*difference.new, *sorted(difference.changed)]

        def row_of(path: bytes, content: bytes) -> int | None:
            own = difference.changed.get(path)
            touched = own is not None and not known.bad[own] and known.hash(own) == content
            return own if touched else known.with_content(content)

        done, began = 0, time.perf_counter()
        try:
            for batch in engine.embed(os.fsencode(self.root), paths, row_of):
                for one in batch:
                    writer.take(one, difference.changed.get(one.read.path))
                done += len(batch)
                self.report.bound, self.report.embedding = engine.bound, time.perf_counter() - began
                self.on_progress(Progress(done, len(paths), engine.bound))
        except KeyboardInterrupt:
            writer.commit()
            raise
        writer.commit()

    def _finish(self, writer: Writer) -> None:
        report, folder = self.report, self.place.folder
        current = writer.manifest
        if writer.wrote or current.snapshot is None:
            if not writer.store.exists:
                raise RebusError(
                    f"{self.root}: not one of {len(report.unread) + len(report.damaged):,} images could be read: "
                    f"{next(iter([*report.damaged.values(), *report.unread.values()]), '')}"
                )
            writer.store.optimize()
            if writer.store.count() > APPROXIMATE and not writer.store.partitioned:
                writer.store.partition()
            current = replace(current, snapshot=write_snapshot(writer.store, folder, current.width))
        if current != self.place.manifest:
            current.write(folder / FILE)
        (folder / NEXT).unlink(missing_ok=True)
        (folder / WRITING).unlink(missing_ok=True)
        if writer.wrote and self.place.owns_tables:
            writer.store.drop_others()
        remove_others(folder, current.snapshot)
        assert current.snapshot is not None
        snapshot = Snapshot(folder / current.snapshot)
        report.model, report.rows = current.model, len(snapshot)
        report.missing = int(snapshot.missing.sum())


def _exclude(whole: Manifest | None, options: Options) -> tuple[str, ...]:
    return options.exclude if options.exclude is not None else (whole.exclude if whole is not None else ())


def _with_options(manifest: Manifest, options: Options) -> Manifest:
    given = {name: getattr(options, name) for name in ("exclude", "follow", "labels")}
    return replace(manifest, **{name: value for name, value in given.items() if value is not None})
