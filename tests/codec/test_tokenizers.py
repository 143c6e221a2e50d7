"""Tokenizer files of every kind; user text stays apart from control tokens."""

import json

import pytest

from rebus.codec.tokenizers import Tokenizer, load_tokenizer, word_level_tokenizer
from rebus.core.errors import BadCheckpoint, BadText, LimitExceeded

from .vocabularies import SPECIALS, SPOKEN, TYPED, WORDS, bert_folder, built, clip_folder, definition, loaded

KINDS = ["WordLevel", "WordPiece", "Unigram", "BPE"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TYPED)
def test_fault_14_control_tokens_typed_in_a_text_are_text(kind, text):
    tokenizer = built(kind)
    control = {tokenizer.id_of(piece) for piece in SPECIALS + SPOKEN}
    unknown = {tokenizer.id_of("<unk>"), tokenizer.id_of("[UNK]")}
    assert not set(tokenizer.encode(text)) & (control - unknown)
    if kind in ("Unigram", "BPE"):  # they know every character, so nothing is lost either
        assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "").replace("▁", "") == text.replace(" ", "")


@pytest.mark.parametrize("kind", KINDS)
def test_fault_14_also_when_the_file_does_not_call_them_special(kind):
    made = definition(kind)
    made["added_tokens"] = [{**token, "special": False, "normalized": True} for token in made["added_tokens"]]
    tokenizer = Tokenizer(made, {})
    control = {tokenizer.id_of(piece) for piece in SPECIALS + SPOKEN} - {tokenizer.unknown_id}
    assert not set(tokenizer.encode(" ".join(TYPED))) & control


def test_fault_14_holds_when_merges_lead_to_a_control_token():
    made = definition("BPE")
    merges = [["<", "b"], ["<b", "o"], ["<bo", "s"], ["<bos", ">"]]
    for i, piece in enumerate(["<b", "<bo", "<bos"]):
        made["model"]["vocab"][piece] = 500 + i
    for spelling in (merges, [" ".join(merge) for merge in merges]):
        made["model"]["merges"] = spelling
        tokenizer = Tokenizer(made, {})
        assert [tokenizer.piece_of(i) for i in tokenizer.encode("<bos>")] == ["<bos", ">"]


def test_fault_14_unknown_characters_do_not_become_the_end_token():
    made = definition("BPE")
    made["model"]["unk_token"] = "<|endoftext|>"
    assert Tokenizer(made, {}).encode("日") == []


def test_a_typed_byte_is_not_the_byte():
    made = definition("Unigram")
    made["model"]["byte_fallback"] = True
    made["model"]["vocab"] += [[f"<0x{byte:02X}>", 0.0] for byte in range(256)]
    tokenizer = Tokenizer(made, {})
    assert tokenizer.id_of("<0x0A>") not in tokenizer.encode("<0x0A>")
    assert tokenizer.encode("\n") == [tokenizer.id_of("<0x0A>")]


def test_ids_stay_when_control_tokens_are_hidden():
    """Added tokens beyond the model's vocabulary keep their ids, content ones are still matched."""
    made = definition("BPE")
    size = len(made["model"]["vocab"])
    from rebus.codec.tokenizer_formats import added_token

    made["added_tokens"] += [
        added_token("<new>", size),
        added_token("abc def", size + 1, special=False),
        added_token("<loc0009>", size + 2, special=False),
        added_token("xyz", size + 3, special=False),
    ]
    tokenizer = Tokenizer(made, {})
    assert tokenizer.encode("abc defxyz") == [size + 1, size + 3]
    assert tokenizer.encode_answer("<loc0009>xyz<new>")[:2] == [size + 2, size + 3]
    assert size not in tokenizer.encode_answer("<new>")
    assert tokenizer.decode([size, size + 1, size + 2, size + 3]) == "abc def<loc0009>xyz"
    assert tokenizer.vocab_size == size + 4


