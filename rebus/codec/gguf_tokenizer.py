"""The tokenizer in the metadata of a GGUF file, as the files of a checkpoint directory."""

from collections.abc import Mapping
from typing import Any

from rebus.codec.sentencepiece import from_pieces
from rebus.codec.tokenizer_formats import Definition, added_token, byte_bpe
from rebus.core.errors import BadCheckpoint
from rebus.core.strict_json import to_json

_CONTROL, _GIVEN = 3, 4  # kinds of token: never text; matched in a text as it is
_BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_SPLITS: dict[str, dict[str, Any]] = {  # how a text is cut before merging, by the name that the file gives it
    "gpt-2": {**_BYTES, "use_regex": True},
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, {**_BYTES, "use_regex": True}],
    },
    "llama-bpe": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False},
            {**_BYTES, "use_regex": False},
        ],
    },
}


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """`tokenizer.json` and `tokenizer_config.json`; nothing where the file holds no tokenizer.

    Raises `BadCheckpoint` for a damaged vocabulary and for kinds that are not read.
    """
    ggml = {name.removeprefix("tokenizer.ggml."): v for name, v in metadata.items() if name.startswith("tokenizer.")}
    if "model" not in ggml:
        return {}
    try:
        definition = _definition(ggml)
        config = _config(ggml)
    except KeyError as error:
        raise BadCheckpoint(f"damaged tokenizer: no tokenizer.ggml.{error.args[0]}") from None
    except (TypeError, AttributeError, ValueError, IndexError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(f"damaged tokenizer: {error}") from None
    texts = {"tokenizer.json": to_json(definition), "tokenizer_config.json": to_json(config)}
    return {name: text.encode() for name, text in texts.items()}


def _definition(ggml: Mapping[str, Any]) -> Definition:
    tokens: list[str] = ggml["tokens"]
    kinds: list[int] = ggml.get("token_type") or [1] * len(tokens)
    if len(kinds) != len(tokens):
        raise BadCheckpoint(f"damaged tokenizer: {len(tokens):,} tokens and {len(kinds):,} kinds of token")
    if ggml["model"] == "llama":
        pieces = list(zip(tokens, ggml["scores"], kinds, strict=True))
        return from_pieces(pieces, prefix=bool(ggml.get("add_space_prefix", True)))
    if ggml["model"] != "gpt2":
        raise BadCheckpoint(f'a tokenizer of the kind "{ggml["model"]}"; "gpt2" and "llama" are read')
    split = ggml.get("pre", "gpt-2")
    if split not in _SPLITS:
        raise BadCheckpoint(f'a tokenizer that cuts texts as "{split}"; known are {", ".join(_SPLITS)}')
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise BadCheckpoint("damaged tokenizer: two tokens are spelt alike")
    added = [
        added_token(token, i, special=kind == _CONTROL)
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _GIVEN)
    ]
    made = byte_bpe(vocab, ggml["merges"], added)
    made["pre_tokenizer"] = _SPLITS[split]
    made["model"]["ignore_merges"] = split == "llama-bpe"
    return made


def _config(ggml: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(ggml.get("add_bos_token", ggml["model"] == "llama")),
    }
    for role, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = ggml.get(f"{name}_token_id")
        if token is not None:
            config[f"{role}_token"] = ggml["tokens"][token]
    return config
