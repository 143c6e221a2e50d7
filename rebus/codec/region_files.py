"""Files of region features as people have them: NPZ, NPY, HDF5, and the TSV of bottom-up attention.

Anderson et al., "Bottom-Up and Top-Down Attention", 2018, released the first of them. An image whose features are
missing, or of another image than their name says, is an error here; nothing is made up for it.
"""

import base64
import binascii
import difflib
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rebus.codec.regions import ImageRegions
from rebus.core.errors import BadRegions, MissingFile, RebusError
from rebus.core.extras import demand
from rebus.core.limits import check

_FEATURES = ("features", "x", "feat")  # names of the features in a file of one image
_BOXES = ("boxes", "bbox")
_TSV = {  # columns → their names: bottom-up attention's own, and LXMERT's
    6: "image_id image_w image_h num_boxes boxes features".split(),
    10: "image_id image_h image_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features".split(),
}
Table = Mapping[str, Any]  # arrays and numbers of one image, by name


class RegionFiles:
    """The regions of many images, by id, read when asked for: `files[id]`, or `files.of("…/000000391895.jpg")`.

    `path`: a folder of `.npz` or `.npy` files named after their images; an `.npz` or HDF5 file with `<id>_features` and
    perhaps `<id>_boxes` and `<id>_size`; or a TSV of bottom-up attention. Raises `MissingFile`, `MissingExtra`, or
    `BadRegions` naming the file and the image.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).expanduser()
        if self.path.is_dir():
            self._store: _Store = _Folder(self.path)
        elif not self.path.is_file():
            raise MissingFile(f"{self.path}: no such file or folder of region features")
        else:
            kinds = {".npz": _npz, ".tsv": _Tsv, ".h5": _HDF5, ".hdf5": _HDF5, ".npy": _OneFile}
            if self.path.suffix.lower() not in kinds:
                raise BadRegions(f"{self.path}: region features are .npz, .npy, .hdf5, .h5 or .tsv files, or a folder")
            self._store = kinds[self.path.suffix.lower()](self.path)
        if not self._store.ids:
            raise BadRegions(f"{self.path}: holds no features of any image")

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of all images, in the order of the file."""
        return tuple(self._store.ids)

    def __len__(self) -> int:
        return len(self._store.ids)

    def __contains__(self, image: object) -> bool:
        return image in self._store.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, image: str | int) -> ImageRegions:
        """The regions of an image by its id. Raises `BadRegions` naming ids that are near."""
        name = str(image)
        if name not in self._store.ids:
            near = difflib.get_close_matches(name, self._store.ids, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else f", such as {next(iter(self._store.ids))}"
            raise BadRegions(f"{self.path}: no regions of image {name} among {len(self):,}{hint}")
        return _regions(self._store.read(name), name, f"{self.path}: {name}")

    def of(self, image: str | os.PathLike[str], size: tuple[int, int] | None = None) -> ImageRegions:
        """The regions of an image file: by its name, its name without ending, or the number at the end of that, as COCO
        names images. `size` (width, height): of the image, which is compared with what the file says."""
        path = Path(image)
        number = re.search(r"(\d+)$", path.stem)
        names = [path.name, path.stem, *([str(int(number[1]))] if number else [])]
        name = next((name for name in names if name in self._store.ids), path.stem)
        found = self[name]
        return found if size is None else found.of_size(size, path.name)


def _regions(table: Table, name: str, key: str) -> ImageRegions:
    """One image out of what its file says of it."""
    said = table.get("image_id")
    if said is not None and str(said) != name and _number(str(said)) != _number(name):
        raise BadRegions(f"{key}: the file says that these are regions of image {said}: ids were swapped")
    features, boxes = (next((table[n] for n in names if n in table), None) for names in (_FEATURES, _BOXES))
    if features is None:
        raise BadRegions(f"{key}: holds {', '.join(table) or 'nothing'}; expects features (or x)")
    wide, high = table.get("image_w"), table.get("image_h")
    size = None if wide is None or high is None else (int(wide), int(high))
    used = table.get("num_bbox", table.get("num_boxes"))
    if used is not None and np.ndim(features) == 2:  # padded to a fixed number
        features, boxes = features[: int(used)], None if boxes is None else boxes[: int(used)]
    regions = ImageRegions(np.asarray(features), key=key)
    return regions if boxes is None else replace(regions, boxes=np.asarray(boxes), size=size)


def _number(name: str) -> str:
    found = re.search(r"(\d+)$", Path(name).stem)
    return str(int(found[1])) if found else name


class _Store:
    """A file or folder: `ids` of its images, and what it says of one."""

    ids: Mapping[str, Any]

    def read(self, name: str) -> dict[str, Any]:
        raise NotImplementedError


class _Folder(_Store):
    def __init__(self, path: Path):
        files = sorted(file for file in path.iterdir() if file.suffix in (".npz", ".npy"))
        self.ids = {file.stem: file for file in files}
        if len(self.ids) < len(files):
            twice = next(a for a, b in pairwise(files) if a.stem == b.stem)
            raise BadRegions(f"{path}: two files are named {twice.stem}")

    def read(self, name: str) -> dict[str, Any]:
        return _read_one(self.ids[name])


class _OneFile(_Store):
    def __init__(self, path: Path):
        self.path, self.ids = path, {path.stem: None}

    def read(self, name: str) -> dict[str, Any]:
        return _read_one(self.path)


class _Archive(_Store):
    """An NPZ file of many images."""

    def __init__(self, path: Path):
        self.path = path
        with _opened(path) as archive:
            self.ids = {n.removesuffix("_features"): None for n in archive.files if n.endswith("_features")}

    def read(self, name: str) -> dict[str, Any]:
        with _opened(self.path) as archive:
            found = {n: _array(self.path, archive, f"{name}_{n}") for n in ("features", "boxes", "size")}
        return _with_size({n: value for n, value in found.items() if value is not None})


def _npz(path: Path) -> _Store:
    """Of many images, or of one under the names of bottom-up attention."""
    many = _Archive(path)
    return many if many.ids else _OneFile(path)


class _HDF5(_Store):
    """Opened anew for every image, since an open file is of the process that opened it alone."""

    def __init__(self, path: Path):
        demand("regions", "reading HDF5 files")
        self.path = path
        with self._opened() as file:
            self.ids = {n.removesuffix("_features"): None for n in file if n.endswith("_features")}

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                yield file
        except OSError as error:
            raise BadRegions(f"{self.path}: not a readable HDF5 file ({_first_line(error)})") from None

    def read(self, name: str) -> dict[str, Any]:
        with self._opened() as file:
            found = {part: self._table(file, f"{name}_{part}") for part in ("features", "boxes", "size")}
        return _with_size({part: value for part, value in found.items() if value is not None})

    def _table(self, file: Any, name: str) -> Any:
        import h5py

        link = file.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):  # it may lead out of the file
            raise BadRegions(f"{self.path}: {name} is a link, not data")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.dtype.kind not in "fiu":
            raise BadRegions(f"{self.path}: {name} is not a table of numbers in this file")
        check("MAX_IMAGE_MEMORY", data.size * data.dtype.itemsize, f"{self.path}: {name}")
        return data[()]


