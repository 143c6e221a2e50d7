"""The tokenizer files of a checkpoint directory: found, read into one layout, and written for other libraries."""

import json
import os
import string
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rebus.codec import tokenizer_formats as formats
from rebus.codec.sentencepiece import read_sentencepiece
from rebus.codec.tokenizer_limits import inflated, read_file
from rebus.core.errors import BadCheckpoint, RebusError
from rebus.core.specs import TextSpec
from rebus.core.strict_json import to_json

Files = Mapping[str, bytes]

_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "bpe_simple_vocab_16e6.txt.gz",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentence_bert_config.json",
)
_KNOWN_SPECIALS = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<bos>",
    "<eos>",
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
]
# What reading a damaged file raises: JSON, UTF-8, missing or mistyped fields, gzip.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, EOFError, RecursionError, zlib.error)


def found_files(directory: str | os.PathLike[str], prefix: str = "") -> dict[str, bytes]:
    """The bytes of every file in `directory` that says something about its tokenizer, by name. `prefix`: before the
    names of the files there, of which the result is free. Raises `LimitExceeded`."""
    folder = Path(directory)
    return {name: read_file(folder / (prefix + name)) for name in _FILES if (folder / (prefix + name)).is_file()}


def read_definition(files: Files, added: Sequence[str] = ()) -> formats.Definition | None:
    """The layout of a `tokenizer.json` out of whichever files are there; None when none holds a vocabulary.

    `added`: control tokens that get the next ids, except those that the files have. Raises `BadCheckpoint` naming the
    damaged file.
    """
    for names, read in _READERS.items():
        if all(name in files for name in names):
            try:
                return _with_added(read(files, *(files[name] for name in names)), added)
            except RebusError as error:
                raise BadCheckpoint(f"{'+'.join(names)}: {error}") from None
            except DAMAGE as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise BadCheckpoint(f"{'+'.join(names)}: damaged tokenizer file: {what}") from None
    return None


def standalone(files: Files, spec: TextSpec) -> bytes:
    """A `tokenizer.json` that alone gives other libraries the ids of `spec`, start and end tokens included.

    Only `spec.clean` (ftfy and HTML entities) cannot be said in that file.
    """
    made = read_definition(files, spec.added_tokens)
    assert made is not None
    names = {token["id"]: token["content"] for token in made["added_tokens"]}
    steps: list[dict[str, Any]] = []
    if spec.canonical:
        marks = "".join("\\" + mark for mark in string.punctuation)
        steps.append({"type": "Replace", "pattern": {"String": "_"}, "content": " "})
        steps.append({"type": "Replace", "pattern": {"Regex": f"[{marks}]"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "})
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
    if spec.lower:
        steps.append({"type": "Lowercase"})
    if spec.strip_accents:
        steps += [{"type": "NFKD"}, {"type": "StripAccents"}]
    if made["normalizer"]:
        steps.append(made["normalizer"])
    made["normalizer"] = {"type": "Sequence", "normalizers": steps}
    before, after = ([names[i] for i in (end,) if i in names] for end in (spec.bos_id, spec.eos_id))
    made["post_processor"] = formats.template(before, after, {name: i for i, name in names.items()})
    return to_json(made, ensure_ascii=False).encode()


def _with_added(made: formats.Definition, names: Sequence[str]) -> formats.Definition:
    vocab = made["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, Mapping) else {piece: i for i, (piece, _) in enumerate(vocab)}
    ids |= {token["content"]: token["id"] for token in made.get("added_tokens") or []}
    new = [name for name in dict.fromkeys(names) if name not in ids]
    tokens = [formats.added_token(name, i) for i, name in enumerate(new, start=max(ids.values(), default=-1) + 1)]
    return {**made, "added_tokens": [*(made.get("added_tokens") or []), *tokens]}


def _read_json(files: Files, data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    found["model"].setdefault("type", "BPE")  # files of 2020 leave it out for this one
    return found


def _read_bpe(files: Files, vocab: bytes, merges: bytes) -> dict[str, Any]:
    pieces = json.loads(vocab)
    lines = merges.decode().split("\n")
    rules = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    read = formats.clip_bpe if any(piece.endswith("</w>") for piece in pieces) else formats.byte_bpe
    return read(pieces, rules, _added_beside(files, pieces))


def _read_openai(files: Files, data: bytes) -> dict[str, Any]:
    return formats.openai_clip(inflated(data).decode())


def _read_wordpiece(files: Files, data: bytes) -> dict[str, Any]:
    pieces = {line.rstrip("\r"): i for i, line in enumerate(data.decode().rstrip("\n").split("\n"))}
    lower = bool(json.loads(files.get("tokenizer_config.json", b"{}")).get("do_lower_case", True))
    return formats.wordpiece(pieces, lower=lower, added=_added_beside(files, pieces))


def _read_sentencepiece(files: Files, data: bytes) -> dict[str, Any]:
    made = read_sentencepiece(data)
    vocab = made["model"]["vocab"]
    pieces = vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    listed = {token["id"] for token in made["added_tokens"]}
    made["added_tokens"] += [token for token in _added_beside(files, pieces) if token["id"] not in listed]
    return made


def _added_beside(files: Files, pieces: Mapping[str, int]) -> list[dict[str, Any]]:
    """The added tokens that older layouts keep in files of their own."""
    config = json.loads(files.get("tokenizer_config.json", b"{}"))
    roles = json.loads(files.get("special_tokens_map.json", b"{}"))
    found = {
        int(i): formats.added_token(token["content"], int(i), special=bool(token.get("special", False)))
        for i, token in (config.get("added_tokens_decoder") or {}).items()
    }
    for piece, i in json.loads(files.get("added_tokens.json", b"{}")).items():
        found.setdefault(i, formats.added_token(piece, i, special=False))
    known = {**pieces, **{token["content"]: i for i, token in found.items()}}
    for name in {*_KNOWN_SPECIALS, *special_names(config).values(), *special_names(roles).values()}:
        if name in known:
            found[known[name]] = formats.added_token(name, known[name])
    return sorted(found.values(), key=lambda token: token["id"])


def special_names(config: Mapping[str, Any]) -> dict[str, str]:
    """`{"pad_token": "<pad>", …}` of a `tokenizer_config.json` or `special_tokens_map.json`."""
    names = {}
    for role, value in config.items():
        if role.endswith("_token"):
            name = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(name, str):
                names[role] = name
    return names


# The first whose files are all there is read: the converted file says most, the raw vocabulary least.
_READERS: dict[tuple[str, ...], Callable[..., dict[str, Any]]] = {
    ("tokenizer.json",): _read_json,
    ("vocab.json", "merges.txt"): _read_bpe,
    ("tokenizer.model",): _read_sentencepiece,
    ("spiece.model",): _read_sentencepiece,
    ("sentencepiece.bpe.model",): _read_sentencepiece,
    ("vocab.txt",): _read_wordpiece,
    ("bpe_simple_vocab_16e6.txt.gz",): _read_openai,
}
