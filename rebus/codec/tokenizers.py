"""One tokenizer for every released kind of file: words → ids, with user text kept apart from control tokens.

Control tokens (`<bos>`, `<image>`, `<loc0001>`, `<|endoftext|>`, `[MASK]`, …) steer a model. The released files match
them anywhere in a text, so user text that spells one would steer the model too. Here `encode` reads every text as plain
characters; control tokens enter only by id, through `id_of`, put there by tasks.
"""

import functools
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tokenizers

from rebus.codec.tokenizer_files import DAMAGE, found_files, read_definition
from rebus.codec.tokenizer_formats import word_level
from rebus.codec.tokenizer_limits import check_growth, check_pieces
from rebus.core.errors import BadCheckpoint, BadText, RebusError
from rebus.core.limits import check
from rebus.core.strict_json import to_json

# What looks like a control token although the file does not call it special: <loc0001>, <|user|>, [CLS].
_MARKUP = re.compile(r"<[|/]?[A-Za-z@][\w@.:-]*\|?>|\[[@A-Z][\w@]*\]")
# Gemma's vocabulary holds these for web text, "<table>" among them; elsewhere "<s>" and "</s>" are control tokens.
_HTML = re.compile(r"</?(?:table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code)>")
# Control tokens in which a model states places, masks and outlines: answers hold them, so they are read back as text.
SPOKEN = re.compile(r"<(?:loc|seg)_?\d+>|</?poly>|<sep>")


class Tokenizer:
    """Words ⇄ ids of one released file. `files`: the bytes it was read from, by file name, for saving.

    `definition` is in the layout of a `tokenizer.json`. Its post-processor, padding and truncation are not used: who
    puts which special token where is said by `TextSpec`.
    """

    def __init__(self, definition: Mapping[str, Any], files: Mapping[str, bytes]):
        self.files = dict(files)
        self._source = "+".join(name for name in files if "config" not in name) or "tokenizer"
        model = definition["model"]
        vocabulary = model["vocab"]
        pieces: dict[str, int] = (
            dict(vocabulary)
            if isinstance(vocabulary, Mapping)
            else {piece: i for i, (piece, _) in enumerate(vocabulary)}
        )
        self.last_own_id = max(pieces.values(), default=-1)  # of the file's vocabulary, without what was added to it
        added = sorted(definition.get("added_tokens") or [], key=lambda token: token["id"])
        whole = model.get("type") != "BPE" or model.get("ignore_merges")  # finds pieces in a text, added or not
        suspects = {p: i for p, i in pieces.items() if p[:1] in ("<", "[")} if whole else {}
        pieces.update((t["content"], t["id"]) for t in added)
        web = "<table>" in pieces
        suspects.update((t["content"], t["id"]) for t in added)
        special = {t["content"] for t in added if t.get("special")}
        control = {p: i for p, i in suspects.items() if p in special or _is_control(p, web)}
        self._ids = pieces
        self.vocab_size = max(pieces.values(), default=-1) + 1  # the rows an embedding table needs
        self._control = {i: piece for piece, i in control.items()}
        self._spoken = {piece: i for piece, i in control.items() if SPOKEN.fullmatch(piece)}
        self.special_ids = frozenset(self._control) - frozenset(self._spoken.values())
        # Words that were added to the vocabulary (textual inversion) and look like control tokens.
        self.hidden_words = tuple(
            t["content"]
            for t in added
            if not t.get("special") and t["content"] in control and t["id"] > self.last_own_id
            if not SPOKEN.fullmatch(t["content"])
        )
        # Pieces are stored as words without their spaces, so runs of text are joined by one.
        self._gap = " " if model.get("type") in ("WordLevel", "WordPiece") else ""
        unknown = model.get("unk_token")
        self.unknown_id: int | None = model.get("unk_id") if unknown is None else pieces.get(unknown)
        self._word_end = model.get("end_of_word_suffix") or ""
        with _failing_as(f"{self._source}: damaged tokenizer file"):
            check_pieces(pieces)
            check_growth(definition.get("normalizer"), "normalizer")
            check_growth(definition.get("decoder"), "decoder")
            self._plain = _build(_without_control(definition, control))
        for token in added:
            if token["content"] not in control and self._plain.token_to_id(token["content"]) != token["id"]:
                raise BadCheckpoint(f"{self._source}: the ids of the added tokens have a gap at {token['id']}")

    def __repr__(self) -> str:
        return f"Tokenizer({self._source}, vocab_size={self.vocab_size:,})"

    def id_of(self, piece: str) -> int | None:
        """The id of a piece spelt as in the file, control tokens included; None when there is none."""
        return self._ids.get(piece)

    def piece_of(self, token: int) -> str | None:
        """The piece of an id, spelt as in the file."""
        return self._names.get(token)

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {i: piece for piece, i in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing is put before or after it. Raises `BadText` for NUL and lone surrogates."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once, in parallel."""
        for text in texts:
            check_text(text)
        # The file may have no token for the unknown, and there is something unknown.
        with _failing_as(f"{self._source} cannot encode this text"):
            rows = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [row.ids for row in rows]

    def encode_answer(self, text: str) -> list[int]:
        """Ids of a text that a model is to write: of the control tokens, `<loc0001>` and `<seg001>` count as such."""
        ids: list[int] = []
        start = 0
        for match in SPOKEN.finditer(text) if self._spoken else ():
            token = self._spoken.get(match.group())
            if token is None:
                continue
            if start < match.start():
                ids += self.encode(text[start : match.start()])
            ids.append(token)
            start = match.end()
        return ids + self.encode(text[start:]) if start < len(text) else ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ids. `skip_special` leaves control tokens out, except places and masks (`<loc0001>`, `<seg001>`)."""
        kept = [i for i in map(int, ids) if not (skip_special and i in self.special_ids)]
        parts = []
        for is_control, group in itertools.groupby(kept, key=self._control.__contains__):
            if is_control:
                parts.append("".join(map(self._control.__getitem__, group)))
            else:
                with _failing_as(f"{self._source} cannot decode these tokens"):
                    words = self._plain.decode(list(group), skip_special_tokens=False)
                parts.append(words.replace(self._word_end, " ").strip() if self._word_end else words)
        return self._gap.join(filter(None, parts))

    def check_fits(self, rows: int) -> None:
        """Raise `BadCheckpoint` unless this can be the tokenizer of a network with `rows` token embeddings.

        A network may have some rows that no token uses (released tables are rounded up), never the reverse.
        """
        if self.vocab_size > rows or self.vocab_size < 0.9 * rows:
            raise BadCheckpoint(
                f"the tokenizer ({self._source}) has {self.vocab_size:,} tokens and the weights have {rows:,}: "
                "they are not of the same model"
            )


def load_tokenizer(directory: str | os.PathLike[str], added: Sequence[str] = ()) -> Tokenizer | None:
    """The tokenizer of a checkpoint directory; None when it holds no tokenizer file. Raises `BadCheckpoint`.

    `added`: control tokens that the system adds to those of the file, as Florence-2 and OpenFlamingo do.
    """
    files = found_files(directory)
    if not files:
        return None
    where = os.fspath(directory)
    try:
        definition = read_definition(files, added)
        return None if definition is None else Tokenizer(definition, files)
    except RebusError as error:
        raise BadCheckpoint(f"{where}: {error}") from None
    except DAMAGE as error:
        raise BadCheckpoint(f"{where}: damaged tokenizer file: {type(error).__name__} {error}") from None


def check_text(text: str) -> None:
    """Raise `BadText` or `LimitExceeded` for what no tokenizer reads: no str, NUL, lone surrogates, too much."""
    if not isinstance(text, str):
        raise BadText(f"a text must be a str; got {type(text).__name__}")
    check("MAX_TEXT_CHARS", len(text), "characters of one text")
    if "\0" in text:
        raise BadText(f"the text holds a NUL character at position {text.index(chr(0))}; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadText(
            f"the text holds a lone surrogate (half of a character) at position {error.start}; "
            "decode it as UTF-8 with errors='replace'"
        ) from None


def word_level_tokenizer(
    words: Iterable[str],
    specials: Sequence[str] = ("<pad>", "<eos>", "<bos>", "<unk>"),
    *,
    locations: int = 0,
    segments: int = 0,
    spoken: Sequence[str] = (),
    bos: bool = False,
    eos: bool = False,
) -> Tokenizer:
    """A tokenizer of whole lower-case words and single punctuation marks, for small closed worlds.

    Ids: `specials` in order (`<unk>` among them), then `words` in order, then `<loc0000>`… and `<seg000>`…, then
    `spoken`, other control tokens of answers (`rebus.codec.tokenizers.SPOKEN`).
    `bos`, `eos`: whether other readers of the file put `<bos>` before and `<eos>` after each text; here that is
    `TextSpec`'s to say.
    """
    places = [f"<loc{i:04d}>" for i in range(locations)] + [f"<seg{i:03d}>" for i in range(segments)]
    definition, config = word_level(list(words), list(specials), [*places, *spoken], bos=bos, eos=eos)
    text = to_json(definition, ensure_ascii=False, indent=1)
    return Tokenizer(
        definition,
        {"tokenizer.json": text.encode(), "tokenizer_config.json": to_json(config, indent=2).encode()},
    )


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    """The library raises a bare Exception over a damaged file, or panics, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BadCheckpoint(f"{what}: {error}") from None


def _is_control(piece: str, web: bool) -> bool:
    return bool(_MARKUP.fullmatch(piece)) and not (web and _HTML.fullmatch(piece))


def _without_control(definition: Mapping[str, Any], control: Mapping[str, int]) -> dict[str, Any]:
    """The same tokenizer, in which no text leads to a control token and every id stays what it was.

    A name that begins with NUL cannot be typed, since such texts are refused.
    """
    model = dict(definition["model"])
    vocabulary = model["vocab"]
    known: Any = vocabulary if isinstance(vocabulary, Mapping) else {piece for piece, _ in vocabulary}
    hidden = {piece: f"\0{i}" for piece, i in control.items()}
    if model.get("type") == "BPE":
        # Whole pieces are reached by merges alone, unless the file says otherwise.
        merges = model["merges"]
        spelt = merges if not merges or isinstance(merges[0], str) else list(map(" ".join, merges))
        halves = {f"{piece[:i]} {piece[i:]}" for piece in control for i in range(1, len(piece))}
        if not halves.isdisjoint(spelt):
            model["merges"] = [merge for merge, text in zip(merges, spelt, strict=True) if text not in halves]
        unknown = model.get("unk_token") or ""
        if unknown in control and "unk" not in unknown.lower():
            model["unk_token"] = None  # CLIP names its end token, which no unknown character may become
    if model.get("type") != "BPE" or model.get("ignore_merges"):
        # Single characters that a file calls special ("!" for padding) are words too.
        rename = {piece: name for piece, name in hidden.items() if len(piece) > 1}
        if isinstance(vocabulary, Mapping):
            model["vocab"] = {rename.get(piece, piece): i for piece, i in vocabulary.items()}
        else:
            model["vocab"] = [[rename.get(piece, piece), score] for piece, score in vocabulary]
        if model.get("unk_token") in rename:
            model["unk_token"] = rename[model["unk_token"]]
    pre = definition.get("pre_tokenizer")
    if model.get("type") == "Unigram" and model.get("byte_fallback"):
        # A typed "<0x0A>" is six characters, not the byte's piece, which this model would find as a whole.
        split = {"type": "Split", "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"}, "behavior": "MergedWithPrevious"}
        pre = {"type": "Sequence", "pretokenizers": [{**split, "invert": False}, *([pre] if pre else [])]}
    added = []
    for token in definition.get("added_tokens") or []:
        if token["content"] not in control:
            added.append(token)
        elif token["content"] not in known:  # holds its id, so that later ones keep theirs
            added.append({**token, "content": hidden[token["content"]]})
    return {
        **definition,
        "model": model,
        "added_tokens": added,
        "pre_tokenizer": pre,
        "post_processor": None,
        "padding": None,
        "truncation": None,
    }


def _build(definition: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer. A large BPE vocabulary is handed over as it is: twice as fast as through JSON."""
    model = definition["model"]
    if model.get("type") != "BPE":
        return tokenizers.Tokenizer.from_str(to_json(definition))
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    made = tokenizers.Tokenizer.from_str(to_json({**definition, "model": empty, "added_tokens": []}))
    pairs: list[Any] = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    options = {name: value for name, value in model.items() if name not in ("type", "vocab", "merges")}
    given = {name: value for name, value in options.items() if value is not None}
    made.model = tokenizers.models.BPE(vocab=model["vocab"], merges=pairs, **given)
    made.add_tokens(
        [
            tokenizers.AddedToken(**{name: value for name, value in token.items() if name != "id"})
            for token in sorted(definition["added_tokens"], key=lambda token: token["id"])
        ]
    )
    return made
