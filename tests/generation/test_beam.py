import itertools

import pytest
import torch

from rebus.core.errors import NotFinite
from rebus.generation import Beam, generate
from rebus.generation.constraints import Constraints
from rebus.generation.stopping import Stops
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


class SixTokens(TinyWriter):
    """The same with the first six tokens of its vocabulary alone."""

    def start(self, **inputs):
        step = super().start(**inputs)
        return step._replace(logits=step.logits[:, :6])

    def step(self, token, cache):
        step = super().step(token, cache)
        return step._replace(logits=step.logits[:, :6])


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_beams_for_all_beginnings_equal_an_exhaustive_search_to_depth_5(seed, length_penalty):
    """Six tokens: 5⁴ beginnings of four tokens go on, and each ends where its end token comes. Beams find the best of
    all sentences, and further ones in order."""
    network, room = SixTokens(seed, sharp=1.0), 5
    whole = [text for text in itertools.product(range(6), repeat=room) if EOS not in text[:-1]]
    ended = [(*text, EOS) for n in range(room - 1) for text in itertools.product(range(6), repeat=n) if EOS not in text]
    texts = whole + ended
    targets = torch.full((len(texts), room), PAD)
    for row, text in enumerate(texts):
        targets[row, : len(text)] = torch.tensor(text)
    real = torch.arange(room) < torch.tensor([len(text) for text in texts])[:, None]
    with torch.no_grad():
        logits = network(tokens=PROMPTS[:1].expand(len(texts), -1), targets=targets).logits.log_softmax(-1)
    each = (logits.gather(-1, targets[..., None])[..., 0] * real).sum(1) / real.sum(1) ** length_penalty
    best = each.topk(3)

    search = Beam(num_beams=5**4, length_penalty=length_penalty, early_stopping="never")
    stops, free = Stops(EOS, None, None), Constraints(None, 0, None)
    found, lengths = search.candidates(
        network, {"tokens": PROMPTS[:1]}, room, stops=stops, constraints=free, pad_id=PAD
    )
    for place, index in enumerate(best.indices.tolist()):
        assert tuple(found[0, place, : lengths[0, place]].tolist()) == texts[index]
    chosen = beam(network, PROMPTS[:1], num_beams=5**4, length_penalty=length_penalty, max_new_tokens=room,
                  early_stopping="never")[0].tolist()  # fmt: skip
    assert tuple(chosen[: len(texts[best.indices[0]])]) == texts[best.indices[0]]


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
