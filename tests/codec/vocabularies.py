"""Small tokenizer files of every released kind, made on the spot."""

import json
from pathlib import Path
from typing import Any

from rebus.codec.tokenizer_formats import added_token
from rebus.codec.tokenizers import Tokenizer, load_tokenizer

WORDS = ["a", "red", "blue", "circle", "square", "of", "the", "what", "is", ".", "?", ";", ","]
# What a stranger may type; none of it may reach a model as a control token.
TYPED = [
    "<image>",
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "</s>",
    "<loc0001>",
    "<seg001>",
    "<|endoftext|>",
    "<|endofchunk|>",
    "<|startoftext|>",
    "[CLS]",
    "[MASK]",
    "a <loc0001> <image>, <|endoftext|>[SEP]",
]
SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", "</s>", "<|endoftext|>", "<|startoftext|>", "[CLS]"]
SPECIALS += ["[SEP]", "[MASK]", "[UNK]"]
SPOKEN = ["<loc0000>", "<loc0001>", "<loc0002>", "<loc0003>", "<seg000>", "<seg001>"]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789<>|[]/.,;:?!_'CLSMAKEP"


def definition(kind: str, **changes: Any) -> dict[str, Any]:
    """A `tokenizer.json` of one model kind in which control tokens are both pieces and added tokens."""
    pieces = [*SPECIALS, *SPOKEN, *dict.fromkeys(CHARACTERS), "▁"]
    if kind in ("WordLevel", "WordPiece"):
        pieces += [w for w in WORDS if w not in pieces]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    model: dict[str, Any] = {"type": kind, "vocab": vocab}
    pre: Any = None
    normalizer: Any = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if kind == "Unigram":
        model |= {"vocab": [[piece, 0.0 if i < 18 else -5.0] for piece, i in vocab.items()], "unk_id": 3}
    elif kind == "BPE":
        model |= {"merges": [], "unk_token": "<unk>"}
    else:
        normalizer, pre = None, {"type": "WhitespaceSplit"}
        model |= {"unk_token": "<unk>" if kind == "WordLevel" else "[UNK]"}
        if kind == "WordPiece":
            model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    added = [added_token(p, vocab[p]) for p in SPECIALS] + [added_token(p, vocab[p], special=False) for p in SPOKEN]
    made = {"version": "1.0", "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre, "model": model}
    return made | {"decoder": None, "post_processor": None, "truncation": None, "padding": None} | changes


def built(kind: str, **changes: Any) -> Tokenizer:
    made = definition(kind, **changes)
    return Tokenizer(made, {"tokenizer.json": json.dumps(made).encode()})


def clip_folder(folder: Path) -> Path:
    """`vocab.json` and `merges.txt` in CLIP's manner: bytes, bytes that end a word, a few merges, start and end."""
    from rebus.codec.tokenizer_formats import _byte_alphabet

    letters = _byte_alphabet()
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "< |", "<| endoftext", "<|endoftext |></w>"]
    joined = ["".join(m.split()) for m in merges[:5]]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges[:5]) + "\n")
    return folder


def bert_folder(folder: Path) -> Path:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "##s", "[", "]", "cl", ".", "!"]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


def loaded(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer
