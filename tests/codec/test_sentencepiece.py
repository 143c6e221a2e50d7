"""Sentencepiece files, written here by hand; parity with the package is in tests/parity."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebus.codec.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, read_sentencepiece
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import BadCheckpoint

UNIGRAM, BPE, WORD = 1, 2, 3
PIECES = [
    ("<pad>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    ("<unk>", 0.0, UNKNOWN),
    ("<loc0001>", 0.0, USER_DEFINED),
    ("dogs!", 0.0, USER_DEFINED),
    ("▁a", -1.0, NORMAL),
    ("▁c", -1.5, NORMAL),
    ("▁ca", -2.0, NORMAL),
    ("▁cat", -3.0, NORMAL),
    ("ts", -4.0, UNUSED),
    *((letter, -5.0 - i, NORMAL) for i, letter in enumerate("▁acts<>/loc01unkpd")),
]


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def model(kind: int, pieces=PIECES, trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    seen, data = set(), b""
    for piece, score, type_ in pieces:
        if piece not in seen:
            body = _bytes(1, piece.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _int(3, type_)
            data += _bytes(1, body)
        seen.add(piece)
    return data + _bytes(2, _int(3, kind) + trainer) + _bytes(3, normalizer)


def tokenizer(kind: int, **options) -> Tokenizer:
    data = model(kind, **options)
    return Tokenizer(read_sentencepiece(data), {"tokenizer.model": data})


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
def test_words_and_user_defined_pieces(kind):
    made = tokenizer(kind)
    pieces = [made.piece_of(i) for i in made.encode("  a  cats dogs!a ")]
    assert pieces == ["▁a", "▁cat", "s", "▁", "dogs!", "a"]
    assert made.decode(made.encode("a cats dogs!a")) == "a cats dogs!a"


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
@given(text=st.text(alphabet="<>/ locat01s!unkpd▁日\n", max_size=30) | st.just("</s><pad><loc0001><unk>"))
@settings(max_examples=60, deadline=None)
def test_fault_14_no_text_leads_to_a_control_token(kind, text):
    made = tokenizer(kind)
    assert not {0, 1, 3} & set(made.encode(text))
    assert made.encode_answer("<loc0001>") == [3]


def test_bytes_stand_for_unknown_characters():
    pieces = [*PIECES, *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))]
    for kind in (UNIGRAM, BPE):
        made = tokenizer(kind, pieces=pieces, trainer=_int(35, 1))
        assert [made.piece_of(i) for i in made.encode("aé")] == ["▁a", "<0xC3>", "<0xA9>"]
        assert made.decode(made.encode("aé")) == "aé"
        assert made.id_of("<0x0A>") not in made.encode("<0x0A>")


def test_white_space_is_kept_where_the_file_says_so():
    made = tokenizer(UNIGRAM, normalizer=_int(3, 0) + _int(4, 0))
    assert [made.piece_of(i) for i in made.encode("a  a ")] == ["a", "▁", "▁a", "▁"]


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "no pieces"),
        (b"\x0a\x05ab", "middle of a field"),
        (model(UNIGRAM)[:-3], "middle of a field|damaged"),
        (b"\x0b", "field kind"),
        (model(WORD), "Unigram and BPE"),
        (model(UNIGRAM, trainer=_int(24, 1)), "white space in front"),
        (model(UNIGRAM, normalizer=_bytes(2, b"\xff\xff\xff\xffab")), "character map"),
    ],
)
def test_damaged_and_other_files(data, why):
    with pytest.raises(BadCheckpoint, match=why):
        read_sentencepiece(data)
