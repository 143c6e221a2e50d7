"""Spans that are hidden and written back: nothing is lost, nothing is added, and no draw depends on the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rebus import catalog
from rebus.core.labels import IGNORED
from rebus.objectives import Denoiser, Learner, NextTokenLoss, SpanCorruptionLoss, backward, split, ul2_denoisers

FIRST, END = 999, 1
UL2 = ul2_denoisers(regular=900, extreme=901, sequential=902)


def whole(read, written):
    """The text again: what was written in the places of the marks."""
    spans = {}
    for token in written[:-1]:
        if token > 902:
            spans[token] = current = []
        else:
            current.append(token)
    body = [part for token in read[:-1] for part in ([token] if token < 900 else spans.get(token, []))]
    return body, spans


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(2, 800), min_size=2, max_size=200), st.sampled_from(UL2))
def test_a_text_can_be_put_together_again(text, way):
    loss = SpanCorruptionLoss(sentinel=FIRST, num_sentinels=50, denoisers=(way,))
    rows = loss.corrupted(torch.tensor([[*text, END]]))
    read, written = rows["tokens"][0].tolist(), rows["targets"][0].tolist()
    assert read[0] == way.mode
    assert read[-1] == written[-1] == END
    found, spans = whole(read, written)
    assert found == text
    assert all(spans.values())
    assert list(spans) == [FIRST - i for i in range(len(spans))]
    hidden = sum(map(len, spans.values()))
    if way.span == 0:
        assert read[-2] == FIRST  # the end of the text
        assert hidden <= max(1, round(2 * way.share * len(text)))
    else:
        assert hidden == min(max(round(way.share * len(text)), 1), len(text) - 1)
        assert len(spans) == min(max(round(hidden / way.span), 1), hidden, len(text) - hidden, 50)


def test_all_ways_are_drawn_and_spans_have_their_length_on_average():
    loss = SpanCorruptionLoss(sentinel=FIRST, denoisers=UL2)
    texts = torch.from_numpy(np.random.default_rng(0).integers(2, 800, (300, 100)))
    modes = loss.corrupted(texts)["tokens"][:, 0].tolist()
    assert {900, 901, 902} == set(modes)
    assert 2 / 7 - 0.1 < modes.count(900) / 300 < 2 / 7 + 0.1
    plain = SpanCorruptionLoss(sentinel=FIRST, denoisers=(Denoiser(),)).corrupted(texts)["targets"]
    assert (plain > 902).sum(dim=1).tolist() == [5] * 300  # 15 tokens in spans of 3
    assert len({tuple(row) for row in (plain > 902).int().tolist()}) > 100


def test_rows_do_not_depend_on_their_batch_or_its_padding():
    loss = SpanCorruptionLoss(sentinel=FIRST, denoisers=UL2)
    texts = torch.randint(2, 800, (3, 40), generator=torch.Generator().manual_seed(0))
    texts[1, 12:] = IGNORED
    texts[2, 1:] = IGNORED
    together = loss.corrupted(texts)
    for row in range(3):
        alone = loss.corrupted(texts[row][texts[row] != IGNORED][None])
        real = together["mask"][row]
        assert together["tokens"][row, real].tolist() == alone["tokens"][0].tolist()
        written = together["targets"][row]
        assert written[written != IGNORED].tolist() == alone["targets"][0].tolist()
    assert together["tokens"][2, together["mask"][2]].tolist() == [END]  # a single token is written whole


@pytest.fixture
def network():
    torch.manual_seed(0)
    system = catalog.system("pali3")
    return system.network(system.presets["tiny"])


def test_images_are_answered_as_ever_and_text_alone_is_corrupted(network):
    batch = catalog.system("pali3").example(network.cfg, 3)
    loss = SpanCorruptionLoss(sentinel=95)
    assert torch.equal(loss(network, batch).total, NextTokenLoss()(network, batch).total)
    alone = {name: batch[name] for name in ("tokens", "targets")}
    corrupted = loss.corrupted(batch["targets"])
    assert torch.equal(loss(network, alone).total, NextTokenLoss()(network, corrupted).total)


def test_gradients_of_a_batch_in_parts_are_those_of_the_whole(network):
    targets = torch.randint(2, 80, (4, 20), generator=torch.Generator().manual_seed(1))
    batch = {"tokens": torch.ones(4, 1, dtype=torch.int64), "targets": targets}
    learner = Learner(SpanCorruptionLoss(sentinel=95), network)
    found = []
    for parts in (1, 2):
        network.zero_grad()
        backward(learner, split(batch, parts))
        found.append([p.grad.clone() for p in network.text.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
