"""Fault 35: tokenizer files that would take the memory, the time, or the process. Each is one line at once."""

import base64
import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rebus.codec import tokenizer_limits
from rebus.codec.sentencepiece import NORMAL, UNKNOWN, read_sentencepiece
from rebus.codec.tokenizer_formats import added_token
from rebus.codec.tokenizers import Tokenizer, load_tokenizer
from rebus.core.errors import BadCheckpoint, LimitExceeded
from tests.codec.test_sentencepiece import BPE, UNIGRAM, model
from tests.codec.vocabularies import definition

LIMITED = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # with what torch maps
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
from rebus.codec.tokenizer_formats import added_token
from rebus.codec.tokenizers import load_tokenizer
from rebus.core.errors import RebusError
for folder in sys.argv[1:]:
    start = time.process_time()
    try:
        tokenizer = load_tokenizer(folder)
        print("read:", len(tokenizer.encode("a" * 1000)))
    except RebusError as error:
        print(f"{time.process_time() - start:.1f}", str(error).splitlines()[0][-150:])
"""


def character_map(units: list[int], texts: bytes = b"") -> str:
    data = struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts
    return base64.b64encode(data).decode()


def grown(steps: list[dict]) -> bytes:
    return json.dumps(definition("WordLevel", normalizer={"type": "Sequence", "normalizers": steps})).encode()


def replace(pattern: str, content: str, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def test_fault_35_files_that_took_gigabytes_half_a_minute_or_the_process(tmp_path: Path) -> None:
    long = "x" * 100_000
    files = {
        "doubling": ("tokenizer.json", grown([replace("a", "aa")] * 40)),
        "long": ("tokenizer.json", grown([replace("a", "a" * 100_000)])),
        "regex": ("tokenizer.json", grown([replace("", "a" * 10_000, "Regex")])),
        "prepend": ("tokenizer.json", grown([{"type": "Prepend", "prepend": "a" * 10_000_000}])),
        "map": ("tokenizer.json", grown([{"type": "Precompiled", "precompiled_charsmap": character_map([1 << 20])}])),
        "numbers": ("tokenizer.model", b"\xff" * 2_000_000),
        "piece": ("tokenizer.model", model(BPE, pieces=[("<unk>", 0.0, UNKNOWN), (long, -1.0, NORMAL)])),
        "added": ("tokenizer.json", json.dumps(definition("BPE", added_tokens=[added_token(long, 500)])).encode()),
        "merges": ("bpe_simple_vocab_16e6.txt.gz", gzip.compress(b"a b\n" * 50_000_000, 1)),
    }
    for name, (file, data) in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in files)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a panic says so on the terminal"
    said = dict(zip(files, done.stdout.splitlines(), strict=True))
    for name, why in {
        "doubling": "normalizer makes 1,099,511,627,776 characters of one; at most 256",
        "long": "normalizer makes 100,000 characters of one",
        "regex": "normalizer makes 10,001 characters of one",
        "prepend": "normalizer makes 10,000,000 characters before a text",
        "map": "character map leads outside itself",
        "numbers": "a number of more than 64 bits",
        "piece": "a piece of 100,000 characters",
        "added": "a piece of 100,000 characters",
        "merges": "unpacks to more than 16,000,000 bytes",
    }.items():
        assert why in said[name], said[name]
        assert float(said[name].split()[0]) < 3


@pytest.mark.parametrize(
    "units, texts, why",
    [
        ([], b"", "ends early"),
        ([0] * 255, b"", "outside itself"),
        ([1 << 31, *[0] * 255], b"", "outside itself"),  # a value in the root's place
        ([0, 1 << 8 | 5 << 10, *[0] * 254], b"\xff\0", "not UTF-8"),
        ([0, 1 << 8, 1, *[(1 << 31) + 9] * 253, 1 << 8 | 2 << 10], b"abc\0", "outside"),
        ([1 << 8 | 1 << 10, (1 << 31) + 1, *[0] * 254], "é\0".encode(), "middle of a character"),
    ],
)
def test_fault_35_character_maps(units, texts, why):
    normalizer = {"type": "Precompiled", "precompiled_charsmap": character_map(units, texts)}
    with pytest.raises(BadCheckpoint, match=why):
        Tokenizer(definition("Unigram", normalizer=normalizer), {})


def test_a_character_map_that_is_whole():
    units = [0] * 256
    units[0xC3] = 0xC3 | (0xC3 ^ 1) << 10  # its children from place 1 on
    place = 1 ^ 0xA9
    units[place] = 0xA9 | 1 << 8 | (place ^ 2) << 10  # its value at place 2
    units[2] = 1 << 31 | 0
    made = definition(
        "Unigram", normalizer={"type": "Precompiled", "precompiled_charsmap": character_map(units, b"a\0")}
    )
    read = Tokenizer(made, {})
    assert read.encode("é") == read.encode("a")


def test_sentencepiece_maps_are_checked_and_read():
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    import io

    file = io.BytesIO()
    trainer.train(
        sentence_iterator=iter(["ﬁne ｆｕｌｌ words, ﷺ and more words"] * 50), model_writer=file, vocab_size=30,
        normalization_rule_name="nmt_nfkc", minloglevel=2,
    )  # fmt: skip
    tokenizer = Tokenizer(read_sentencepiece(file.getvalue()), {})
    assert tokenizer.encode("ﬁne ｆｕｌｌ") == tokenizer.encode("fine full")


def test_a_panic_while_encoding_is_one_line(monkeypatch):
    broken = {"type": "Precompiled", "precompiled_charsmap": character_map([1 << 20])}
    monkeypatch.setattr(tokenizer_limits, "check_character_map", lambda data: 1)
    tokenizer = Tokenizer(definition("Unigram", normalizer=broken), {})
    with pytest.raises(BadCheckpoint, match="cannot encode this text: index out of bounds"):
        tokenizer.encode("abc")


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(model(UNIGRAM))
    monkeypatch.setenv("REBUS_MAX_TOKENIZER_BYTES", "100")
    with pytest.raises(LimitExceeded, match="MAX_TOKENIZER_BYTES = 100"):
        load_tokenizer(tmp_path)


def test_decoders_that_grow():
    with pytest.raises(BadCheckpoint, match="decoder makes 1,000 characters of one"):
        Tokenizer(definition("Unigram", decoder=replace("a", "b" * 1000)), {})
