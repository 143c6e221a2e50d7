"""Many requests at once, each as if it were alone."""

import threading
import time

import pytest
import torch
from PIL import Image

import rebus
from rebus.core.errors import BadImage, BadText, NotFinite, RebusError, UnsupportedTask, UsageError
from rebus.serve import Batcher, Cancelled, OutOfMemory, QueueFull, TooLate
from rebus.serve.continuous import Request, Rows, _alike
from rebus.tasks.stream import pair_of
from tests import tiny
from tests.serve.conftest import image_of

QUESTIONS = ["what is red ?", "what is left of the circle ?", "where is the large blue square ?", "a"]
LENGTHS = [1, 3, 9, 14]


@pytest.fixture(scope="module")
def model():
    """One whose every weight matters, so that other prompts get other answers."""
    model = tiny.with_words(tiny.paligemma())
    torch.manual_seed(1)
    for weight in model.network.parameters():
        torch.nn.init.normal_(weight, std=0.25)
    return model


def pair_batch(model, text):
    (image, prompt), _ = pair_of(model, "ask", image_of(), text)
    return model.processor(images=[image], texts=[prompt])


def requests(number):
    return [(image_of(seed), QUESTIONS[seed % 4], LENGTHS[seed % 3]) for seed in range(number)]


def test_answers_are_those_of_single_calls(model):
    asked = requests(24)
    alone = [model.ask(image, text, max_new_tokens=length) for image, text, length in asked]
    assert len(set(alone)) > 8
    with Batcher(model, max_batch=5) as batcher:
        tickets = [batcher.submit("ask", i, t, max_new_tokens=n, stream=n == 9) for i, t, n in asked]
        assert [ticket.result() for ticket in tickets] == alone
        for ticket, (_, _, length), answer in zip(tickets, asked, alone, strict=True):
            assert ticket.usage.completion_tokens <= length
            if length == 9:
                assert "".join(ticket) == answer


def test_rows_decode_together_and_not_one_after_another(model):
    calls = []
    step = model.network.step
    model.network.step = lambda token, cache: calls.append(len(token)) or step(token, cache)
    try:
        with Batcher(model, max_batch=8) as batcher:
            first = batcher.submit("ask", image_of(), "a", max_new_tokens=40)
            while not calls:
                time.sleep(0.001)
            tickets = [batcher.submit("ask", image_of(seed), "a", max_new_tokens=12) for seed in range(7)]
            for ticket in (first, *tickets):
                ticket.result()
    finally:
        del model.network.step
    assert max(calls) >= 7
    assert len(calls) < 80


def test_sampled_answers_are_those_of_single_calls(model):
    options = {"strategy": "sample", "temperature": 1.5, "top_k": 40, "max_new_tokens": 8}
    alone = [model.caption(image_of(seed), seed=seed, **options) for seed in range(6)]
    assert len(set(alone)) == 6
    with Batcher(model) as batcher:
        tickets = [batcher.submit("caption", image_of(seed), seed=seed, **options) for seed in range(6)]
        assert [ticket.result() for ticket in tickets] == alone


def test_beams_and_encoders_share_batches(model):
    alone = model.caption(image_of(1), strategy="beam", num_beams=3, max_new_tokens=6)
    with Batcher(model) as batcher:
        together = [
            batcher.submit("caption", image_of(1), strategy="beam", num_beams=3, max_new_tokens=6),
            batcher.submit("ask", image_of(2), "a", max_new_tokens=6),
        ]
        assert together[0].result() == alone
        assert together[1].result() == model.ask(image_of(2), "a", max_new_tokens=6)


@pytest.mark.parametrize("name", ["virtex/scenes", "simvlm/scenes", "magic/scenes"])
def test_bundled_captioners_say_what_they_say_alone(name):
    model = rebus.load(name)
    images = [image_of(30_000 + number) for number in range(3)]
    with Batcher(model, max_batch=2) as batcher:
        alone = [model.caption(image, strategy="greedy", max_new_tokens=6) for image in images]
        tickets = [batcher.submit("caption", image, strategy="greedy", max_new_tokens=6) for image in images]
        assert [ticket.result() for ticket in tickets] == alone
        by_default = model.caption(images[0], max_new_tokens=6)
        assert batcher.submit("caption", images[0], max_new_tokens=6).result() == by_default
        pieces = list(batcher.submit("caption", images[0], stream=True, max_new_tokens=6))
        assert "".join(pieces) == "".join(model.stream("caption", images[0], max_new_tokens=6))
        assert len(pieces) > 2


