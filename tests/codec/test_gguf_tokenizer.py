"""Tokenizers in the metadata of GGUF files: how texts are cut, what is added, damage told in one line."""

import json

import pytest

from rebus.codec.gguf_tokenizer import tokenizer_files
from rebus.codec.processor import text_pipeline
from rebus.codec.tokenizer_files import read_definition
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import BadCheckpoint
from rebus.core.specs import TextSpec

BYTES = [f"<0x{i:02X}>" for i in range(256)]
PIECES = ["<unk>", "<s>", "</s>", *BYTES, "▁a", "▁ab", "▁", "a", "b"]
LLAMA = {
    "model": "llama",
    "tokens": PIECES,
    "scores": [0.0] * 259 + [-1.0, -2.0, -9.0, -10.0, -11.0],
    "token_type": [2, 3, 3, *[6] * 256, *[1] * 5],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}
BPE = {
    "model": "gpt2",
    "pre": "smollm",
    "tokens": ["<|end|>", *"abĠ123", "Ġa", "12", "<|given|>"],
    "token_type": [3, *[1] * 8, 4],
    "merges": ["Ġ a", "1 2"],
    "eos_token_id": 0,
}


def tokenizer(ggml):
    files = tokenizer_files({f"tokenizer.ggml.{name}": value for name, value in ggml.items()} | {"llama.x": 1})
    return Tokenizer(read_definition(files), files), json.loads(files["tokenizer_config.json"])


def test_llamas_pieces_merge_by_score_and_bytes_stand_for_the_unknown():
    found, config = tokenizer(LLAMA)
    assert found.encode("ab a") == [PIECES.index("▁ab"), PIECES.index("▁a")]
    assert found.encode("bé") == [PIECES.index("▁"), PIECES.index("b"), 3 + 0xC3, 3 + 0xA9]
    assert found.encode("b  b")[1:] == [PIECES.index("b"), *[PIECES.index("▁")] * 2, PIECES.index("b")]
    assert 2 not in found.encode("</s>")
    assert found.decode(found.encode("ab é a")) == "ab é a"
    assert (config["add_bos_token"], config["bos_token"], config["eos_token"]) == (True, "<s>", "</s>")
    assert tokenizer(LLAMA | {"add_space_prefix": False})[0].encode("b") == [PIECES.index("b")]


def test_smollms_digits_stand_alone_and_gpt2s_do_not():
    found, config = tokenizer(BPE)
    assert found.encode("a a12") == [1, 7, 4, 5]
    assert config["add_bos_token"] is False
    assert tokenizer(BPE | {"pre": "gpt-2"})[0].encode(" a 12")[-1] == 8
    assert tokenizer(BPE | {"pre": "llama-bpe"})[0].encode("12") == [8]
    assert found.special_ids >= {0}


def test_a_file_without_a_tokenizer_has_no_files():
    assert tokenizer_files({"general.architecture": "llama"}) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "bert"}, 'of the kind "bert"; "gpt2" and "llama" are read'),
        ({"pre": "tekken"}, 'cuts texts as "tekken"; known are gpt-2, smollm, llama-bpe'),
        ({"tokens": None}, "damaged tokenizer"),
        ({"token_type": [1]}, "10 tokens and 1 kinds of token"),
        ({"tokens": [*"aabcdefghi"]}, "two tokens are spelt alike"),
        ({"eos_token_id": 99}, "damaged tokenizer"),
    ],
)
def test_damage_and_strange_kinds_are_named(change, said):
    with pytest.raises(BadCheckpoint, match=said) as caught:
        tokenizer(BPE | change)
    assert "\n" not in str(caught.value)
    lacking = {name: value for name, value in BPE.items() if name != "merges"}
    with pytest.raises(BadCheckpoint, match=r"no tokenizer\.ggml\.merges"):
        tokenizer(lacking)


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"tokenizer_class": "GPT2Tokenizer"}, None),  # as SmolLM2's own files say
        ({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, 0),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, 0),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, None),
    ],
)
def test_a_start_token_is_put_where_the_tokenizers_settings_say_so(settings, start):
    files = tokenizer_files({f"tokenizer.ggml.{name}": value for name, value in BPE.items()})
    files["tokenizer_config.json"] = json.dumps({"bos_token": "<|end|>", **settings}).encode()
    spec = TextSpec(context=9, pad_id=0, bos_id=1, generates=True, vocab_size=10)
    assert text_pipeline(Tokenizer(read_definition(files), files), spec).spec.bos_id == start
