"""What a Parquet file says of the labels and boxes in it, in the notes that Hugging Face's `datasets` leaves."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.data.reading.box_form import MOST_ROWS, has_corners, objects_in
from rebus.data.reading.row_to_record import LABELS, any_case, boxes_of, label_column
from rebus.data.record import BadRecord

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


@dataclass(frozen=True)
class Annotations:
    """`names`: of classes, in the order of their numbers. `corners`: whether boxes of the column `objects` are left,
    top, right, bottom."""

    names: tuple[str, ...] = ()
    corners: bool = False

    @classmethod
    def of(cls, opened: "pq.ParquetFile", path: Path) -> "Annotations":
        """Reads `objects` of the first rows. Raises what pyarrow raises for damaged files."""
        names = {name.lower(): name for name in reversed(opened.schema_arrow.names)}
        corners = "objects" in names and has_corners(_first_rows(opened, names), str(path))
        return cls(_class_names(opened.schema_arrow), corners)

    def in_words(self, row: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The row with its label by name, and its column `objects` as `boxes`. Raises `BadRecord`."""
        values = dict(row)
        column = label_column(values)
        label = None if column is None else values[column]
        if column is not None and self.names and isinstance(label, int):
            if not 0 <= label < len(self.names):
                raise BadRecord(key, f"{column} {label}; the file names {len(self.names)} classes")
            values[column] = self.names[label]
        objects = objects_in(values.get("objects"))
        if objects is not None:
            values["boxes"] = boxes_of(objects, key, self.names, self.corners)
            del values["objects"]
        return values


def _first_rows(opened: "pq.ParquetFile", names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    wanted = [names[name] for name in ("objects", "width", "height") if name in names]
    for batch in opened.iter_batches(MOST_ROWS, columns=wanted):
        yield from map(any_case, batch.to_pylist())
        break


def _class_names(schema: "pa.Schema") -> tuple[str, ...]:
    """The names of the classes of images, else of objects, in the notes that Hugging Face leaves in a file."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        chosen: Any = next((features[name] for name in (*LABELS, "objects") if name in features), {})
    except (ValueError, KeyError, TypeError):
        return ()
    return _names_in(chosen)


def _names_in(feature: Any) -> tuple[str, ...]:
    """The names of the class label in a feature: they lie deeper where there is a list of objects."""
    if isinstance(feature, list):
        return next((found for item in feature if (found := _names_in(item))), ())
    if not isinstance(feature, Mapping):
        return ()
    names = feature.get("names")
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    return _names_in(list(feature.values()))
