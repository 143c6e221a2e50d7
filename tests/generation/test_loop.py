from types import SimpleNamespace

import pytest
import torch

from rebus.core.capabilities import WritesText
from rebus.core.errors import UnknownName, UsageError
from rebus.generation import OPTIONS, Guidance, generate, score_tokens, stream
from rebus.generation.decoding_state import has_fixed_rows
from tests.generation.tiny_writer import EOS, PAD, PROMPTS, VOCAB, TinyWriter

IDS = {"eos_id": EOS, "pad_id": PAD}
EVERY_STRATEGY = [
    {"strategy": "greedy"},
    {"strategy": "greedy", "no_repeat_ngram_size": 2},
    {"strategy": "sample", "seed": 7, "top_k": 5, "top_p": 0.9, "temperature": 0.8},
    {"strategy": "beam", "num_beams": 3},
    {"strategy": "contrastive", "k": 4, "alpha": 0.5},
]


def test_the_tiny_writer_writes_text():
    assert isinstance(TinyWriter(), WritesText)


def test_greedy_takes_the_most_probable_token_each_time():
    network = TinyWriter()
    tokens = generate(network, {"tokens": PROMPTS[:1]}, **IDS, max_new_tokens=6)
    so_far = PROMPTS[:1]
    for token in tokens[0]:
        logits = network.start(room=1, tokens=so_far).logits
        assert token == logits.argmax()
        so_far = torch.cat([so_far, token.view(1, 1)], dim=1)


@pytest.mark.parametrize("options", EVERY_STRATEGY, ids=str)
def test_what_was_written_can_be_trained_on(options):
    tokens = generate(TinyWriter(), {"tokens": PROMPTS}, **IDS, max_new_tokens=4, **options)
    assert not tokens.is_inference()
    table = torch.nn.Embedding(VOCAB, 3)
    table(tokens).sum().backward()
    assert table.weight.grad is not None


@pytest.mark.parametrize("options", EVERY_STRATEGY, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_a_batch_changes_nothing(options, seed):
    network = TinyWriter(seed)
    together = generate(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=9, **options)
    backwards = generate(network, {"tokens": PROMPTS.flip(0)}, **IDS, max_new_tokens=9, **options).flip(0)
    assert torch.equal(together, backwards)
    for row, prompt in zip(together, PROMPTS, strict=True):
        alone = generate(network, {"tokens": prompt[None]}, **IDS, max_new_tokens=9, **options)[0]
        assert torch.equal(row[: len(alone)], alone)
        assert (row[len(alone) :] == PAD).all()


@pytest.mark.parametrize("options", EVERY_STRATEGY, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_on_either_side(options, side):
    network = TinyWriter(1)
    plain = generate(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=6, **options)
    fill = torch.full((len(PROMPTS), 2), 7)
    parts = [(fill, False), (PROMPTS, True)] if side == "left" else [(PROMPTS, True), (fill, False)]
    tokens = torch.cat([part for part, _ in parts], dim=1)
    mask = torch.cat([torch.full_like(part, real, dtype=torch.bool) for part, real in parts], dim=1)
    padded = generate(network, {"tokens": tokens, "mask": mask}, **IDS, max_new_tokens=6, **options)
    assert torch.equal(plain, padded)


def test_rows_are_padded_after_their_end_token():
    tokens = generate(TinyWriter(3), {"tokens": PROMPTS}, **IDS, max_new_tokens=20)
    ended = [row for row in tokens.tolist() if EOS in row]
    assert ended, "the test expects a writer that ends some rows"
    for row in ended:
        assert set(row[row.index(EOS) + 1 :]) <= {PAD}


def test_rows_that_ended_leave_the_batch():
    network = TinyWriter(3)
    tokens = generate(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=20)
    assert network.rows_stepped < tokens.shape[1] * len(PROMPTS)


@pytest.mark.parametrize("options", EVERY_STRATEGY, ids=str)
def test_a_compiled_writer_gives_the_same_and_its_batch_never_changes(options):
    network, expected = TinyWriter(3), generate(TinyWriter(3), {"tokens": PROMPTS}, **IDS, max_new_tokens=15, **options)
    step, widths = network.step, set()

    def compiled(token, cache):
        widths.add(len(token))
        return step(token, cache)

    compiled._torchdynamo_orig_callable = step  # what torch.compile leaves on what it returns
    network.step = compiled
    assert torch.equal(generate(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=15, **options), expected)
    assert len(widths) == 1
    widths.clear()
    texts = expected.masked_fill(expected == PAD, 5)
    found = score_tokens(network, {"tokens": PROMPTS}, texts, rows_at_once=4)
    torch.testing.assert_close(found, score_tokens(TinyWriter(3), {"tokens": PROMPTS}, texts), atol=1e-5, rtol=0)
    assert widths == {4}


def test_torch_compile_leaves_what_tells_it_apart():
    assert has_fixed_rows(SimpleNamespace(step=torch.compile(TinyWriter().step)))
    assert not has_fixed_rows(TinyWriter())


def test_several_end_tokens():
    free = generate(TinyWriter(), {"tokens": PROMPTS[:1]}, eos_id=None, pad_id=PAD, max_new_tokens=8)
    stop_at = int(free[0, 3])
    tokens = generate(TinyWriter(), {"tokens": PROMPTS[:1]}, eos_id=[EOS, stop_at], pad_id=PAD, max_new_tokens=8)
    assert tokens.shape[1] == free[0].tolist().index(stop_at) + 1


@pytest.mark.parametrize("options", [o for o in EVERY_STRATEGY if o["strategy"] != "beam"], ids=str)
def test_streaming_equals_generate(options):
    network = TinyWriter(3)
    together = generate(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=12, **options)
    pieces = list(stream(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=12, **options))
    assert all(piece.shape == (len(PROMPTS),) for piece in pieces)
    assert torch.equal(torch.stack(pieces, dim=1), together)


def test_closing_a_stream_ends_the_writing():
    network = TinyWriter()
    pieces = stream(network, {"tokens": PROMPTS}, eos_id=None, pad_id=PAD, max_new_tokens=50)
    next(pieces), next(pieces)
    pieces.close()
    assert network.rows_stepped == len(PROMPTS)
    assert torch.is_grad_enabled()


def test_gradients_are_as_before_between_the_pieces_of_a_stream():
    for _ in stream(TinyWriter(), {"tokens": PROMPTS}, **IDS, max_new_tokens=3):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("options", [{}, {"strategy": "contrastive", "alpha": 0.5}], ids=str)
def test_on_token_tells_the_probability_of_each_token(options):
    heard = []
    tokens = generate(
        TinyWriter(3),
        {"tokens": PROMPTS},
        **IDS,
        max_new_tokens=12,
        on_token=lambda *column: heard.append([x.clone() for x in column]),
        **options,
    )
    assert torch.equal(torch.stack([column for column, _ in heard], dim=1), tokens)
    ended = (tokens == EOS).cumsum(1) - (tokens == EOS).int() > 0
    expected = score_tokens(TinyWriter(3), {"tokens": PROMPTS}, tokens.masked_fill(ended, -100))
    torch.testing.assert_close(torch.stack([logs for _, logs in heard], dim=1), expected, atol=1e-5, rtol=0)


def test_beam_has_no_tokens_to_tell():
    with pytest.raises(UsageError, match="cannot call on_token"):
        generate(TinyWriter(), {"tokens": PROMPTS}, **IDS, strategy="beam", on_token=print)


def test_beam_cannot_stream():
    with pytest.raises(UsageError, match="beam search cannot stream"):
        stream(TinyWriter(), {"tokens": PROMPTS}, **IDS, strategy="beam")


def test_the_last_token_costs_no_step():
    network = TinyWriter()
    generate(network, {"tokens": PROMPTS}, eos_id=None, pad_id=PAD, max_new_tokens=5)
    assert network.rows_stepped == 4 * len(PROMPTS)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"strategy": "beem"}, 'did you mean "beam"'),
        ({"top_k": 5}, 'top_k belongs to the strategy "sample"; this call decodes with "greedy"'),
        ({"tempreature": 1.0}, 'did you mean "temperature"'),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1; got 0"),
        ({"strategy": "sample", "temperature": 0.0}, "temperature must be above 0"),
        ({"strategy": "sample", "top_k": 0}, "top_k must be at least 1"),
        ({"strategy": "sample", "top_p": 1.5}, "top_p must be above 0 and at most 1; got 1.5"),
        ({"strategy": "sample", "seed": [1, 2]}, "one for each of the 6 rows; got 2"),
        ({"strategy": "beam", "num_beams": 0}, "num_beams must be at least 1"),
        ({"strategy": "beam", "early_stopping": "soon"}, "early_stopping expects"),
        ({"strategy": "contrastive", "k": 0}, "k must be at least 1"),
        ({"strategy": "contrastive", "alpha": 2.0}, "alpha must be between 0 and 1"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be 0"),
        ({"allowed": []}, "allowed is empty"),
        ({"stop": "a"}, "stop strings need decode"),
    ],
    ids=str,
)
def test_wrong_options_say_what_to_do(options, message):
    with pytest.raises(UsageError, match=message):
        generate(TinyWriter(), {"tokens": PROMPTS}, **IDS, **options)