def test_single_characters_called_special_stay_words():
    """Some CLIP files pad with "!"; the mark itself must still be readable."""
    made = definition("BPE")
    made["added_tokens"].append({**made["added_tokens"][0], "content": "!", "id": made["model"]["vocab"]["!"]})
    assert Tokenizer(made, {}).encode("a!") == [made["model"]["vocab"][c] for c in "a!"]


def test_word_level_reads_words_and_marks():
    tokenizer = word_level_tokenizer(WORDS, ["<pad>", "<eos>", "<bos>", "<unk>", "<image>"], locations=16, segments=4)
    ids = tokenizer.encode("A RED circle, what?")
    assert [tokenizer.piece_of(i) for i in ids] == ["a", "red", "circle", ",", "what", "?"]
    assert tokenizer.decode(ids) == "a red circle, what?"
    assert tokenizer.encode("zebra") == [tokenizer.id_of("<unk>")] == [tokenizer.unknown_id]
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.vocab_size == 5 + len(WORDS) + 16 + 4


def test_answers_hold_places_and_masks_both_ways():
    tokenizer = word_level_tokenizer(WORDS, locations=16, segments=4)
    text = "<loc0001><loc0002> red circle ; <loc0003><seg001> a blue square."
    ids = tokenizer.encode_answer(text)
    assert [tokenizer.piece_of(i) for i in ids[:3]] == ["<loc0001>", "<loc0002>", "red"]
    assert tokenizer.decode([2, *ids, 1, 0, 0]) == text
    assert tokenizer.decode([2, *ids, 1], skip_special=False) == f"<bos>{text} <eos>"
    assert tokenizer.id_of("<eos>") not in tokenizer.encode_answer("<eos> <bos>")
    assert tokenizer.encode_answer("") == []
    assert tokenizer.unknown_id in tokenizer.encode_answer("<loc9999>")


def test_places_numbered_without_zeros_are_read_back_too():
    tokenizer = word_level_tokenizer(WORDS, ("<pad>", "<eos>", "<bos>", "<unk>", "<loc_0>", "<loc_999>"))
    ids = tokenizer.encode_answer("red circle<loc_0><loc_999>")
    assert [tokenizer.piece_of(i) for i in ids[-2:]] == ["<loc_0>", "<loc_999>"]
    assert tokenizer.decode(ids).replace(" <", "<") == "red circle<loc_0><loc_999>"
    assert tokenizer.id_of("<loc_0>") not in tokenizer.encode("red <loc_0>"), "typed, it is plain text"


def test_word_level_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="duplicate words"):
        word_level_tokenizer(["a", "a"])
    with pytest.raises(ValueError, match="<unk>"):
        word_level_tokenizer(["a"], specials=["<pad>"])


def test_clip_vocabulary_and_merges(tmp_path):
    tokenizer = loaded(clip_folder(tmp_path))
    pieces = [tokenizer.piece_of(i) for i in tokenizer.encode("Cat  DOG's 12")]
    assert pieces == ["cat</w>", "dog</w>", "'", "s</w>", "1</w>", "2</w>"]
    assert tokenizer.decode(tokenizer.encode("cat dog")) == "cat dog"
    end = tokenizer.id_of("<|endoftext|>")
    assert tokenizer.special_ids == {end, end - 1}
    assert end not in tokenizer.encode("<|endoftext|>")
    assert set(tokenizer.files) == {"vocab.json", "merges.txt"}


