import itertools

import pytest
import torch

from rebus.core.errors import NotFinite
from rebus.generation import generate
from tests.generation.tiny_writer import EOS, PAD, PROMPTS, VOCAB, TinyWriter


def beam(network, tokens, **options):
    options = {"max_new_tokens": 8} | options
    return generate(network, {"tokens": tokens}, eos_id=EOS, pad_id=PAD, strategy="beam", **options)


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_is_greedy(seed):
    network = TinyWriter(seed)
    greedy = generate(network, {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, max_new_tokens=8)
    assert torch.equal(beam(network, PROMPTS, num_beams=1), greedy)


def test_many_beams_find_the_best_sentence_of_all():
    network, room = TinyWriter(2, sharp=1.0), 2
    found = beam(network, PROMPTS[:1], num_beams=VOCAB, max_new_tokens=room, early_stopping="never")[0].tolist()

    best, best_score = None, float("-inf")
    for text in itertools.product(range(VOCAB), repeat=room):
        length = text.index(EOS) + 1 if EOS in text else room
        targets = torch.tensor([text[:length]])
        logits = network(tokens=PROMPTS[:1], targets=targets).logits.log_softmax(-1)
        score = logits.gather(-1, targets[..., None]).sum().item() / length
        if score > best_score:
            best, best_score = list(text[:length]), score
    assert found[: len(best)] == best


def test_a_longer_sentence_wins_with_a_larger_length_penalty():
    short = beam(TinyWriter(3), PROMPTS, num_beams=4, length_penalty=-2.0)
    long = beam(TinyWriter(3), PROMPTS, num_beams=4, length_penalty=4.0)
    assert (long != PAD).sum() > (short != PAD).sum()


def test_rows_that_are_decided_leave_the_batch():
    options = {"num_beams": 2, "max_new_tokens": 20, "early_stopping": True}
    single = 0
    for prompt in PROMPTS:
        network = TinyWriter(3)
        beam(network, prompt[None], **options)
        single += network.rows_stepped
    network = TinyWriter(3)
    beam(network, PROMPTS, **options)
    assert network.rows_stepped == single


def test_stop_strings_end_a_beam():
    network = TinyWriter(4)
    letters = "abcdefghijklm"
    tokens = generate(
        network,
        {"tokens": PROMPTS},
        eos_id=None,
        pad_id=PAD,
        strategy="beam",
        num_beams=3,
        max_new_tokens=10,
        stop=["l", "gh"],
        decode=lambda ids: "".join(letters[i] for i in ids),
    )
    texts = ["".join(letters[i] for i in row).rstrip("a") for row in tokens.tolist()]
    assert any(text.endswith(("l", "gh")) for text in texts)
    assert all("l" not in text[:-1] and "gh" not in text[:-1] for text in texts)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_not_numbers_are_refused_by_prompt(value):
    class Broken(TinyWriter):
        def start(self, **inputs):
            step = super().start(**inputs)
            step.logits[2, 4] = value
            return step

    with pytest.raises(NotFinite, match=r"prompt 2.*float32"):
        beam(Broken(4), PROMPTS, num_beams=2)