def test_vectors_are_those_of_single_calls():
    model = tiny.with_words(tiny.siglip())
    alone = torch.stack([model.embed_images(image_of(seed))[0] for seed in range(9)])
    with Batcher(model) as batcher:
        tickets = [batcher.submit("embed_images", image_of(seed)) for seed in range(9)]
        found = torch.stack([ticket.result() for ticket in tickets])
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
        labels = [["dog", "cat"], ["red", "blue", "green"]]
        tickets = [batcher.submit("classify", image_of(seed), labels[seed % 2]) for seed in range(4)]
        for seed, ticket in enumerate(tickets):
            assert ticket.result().labels == model.classify(image_of(seed), labels[seed % 2]).labels


def test_an_image_that_comes_again_is_encoded_once():
    model = tiny.with_words(tiny.siglip())
    with Batcher(model) as batcher:
        first = batcher.submit("embed_images", image_of(5)).result()
        assert (batcher.features.hits, batcher.features.misses) == (0, 1)
        assert torch.equal(batcher.submit("embed_images", image_of(5)).result(), first)
        batcher.submit("classify", image_of(5), ["dog", "cat"]).result()
        batcher.submit("embed_images", image_of(6)).result()
        assert (batcher.features.hits, batcher.features.misses) == (2, 2)
    assert "embed_image" not in vars(model.network)
    with Batcher(model, cache_bytes=16 * 4 * 2) as batcher:
        for seed in (1, 2, 3, 1):
            batcher.submit("embed_images", image_of(seed)).result()
        assert (batcher.features.hits, batcher.features.held) == (0, 128)


def test_a_bad_request_fails_before_it_is_queued(model):
    with Batcher(model) as batcher:
        with pytest.raises(BadImage):
            batcher.submit("ask", b"no image", "a")
        with pytest.raises(BadText):
            batcher.submit("ask", image_of(), "")
        with pytest.raises(UnsupportedTask, match="embed_images"):
            batcher.submit("embed_images", image_of())
        with pytest.raises(UsageError):
            batcher.submit("ask", image_of(), "a", temprature=2.0).result()
        assert batcher.waiting == 0
    with pytest.raises(UsageError, match="closed"):
        batcher.submit("ask", image_of(), "a")


def test_a_request_that_breaks_the_model_fails_alone(model):
    """Images of one colour crash the encoder; answers to short questions become not a number after the first token."""
    start, step = model.network.start, model.network.step
    lengths = [int(pair_batch(model, text)["mask"].sum()) for text in QUESTIONS[:2]]
    short = min(lengths)
    assert short < max(lengths)

    def crashing(**batch):
        if any(float(row.std()) == 0 for row in batch["pixels"]):
            raise RuntimeError("a kernel failed")
        return start(**batch)

    def spoiling(token, cache):
        found = step(token, cache)
        spoiled = cache.next_position == short
        found.logits[spoiled] = torch.nan
        for value in found.cache.values:
            value[spoiled] = torch.nan
        return found

    asked = [(image_of(seed), QUESTIONS[seed % 2]) for seed in range(12)]
    alone = [model.ask(*one, max_new_tokens=8) for one in asked]
    model.network.start, model.network.step = crashing, spoiling
    try:
        with Batcher(model, max_batch=4) as batcher:
            good, bad = [], []
            for number, one in enumerate(asked):
                good.append(batcher.submit("ask", *one, max_new_tokens=8))
                if number % 3 == 0:
                    bad.append(batcher.submit("ask", Image.new("RGB", (32, 32), (90, 90, 90)), "a", max_new_tokens=8))
            found = []
            for ticket in good:
                try:
                    found.append(ticket.result(30))
                except NotFinite:
                    found.append(None)
            assert found == [None if lengths[n % 2] == short else answer for n, answer in enumerate(alone)]
            for ticket in bad:
                with pytest.raises(RebusError, match="failed on this request"):
                    ticket.result(30)
    finally:
        del model.network.start, model.network.step


def test_out_of_memory_fails_the_last_one_alone(model):
    step, full = model.network.step, [True]

    def scarce(token, cache):
        if full and len(token) > 2:
            full.clear()
            raise torch.OutOfMemoryError("no memory")
        return step(token, cache)

    rows = []
    model.network.step = scarce
    try:
        with Batcher(model, max_batch=4) as batcher:
            rows = [batcher.submit("ask", image_of(seed), "a", max_new_tokens=9) for seed in range(4)]
            failures = 0
            for seed, ticket in enumerate(rows):
                try:
                    assert ticket.result(30) == model.ask(image_of(seed), "a", max_new_tokens=9)
                except OutOfMemory:
                    failures += 1
        assert failures <= 1
        assert bool(failures) == (not full)
    finally:
        del model.network.step


class Slow:
    """Steps that take a while, so that something happens in between."""

    def __init__(self, model, seconds):
        self.model, self.seconds, self.steps = model, seconds, 0

    def __enter__(self):
        step = self.model.network.step

        def slow(token, cache):
            self.steps += 1
            time.sleep(self.seconds)
            return step(token, cache)

        self.model.network.step = slow
        return self

    def __exit__(self, *error):
        del self.model.network.step


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.001)