def test_an_unknown_strategy_is_an_unknown_name():
    with pytest.raises(UnknownName, match="greedy, sample, beam, contrastive"):
        generate(TinyWriter(), {"tokens": PROMPTS}, **IDS, strategy="x")


def test_what_is_no_tensor_is_no_part_of_a_batch():
    with pytest.raises(UsageError, match='no decoding option "num_beam"; did you mean "num_beams"'):
        generate(TinyWriter(), {"tokens": PROMPTS, "num_beam": 3}, **IDS)


def test_options_name_every_field():
    assert {"strategy", "max_new_tokens", "seed", "num_beams", "alpha", "stop", "guidance"} <= OPTIONS


def test_guidance_of_scale_one_is_the_first_prompt_alone():
    network = TinyWriter()
    plain = generate(network, {"tokens": PROMPTS}, **IDS, max_new_tokens=6)
    guided = generate(
        network,
        {"tokens": PROMPTS},
        **IDS,
        max_new_tokens=6,
        guidance=Guidance(scale=1.0, batch={"tokens": PROMPTS[:1]}),
    )
    assert torch.equal(plain, guided)


def test_a_number_is_no_guidance_for_text():
    with pytest.raises(UsageError, match=r"guidance of text is a rebus\.generation\.Guidance.*got 2\.0 \(a number is"):
        generate(TinyWriter(), {"tokens": PROMPTS}, **IDS, guidance=2.0)


@pytest.mark.parametrize("options", EVERY_STRATEGY, ids=str)
def test_every_strategy_takes_guidance(options):
    guidance = Guidance(scale=2.0, batch={"tokens": PROMPTS[:1, :2]})
    tokens = generate(TinyWriter(), {"tokens": PROMPTS}, **IDS, max_new_tokens=6, guidance=guidance, **options)
    alone = generate(TinyWriter(), {"tokens": PROMPTS[4:5]}, **IDS, max_new_tokens=6, guidance=guidance, **options)
    assert torch.equal(tokens[4, : alone.shape[1]], alone[0])
    assert int(tokens.max()) < VOCAB
