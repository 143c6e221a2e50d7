import pytest
import torch

from rebus.core.errors import UsageError
from rebus.generation import generate
from rebus.generation.constraints import forbid_repeats, prompt_text
from tests.generation.tiny_writer import EOS, PAD, PROMPTS, TinyWriter

STRATEGIES = [
    {"strategy": "greedy"},
    {"strategy": "sample", "seed": 0},
    {"strategy": "beam", "num_beams": 3},
    {"strategy": "contrastive", "alpha": 0.8, "k": 6},
]


def write(**options):
    return generate(TinyWriter(), {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, **({"max_new_tokens": 8} | options))


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_only_allowed_tokens_are_written(options):
    assert set(write(allowed=[4, 9], **options).flatten().tolist()) <= {4, 9}


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_a_function_is_told_the_row_and_its_tokens(options):
    def grammar(row, tokens):
        return [2 + row] if len(tokens) < 2 else [9] if tokens[-1] != 9 else [EOS]

    tokens = write(allowed=grammar, **options)
    assert tokens.tolist() == [[2 + row, 2 + row, 9, EOS] for row in range(6)]


def test_a_function_that_allows_nothing_is_an_error():
    with pytest.raises(UsageError, match="no token for row 0"):
        write(allowed=lambda row, tokens: [])


def test_a_token_outside_the_vocabulary_is_an_error():
    with pytest.raises(UsageError, match="allowed names token 99; the model's vocabulary ends at 12"):
        write(allowed=[3, 99])


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
@pytest.mark.parametrize("size", [1, 2])
def test_no_ngram_is_written_twice(options, size):
    room = 8 if size == 2 else 5
    for prompt, row in zip(PROMPTS, write(no_repeat_ngram_size=size, max_new_tokens=room, **options), strict=True):
        row = row.tolist()
        row = row[: row.index(EOS) + 1] if EOS in row else row
        text = prompt.unique_consecutive().tolist() + row if size == 1 else prompt.tolist() + row
        ngrams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
        new = ngrams[len(ngrams) - len(row) :]
        assert len(set(new)) == len(new)
        assert not set(new) & set(ngrams[: len(ngrams) - len(row)])


def test_padding_is_no_word():
    scores = torch.zeros(1, 5)
    assert forbid_repeats(scores, torch.tensor([[-1, 2]]), 1).isinf().tolist() == [[False, False, True, False, False]]
    assert not forbid_repeats(scores, torch.tensor([[-1, -1, 2]]), 2).isinf().any()
    assert not forbid_repeats(scores, torch.tensor([[3]]), 2).isinf().any()


def test_the_prompt_is_text_only_where_the_answer_continues_it():
    tokens, mask = torch.tensor([[5, 6, 0], [7, 8, 9]]), torch.tensor([[True, True, False], [True] * 3])
    network = TinyWriter()
    assert prompt_text(network, {"tokens": tokens, "mask": mask}).tolist() == [[-1, 5, 6], [7, 8, 9]]
    assert prompt_text(network, {"pixels": torch.zeros(2, 3, 4, 4)}) is None
    network.encoder_decoder = True
    assert prompt_text(network, {"tokens": tokens}) is None


def test_a_pattern_allows_the_tokens_whose_text_it_matches_from_end_to_end():
    letters = {i: chr(ord("a") + i) for i in range(2, 10)} | {4: "12", 5: "e1"}

    def decode(ids):
        return "".join(letters.get(i, "") for i in ids)

    tokens = write(allowed="[a-z]|12", decode=decode)
    assert torch.equal(tokens, write(allowed=[2, 3, 4, 6, 7, 8, 9]))
    assert not torch.equal(tokens, write())
    for pattern, message in (
        ("[", "not a valid regular expression"),
        ("zebra", "no token of this model matches 'zebra'"),
    ):
        with pytest.raises(UsageError, match=message):
            write(allowed=pattern, decode=decode)
    with pytest.raises(UsageError, match="needs decode"):
        write(allowed="[a-z]")