@pytest.mark.parametrize("options", [{}, {"strategy": "beam", "num_beams": 2}, {"stream": True}])
def test_a_cancelled_answer_ends_with_its_step(model, options):
    with Slow(model, 0.02) as slow, Batcher(model) as batcher:
        ticket = batcher.submit("ask", image_of(), "a", max_new_tokens=64, **options)
        wait_for(lambda: slow.steps > 2)
        ticket.cancel()
        steps = slow.steps
        with pytest.raises(Cancelled):
            ticket.result(10)
        assert slow.steps <= steps + 1
        wait_for(lambda: batcher.running == 0)


def test_what_waits_is_bounded_and_may_be_cancelled(model):
    with Slow(model, 0.01), Batcher(model, max_batch=1, max_queue=3) as batcher:
        first = batcher.submit("ask", image_of(), "a", max_new_tokens=400)
        wait_for(lambda: batcher.running)
        waiting = [batcher.submit("ask", image_of(), "a", max_new_tokens=2) for _ in range(3)]
        with pytest.raises(QueueFull) as error:
            batcher.submit("ask", image_of(), "a")
        assert error.value.retry_after >= 1
        waiting[1].cancel()
        wait_for(lambda: batcher.waiting == 2)
        with pytest.raises(Cancelled):
            waiting[1].result(10)
        assert not first.done
        first.cancel()
        assert waiting[0].result(60) == waiting[2].result(60)


def test_a_time_without_requests_makes_nobody_wait_longer(model):
    with Batcher(model) as batcher:
        before = batcher._pace
        for _ in range(3):
            time.sleep(0.4)
            batcher.submit("ask", image_of(), "a", max_new_tokens=1).result(60)
        assert batcher._pace < before


def test_an_answer_that_takes_too_long_is_given_up(model):
    with Slow(model, 0.02), Batcher(model, timeout=0.1) as batcher:
        with pytest.raises(TooLate):
            batcher.submit("ask", image_of(), "a", max_new_tokens=64).result(5)


def test_while_beams_are_searched_others_go_on(model):
    with Slow(model, 0.01), Batcher(model) as batcher:
        beams = batcher.submit("ask", image_of(), "a", strategy="beam", num_beams=2, max_new_tokens=400)
        wait_for(lambda: not batcher.waiting)
        assert batcher.submit("ask", image_of(), "a", max_new_tokens=4).result(60)
        assert not beams.done
        beams.cancel()


def test_close_ends_what_is_under_way(model):
    threads = threading.active_count()
    with Slow(model, 0.02):
        batcher = Batcher(model, max_batch=1)
        tickets = [batcher.submit("ask", image_of(), "a", max_new_tokens=64) for _ in range(3)]
        batcher.close()
    for ticket in tickets:
        with pytest.raises(RebusError, match="shutting down"):
            ticket.result(1)
    assert threading.active_count() == threads


def test_places_are_given_back_when_few_are_left(model):
    with Batcher(model, max_batch=8) as batcher:
        lengths = [2, 2, 2, 2, 2, 2, 20, 2]
        tickets = [batcher.submit("ask", image_of(seed), "a", max_new_tokens=n) for seed, n in enumerate(lengths)]
        for ticket in tickets:
            ticket.result(60)
        wait_for(lambda: batcher._rows.rows == [])
        assert batcher._rows.cache is None


def prompt_of(length, room=8):
    batch = {"tokens": torch.ones(1, length, dtype=torch.int64), "mask": torch.ones(1, length, dtype=torch.bool)}
    return Request(ticket=None, batch=batch, room=room, stops=None, text=None, streams=False)  # type: ignore[arg-type]


def test_a_far_longer_prompt_waits_until_few_rows_are_left(model):
    rows = Rows(model.network, place=lambda batch: batch, most=8)
    assert rows.admits([]) == 0
    assert rows.admits([prompt_of(10)] * 20) == 8
    assert rows.admits([prompt_of(10)] * 5 + [prompt_of(2000)] + [prompt_of(10)]) == 5  # and those behind it with it
    rows.rows = [prompt_of(10), None, prompt_of(12)]
    assert rows.admits([prompt_of(2000), prompt_of(10)]) == 2  # 4 × 2,008 slots: as few as they could be
    rows.rows = [prompt_of(10)] * 4
    assert rows.admits([prompt_of(2000)]) == 0
    rows.rows = []
    assert rows.admits([prompt_of(2000)]) == 1


def test_prompts_are_not_padded_to_more_than_twice_their_length():
    groups = _alike([prompt_of(length) for length in (9, 12, 15, 16, 30, 700)])
    assert [[one.batch["tokens"].shape[1] for one in group] for group in groups] == [[9, 12, 15], [16, 30], [700]]