def test_gpt2_vocabulary_and_merges(tmp_path):
    from rebus.codec.tokenizer_formats import _byte_alphabet

    pieces = [*_byte_alphabet(), "Ġc", "at", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\r\nĠ c\r\na t\r\n")
    tokenizer = loaded(tmp_path)
    assert [tokenizer.piece_of(i) for i in tokenizer.encode("A cat")] == ["A", "Ġc", "at"]
    assert tokenizer.decode(tokenizer.encode("A cat\n日")) == "A cat\n日"
    assert tokenizer.special_ids == {258}


def test_wordpiece(tmp_path):
    tokenizer = loaded(bert_folder(tmp_path))
    assert tokenizer.encode("A photo of CATS!") == [5, 6, 7, 8, 9, 14]
    assert tokenizer.encode("[CLS]") == [10, 12, 9, 11]
    assert tokenizer.decode([2, 5, 6, 7, 8, 9, 14, 3]) == "a photo of cats!"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert loaded(tmp_path).encode("A photo") == [1, 6]


@pytest.mark.parametrize("folder", [clip_folder, bert_folder])
def test_control_tokens_that_the_system_adds(tmp_path, folder):
    """OpenFlamingo puts its marks behind the released vocabulary; what the file has already keeps its id."""
    plain = loaded(folder(tmp_path))
    there = plain.piece_of(min(plain.special_ids))
    made = load_tokenizer(tmp_path, ("<|endofchunk|>", there, "<image>", "<|endofchunk|>"))
    assert made is not None
    size = plain.vocab_size
    assert [made.id_of(name) for name in ("<|endofchunk|>", there, "<image>")] == [size, plain.id_of(there), size + 1]
    assert made.vocab_size == size + 2
    assert made.encode("a photo <image> <|endofchunk|>") == plain.encode("a photo <image> <|endofchunk|>")
    assert {size, size + 1} <= made.special_ids
    assert made.files == plain.files


def test_a_folder_without_tokenizer(tmp_path):
    assert load_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert load_tokenizer(tmp_path) is None


@pytest.mark.parametrize(
    "name, data",
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"[1, 2]"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}'),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": 3}}'),
        ("tokenizer.json", b'{"model": {"type": "Unknown", "vocab": {"a": 0}}}'),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.model", b""),
        ("tokenizer.model", b"\x0a\xff\xff\xff"),
        ("spiece.model", b"version https://git-lfs.github.com/spec/v1\n"),
        ("vocab.txt", b"\xff\xfe\x00"),
        ("bpe_simple_vocab_16e6.txt.gz", b"\x1f\x8bnot gzip"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadCheckpoint, match=name.replace(".", r"\.") + "|damaged"):
        load_tokenizer(tmp_path)


def test_a_file_without_a_token_for_the_unknown():
    made = definition("Unigram")
    del made["model"]["unk_id"]
    with pytest.raises(BadCheckpoint, match="cannot encode this text"):
        Tokenizer(made, {}).encode("日本")


def test_a_damaged_character_map():
    made = definition("Unigram", normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="})
    with pytest.raises(BadCheckpoint, match="damaged"):
        Tokenizer(made, {})


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_fault_17_nul_is_refused(text):
    with pytest.raises(BadText, match="NUL character at position"):
        built("BPE").encode(text)


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff"])
def test_fault_17_lone_surrogates_are_refused(text):
    with pytest.raises(BadText, match="lone surrogate"):
        built("BPE").encode(text)


def test_fault_17_a_megabyte_is_refused_and_the_limit_named(monkeypatch):
    with pytest.raises(LimitExceeded, match="MAX_TEXT_CHARS"):
        built("BPE").encode("a" * 1_000_000)
    monkeypatch.setenv("REBUS_MAX_TEXT_CHARS", "2000000")
    assert len(built("BPE").encode("a" * 1_000_000)) == 1_000_000


def test_fault_17_right_to_left_and_empty():
    tokenizer = built("BPE")
    assert tokenizer.encode("") == []
    made = definition("BPE")
    for i, letter in enumerate("שלוםع"):
        made["model"]["vocab"][letter] = 900 + i
    assert Tokenizer(made, {}).encode("שלום") == [900, 901, 902, 903]  # in the order of reading
    with pytest.raises(BadText, match="must be a str"):
        tokenizer.encode(b"bytes")  # type: ignore[arg-type]


def test_fault_23_a_tokenizer_that_does_not_fit_the_weights():
    tokenizer = built("BPE")
    tokenizer.check_fits(tokenizer.vocab_size)
    tokenizer.check_fits(tokenizer.vocab_size + 4)
    for rows in (tokenizer.vocab_size - 1, 2 * tokenizer.vocab_size):
        with pytest.raises(BadCheckpoint, match=f"{tokenizer.vocab_size} tokens and the weights have {rows}"):
            tokenizer.check_fits(rows)
