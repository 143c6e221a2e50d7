import pytest

from rebus.core.errors import UsageError
from rebus.generation import cut, generate, stream
from rebus.generation.stopping import Stops
from tests.generation.tiny_writer import EOS, PAD, PROMPTS, TinyWriter

PIECES = ["", "", "a", "b ", "ca", "t", " do", "g", "\n", "z", "e", "f", "h"]


def decode(ids):
    return "".join(PIECES[i] for i in ids)


def test_a_stop_string_may_span_tokens():
    stops = Stops(EOS, "cat dog", decode)
    assert not stops.ends([4, 5, 6])
    assert stops.ends([4, 5, 6, 7])
    assert stops.ends([2] * 50 + [4, 5, 6, 7])
    assert stops.ends([EOS])


def test_each_row_stops_at_its_own_string():
    free = generate(TinyWriter(), {"tokens": PROMPTS}, eos_id=None, pad_id=PAD, max_new_tokens=10)
    stop = decode(free[0, 2:5].tolist())
    assert len(stop) > 1
    options = {"eos_id": None, "pad_id": PAD, "max_new_tokens": 10, "stop": [stop], "decode": decode}
    stopped = generate(TinyWriter(), {"tokens": PROMPTS}, **options)
    for row, whole in zip(stopped.tolist(), free.tolist(), strict=True):
        end = next((n for n in range(1, 11) if stop in decode(whole[:n])), 10)
        assert row[:end] == whole[:end]
        assert set(row[end:]) <= {PAD}
    assert [c.tolist() for c in stream(TinyWriter(), {"tokens": PROMPTS}, **options)] == stopped.T.tolist()


def test_an_empty_stop_string_is_refused():
    with pytest.raises(UsageError, match="must not be empty"):
        Stops(EOS, ["a", ""], decode)


def test_cut_ends_before_the_first_stop_string():
    assert cut("a cat. a dog", [" dog", "."]) == "a cat"
    assert cut("a cat", None) == "a cat"


def test_sentences_are_counted_by_their_full_stops():
    spell = {3: "One", 4: " went", 5: ".", 6: " Two", 7: "...", 8: ' it."'}.__getitem__
    told = Stops(None, None, lambda ids: "".join(map(spell, ids)), max_sentences=2)
    assert not told.ends([3, 4, 5])
    assert not told.ends([3, 4, 5, 6])
    assert told.ends([3, 4, 5, 6, 5])
    assert told.ends([3, 4, 5, 8])
    assert cut("One went. Two stayed. Three", None, 2) == "One went. Two stayed."
    assert cut('He said it." Then', None, 1) == "He said it."
    assert cut("One went. Two", None, 2) == "One went. Two"
    with pytest.raises(UsageError, match="max_sentences must be at least 1"):
        Stops(None, None, decode, 0)
    with pytest.raises(UsageError, match="max_sentences needs decode"):
        Stops(None, None, None, 1)