class _Tsv(_Store):
    """Lines of base64: where each begins is found once, and one is decoded when asked for."""

    def __init__(self, path: Path):
        self.path, found = path, dict[str, tuple[int, int]]()
        with path.open("rb") as file:
            start = 0
            for number, line in enumerate(iter(file.readline, b""), 1):
                name = line.split(b"\t", 1)[0].decode("utf-8", "replace").strip()
                if name in found:
                    raise BadRegions(f"{path}: line {number}: image {name} is a duplicate")
                if name and name not in ("image_id", "img_id"):
                    found[name] = start, number
                start += len(line)
        self.ids = found

    def read(self, name: str) -> dict[str, Any]:
        start, number = self.ids[name]
        with self.path.open("rb") as file:
            file.seek(start)
            cells = file.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t")
        where = f"{self.path}: line {number}"
        if len(cells) not in _TSV:
            raise BadRegions(f"{where}: {len(cells)} columns; expects {' or '.join(map(str, _TSV))}")
        row = dict(zip(_TSV[len(cells)], cells, strict=True))
        try:
            count = int(row["num_boxes"])
            boxes = np.frombuffer(base64.b64decode(row["boxes"], validate=True), np.float32).reshape(count, 4)
            features = np.frombuffer(base64.b64decode(row["features"], validate=True), np.float32).reshape(count, -1)
            return {
                "features": features,
                "boxes": boxes,
                "image_w": int(row["image_w"]),
                "image_h": int(row["image_h"]),
            }
        except (ValueError, binascii.Error) as error:
            raise BadRegions(f"{where}: image {name}: {error}") from None


def _read_one(path: Path) -> dict[str, Any]:
    """A file of one image."""
    if path.suffix == ".npy":
        with _failing(path):
            check("MAX_IMAGE_MEMORY", path.stat().st_size, str(path))
            return {"features": np.load(path, allow_pickle=False)}
    names = (*_FEATURES, *_BOXES, "image_w", "image_h", "image_id", "num_bbox", "num_boxes", "size")
    with _opened(path) as archive:
        found = {name: _array(path, archive, name) for name in names if name in archive.files}
    return _with_size({name: value[()] if np.ndim(value) == 0 else value for name, value in found.items()})


def _with_size(found: dict[str, Any]) -> dict[str, Any]:
    if "size" in found:
        wide, high = np.asarray(found.pop("size")).ravel()[:2]
        found |= {"image_w": wide, "image_h": high}
    return found


def _array(path: Path, archive: Any, name: str) -> Any:
    if name not in archive.files:
        return None
    with _failing(path):
        check("MAX_IMAGE_MEMORY", archive.zip.getinfo(f"{name}.npy").file_size, f"{path}: {name}")
        return archive[name]


def _opened(path: Path) -> Any:
    with _failing(path):
        return np.load(path, allow_pickle=False)


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """What NumPy and zipfile raise over a damaged file, or one that holds objects, as `BadRegions`."""
    try:
        yield
    except RebusError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise BadRegions(f"{path}: not a readable file of features ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def save_regions(path: str | os.PathLike[str], images: Mapping[str, ImageRegions]) -> Path:
    """Write an NPZ file that `RegionFiles` reads: `<id>_features`, and `<id>_boxes` and `<id>_size` where known."""
    arrays: dict[str, Any] = {}
    for name, regions in images.items():
        arrays[f"{name}_features"] = regions.features
        if regions.boxes is not None:
            arrays[f"{name}_boxes"] = regions.boxes
        if regions.size is not None:
            arrays[f"{name}_size"] = np.array(regions.size)
    target = Path(path)
    np.savez(target, **arrays)
    return target if target.suffix == ".npz" else target.with_suffix(target.suffix + ".npz")
