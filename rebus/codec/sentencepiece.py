"""A sentencepiece `.model` as the layout of a `tokenizer.json`.

The file is a small protobuf message; the few fields that matter are read here, so no further package is needed.
"""

import base64
import re
import struct
from collections.abc import Iterator
from typing import Any

from rebus.codec.tokenizer_formats import Definition, added_token, definition
from rebus.codec.tokenizer_limits import check_character_map, check_pieces
from rebus.core.errors import BadCheckpoint

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # kinds of piece


def read_sentencepiece(data: bytes) -> Definition:
    """Unigram and BPE models. Raises `BadCheckpoint` for damaged files and other kinds of model."""
    try:
        return _convert(*_read(data))
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"damaged sentencepiece file: {error}") from None


def from_pieces(pieces: list[tuple[str, float, int]], *, prefix: bool) -> Definition:
    """A BPE model with bytes for what it does not know, as Llama's, out of its pieces, scores and kinds of piece.

    `prefix`: whether a text is given a space in front.
    """
    return _convert(pieces, {3: 2, 35: 1}, {3: int(prefix), 4: 0})


def _convert(pieces: list[tuple[str, float, int]], trainer: dict[int, Any], normalizer: dict[int, Any]) -> Definition:
    if not pieces:
        raise BadCheckpoint("damaged sentencepiece file: it holds no pieces")
    check_pieces(piece for piece, _, _ in pieces)
    kind = trainer.get(3, 1)
    if kind not in (1, 2) or trainer.get(24, 0):
        raise BadCheckpoint("only Unigram and BPE sentencepiece models with white space in front can be read")
    added = [added_token(piece, i) for i, (piece, _, kind) in enumerate(pieces) if kind in (CONTROL, UNKNOWN)]
    given = sorted((piece for piece, _, kind in pieces if kind == USER_DEFINED), key=len, reverse=True)
    model = _unigram(pieces) if kind == 1 else _bpe(pieces)
    model["byte_fallback"] = bool(trainer.get(35, 0))
    prefix, squeeze = bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1))
    return definition(
        model,
        normalizer=_normalizer(normalizer, prefix, squeeze),
        # User-defined pieces are cut out first, the longest where several fit.
        pre_tokenizer=_isolate(given) if given else None,
        decoder=_decoder(prefix, squeeze),
        added=added,
    )


def _isolate(pieces: list[str]) -> dict[str, Any]:
    pattern = "|".join(re.sub(r"([^\w\s])", r"\\\1", piece) for piece in pieces)
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _unigram(pieces: list[tuple[str, float, int]]) -> dict[str, Any]:
    vocab: list[list[Any]] = []
    for i, (piece, score, kind) in enumerate(pieces):
        if kind == USER_DEFINED:
            score = float(len(piece))  # always preferred to what it is made of
        elif kind != NORMAL:  # no text leads here, so the score says nothing
            score = 0.0
        vocab.append([f"\0{i}" if kind == UNUSED else piece, score])
    unknown = next((i for i, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN), None)
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab}


def _bpe(pieces: list[tuple[str, float, int]]) -> dict[str, Any]:
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    usable = {piece for piece, _, kind in pieces if kind in (NORMAL, UNUSED)}
    merges = []
    # The file ranks whole pieces: of two neighbours, those that make the best-scored piece are joined first.
    for piece, _, kind in sorted(pieces, key=lambda p: -p[1]):
        if kind == NORMAL:
            halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
            merges += [[a, b] for a, b in halves if a in usable and b in usable]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next((piece for piece, _, kind in pieces if kind == UNKNOWN), None),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "ignore_merges": any(kind == USER_DEFINED for _, _, kind in pieces),  # these have none
        "vocab": vocab,
        "merges": merges,
    }


def _normalizer(spec: dict[int, Any], prefix: bool, squeeze: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if spec.get(2):
        check_character_map(spec[2])
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(spec[2]).decode()})
    if squeeze:
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if prefix:
        steps.append({"type": "Prepend", "prepend": "▁"})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    return {"type": "Sequence", "normalizers": steps}


def _decoder(prefix: bool, squeeze: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix or squeeze:
        steps.append({"type": "Strip", "content": " ", "start": 1_000 if squeeze else 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _read(data: bytes) -> tuple[list[tuple[str, float, int]], dict[int, Any], dict[int, Any]]:
    """(piece, score, kind) of every piece, and the scalar fields of the trainer's and the normalizer's settings."""
    pieces: list[tuple[str, float, int]] = []
    parts: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for number, value in _fields(data):
        if number == 1:
            fields = dict(_fields(value))
            score = struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0
            pieces.append((fields[1].decode(), score, fields.get(3, NORMAL)))
        elif number in parts:
            parts[number] = dict(_fields(value))
    return pieces, parts[2], parts[3]


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and raw values of a protobuf message: int for varints, bytes for everything else."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while shift < 64:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise IndexError(f"a number of more than 64 bits at byte {at}")

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise IndexError(f"unknown field kind {kind} at byte {at}")
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        if at + size > len(data):
            raise IndexError("it ends in the middle of a field")
        yield key >> 3, data[at : at + size]
        at += size
