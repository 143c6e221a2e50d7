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


def word_level(
    words: list[str], specials: list[str], *, locations: int, segments: int, bos: bool, eos: bool
) -> tuple[Definition, dict[str, Any]]:
    """A `tokenizer.json` and its `tokenizer_config.json`; see `rebus.codec.tokenizers.word_level_tokenizer`."""
    spoken = [f"<loc{i:04d}>" for i in range(locations)] + [f"<seg{i:03d}>" for i in range(segments)]
    pieces = [*specials, *words, *spoken]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise ValueError(f"duplicate words: {sorted({p for p in pieces if pieces.count(p) > 1})[:5]}")
    if "<unk>" not in vocab:
        raise ValueError('specials must hold "<unk>"')
    ends = [("<bos>", bos), ("A", True), ("<eos>", eos)]
    template = [
        {"Sequence": {"id": name, "type_id": 0}} if name == "A" else {"SpecialToken": {"id": name, "type_id": 0}}
        for name, wanted in ends
        if wanted
    ]
    post = {
        "type": "TemplateProcessing",
        "single": template,
        "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [vocab[name]], "tokens": [name]}
            for name, wanted in ends
            if wanted and name != "A"
        },
    }
    made = definition(
        {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        normalizer={"type": "Lowercase"},
        pre_tokenizer={"type": "BertPreTokenizer"},
        # Its clean-up puts "a circle ." back as "a circle."
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        added=[added_token(p, vocab[p]) for p in specials] + [added_token(p, vocab[p], special=False) for p in spoken],
        post_processor=post if bos or eos else None,
    )
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for role in ("pad", "eos", "bos", "unk"):
        if f"<{role}>" in vocab:
            config[f"{role}_token"] = f"<{role}>"
    return made, config
