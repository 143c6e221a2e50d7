"""The Cauldron: Parquet files of images with conversations, a list of {"user", "assistant"} each.

Laurençon et al., "What matters when building vision-language models?", 2024;
https://huggingface.co/datasets/HuggingFaceM4/the_cauldron. Each turn is a question of its own.
"""

from pathlib import Path
from typing import Any

from rebus.core.errors import RebusError
from rebus.data.reading.conversations import questions_of
from rebus.data.reading.fetched_images import FetchedImages
from rebus.data.reading.parquet_groups import ParquetGroups, first_schema
from rebus.data.record import BadRecord, LeftOut, Record

NAME = "cauldron"
WHAT = "The Cauldron: Parquet files with the columns images and texts, which are conversations"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    (
        "Parquet with lists `images` and `texts` of `user`, `assistant` (The Cauldron)",
        "torchtune's reader; samples written by hand",
    ),
)


def recognises(path: Path) -> bool:
    schema = first_schema(path)
    return schema is not None and {"images", "texts"} <= set(schema.names) and _is_talk(schema.field("texts").type)


def _is_talk(kind: Any) -> bool:
    from pyarrow import types

    if not (types.is_list(kind) or types.is_large_list(kind)) or not types.is_struct(kind.value_type):
        return False
    return {"user", "assistant"} <= {field.name for field in kind.value_type}


def open(path: Path, split: str | None = None) -> "Cauldron":
    return Cauldron(path, split)


class Cauldron:
    """One record an image with its questions; rows of several images are left out, for a question is about one.

    `facts["sources"]`: the data sets that the turns are from. Raises what `ParquetGroups` does.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        self._groups = ParquetGroups(path, split, ("images", "texts"))
        self.sizes = self._groups.sizes
        self._fetched = FetchedImages(path if path.is_dir() else path.parent)

    def read(self, block: int, row: int) -> Record:
        key, item = self._groups.key(block, row), self._groups.row(block, row)
        images, turns = item["images"], item["texts"]
        if not isinstance(images, list) or not isinstance(turns, list):
            raise BadRecord(key, "expected a list of images and one of texts")
        if len(images) != 1:
            raise LeftOut(key, f"it has {len(images)} images; a question is about one")
        try:
            image = self._fetched.find(images[0])
        except RebusError as error:
            raise BadRecord(key, str(error)) from None
        sources = list(dict.fromkeys(turn["source"] for turn in turns if turn.get("source")))
        return Record(key=key, image=image, questions=tuple(questions_of(turns, key)), facts={"sources": sources})
