"""Released vocabulary files → the layout of a `tokenizer.json`."""

from typing import Any

Definition = dict[str, Any]


def added_token(piece: str, token: int, *, special: bool = True) -> dict[str, Any]:
    """An entry of `added_tokens`: matched as it is spelt, before anything else is done to a text."""
    return {
        "id": token,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def definition(
    model: dict[str, Any],
    *,
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any] | None,
    decoder: dict[str, Any] | None,
    added: list[dict[str, Any]],
    post_processor: dict[str, Any] | None = None,
) -> Definition:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


def template(before: list[str], after: list[str], ids: dict[str, int]) -> dict[str, Any] | None:
    """The post-processor that puts control tokens around a text; None when there are none to put."""
    if not before and not after:
        return None
    around = [{"SpecialToken": {"id": name, "type_id": 0}} for name in before]
    around += [{"Sequence": {"id": "A", "type_id": 0}}]
    around += [{"SpecialToken": {"id": name, "type_id": 0}} for name in after]
    return {
        "type": "TemplateProcessing",
        "single": around,
        "pair": [*around, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (*before, *after)},
    }


def word_level(
    words: list[str], specials: list[str], spoken: list[str], *, bos: bool, eos: bool
) -> tuple[Definition, dict[str, Any]]:
    """A `tokenizer.json` and its `tokenizer_config.json`; see `rebus.codec.tokenizers.word_level_tokenizer`."""
    pieces = [*specials, *words, *spoken]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise ValueError(f"duplicate words: {sorted({p for p in pieces if pieces.count(p) > 1})[:5]}")
    if "<unk>" not in vocab:
        raise ValueError('specials must hold "<unk>"')
    made = definition(
        {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        normalizer={"type": "Lowercase"},
        pre_tokenizer={"type": "BertPreTokenizer"},
        # Its clean-up puts "a circle ." back as "a circle."
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        added=[added_token(p, vocab[p]) for p in specials] + [added_token(p, vocab[p], special=False) for p in spoken],
        post_processor=template(["<bos>"] * bos, ["<eos>"] * eos, vocab),
    )
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for role in ("pad", "eos", "bos", "unk"):
        if f"<{role}>" in vocab:
            config[f"{role}_token"] = f"<{role}>"
    return made, config


# Words of the sentence as CLIP cuts them: contractions, runs of letters, single digits, runs of anything else.
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_bpe(vocab: dict[str, int], merges: list[str], added: list[dict[str, Any]]) -> Definition:
    """Lower-casing byte-level BPE whose words end in `</w>` (clip §4)."""
    return definition(
        _bpe(vocab, merges, end_of_word_suffix="</w>"),
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _CLIP_WORDS}, "behavior": "Removed", "invert": True},
                _byte_level(use_regex=False),
            ],
        },
        decoder=_byte_level(),
        added=added,
    )


def byte_bpe(vocab: dict[str, int], merges: list[str], added: list[dict[str, Any]]) -> Definition:
    """GPT-2's byte-level BPE: case and white space are kept."""
    return definition(
        _bpe(vocab, merges), normalizer=None, pre_tokenizer=_byte_level(), decoder=_byte_level(), added=added
    )


def openai_clip(text: str) -> Definition:
    """`bpe_simple_vocab_16e6.txt`: bytes, bytes that end a word, 48,894 merges, start and end (clip §4)."""
    merges = text.split("\n")[1 : 49152 - 256 - 2 + 1]
    pieces = _byte_alphabet()
    pieces += [piece + "</w>" for piece in pieces]
    pieces += ["".join(merge.split()) for merge in merges]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate([*pieces, *ends])}
    return clip_bpe(vocab, merges, [added_token(piece, vocab[piece]) for piece in ends])


def wordpiece(vocab: dict[str, int], *, lower: bool, added: list[dict[str, Any]]) -> Definition:
    """BERT's WordPiece; `lower` also strips accents."""
    return definition(
        {
            "type": "WordPiece",
            "vocab": vocab,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": lower,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        added=added,
    )


def _bpe(vocab: dict[str, int], merges: list[str], **more: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,  # every byte is in the vocabulary
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocab,
        "merges": merges,
        **more,
    }


def _byte_level(use_regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _byte_alphabet() -> list[str]:
    """The visible character that stands for each byte, in the order of GPT-2's vocabulary."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]
