"""Pairs: the paper's formula, editing without a trace, and answers that name their sources."""

import pytest
import torch

from rebus.core.errors import NotFinite, UnknownName, UsageError
from rebus.models.training_free.pairs import Pairs, PairsConfig


def world(n=400, seed=0, classes=12):
    """Two different random networks look at the same hidden content (a tiny version of the paper's setting)."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.Generator().manual_seed(99)
    centres = torch.randn(classes, 16, generator=hidden)
    eyes = [(torch.randn(16, 48, generator=hidden) / 4, torch.randn(48, w, generator=hidden) / 7) for w in (29, 41)]
    label = torch.randint(0, classes, (n,), generator=g)
    content = centres[label] + 0.6 * torch.randn(n, 16, generator=g)
    image, text = (torch.tanh((content + 0.4 * torch.randn(n, 16, generator=g)) @ a) @ b for a, b in eyes)
    prompts = torch.tanh(centres @ eyes[1][0]) @ eyes[1][1]
    return image, text, label, prompts


def transcription(image, text, rows_i, rows_t, k, p):
    """The formula of the paper in float64, dense."""

    def describe(v, rows):
        s = torch.nn.functional.normalize(v.double(), dim=1) @ torch.nn.functional.normalize(rows.double(), dim=1).T
        s = s.clamp(min=0)
        values, at = s.topk(k, dim=1)
        r = torch.zeros_like(s).scatter(1, at, values) ** p
        return torch.nn.functional.normalize(r, dim=1, eps=1e-300)

    return describe(image, rows_i) @ describe(text, rows_t).T


@pytest.mark.parametrize(("k", "p"), [(1, 1.0), (30, 8.0), (400, 2.5)])
def test_equals_the_formula(k, p):
    image, text, *_ = world()
    queries_i, queries_t, *_ = world(70, seed=1)
    pairs = Pairs.of(image, text, k=k, p=p)
    expected = transcription(queries_i, queries_t, image, text, k, p)
    assert (pairs(queries_i, queries_t) - expected).abs().max() < 1e-6
    dense = pairs.describe_images(queries_i).dense() @ pairs.describe_texts(queries_t).dense().T
    assert (dense - expected).abs().max() < 1e-6


def test_accuracy_grows_with_pairs_and_rests_on_the_pairing():
    queries, _, label, prompts = world(150, seed=2)

    def accuracy(n, shuffle=False):
        image, text, *_ = world(n)
        text = text[torch.randperm(n, generator=torch.Generator().manual_seed(0))] if shuffle else text
        return float((Pairs.of(image, text, k=50, p=4)(queries, prompts).argmax(1) == label).float().mean())

    few, many = accuracy(30), accuracy(600)
    assert many > few > 0.2
    assert many > 0.7
    assert accuracy(600, shuffle=True) < 0.3


def test_removing_equals_never_having_added_bit_by_bit():
    image, text, *_ = world()
    queries_i, queries_t, *_ = world(20, seed=1)
    names = [f"p{i}" for i in range(400)]
    gone = names[3:390:7]
    stay = [i for i, name in enumerate(names) if name not in gone]
    pairs = Pairs.of(image, text, k=60, ids=names, captions=[n.upper() for n in names])
    pairs.remove(gone)
    never = Pairs.of(image[stay], text[stay], k=60, ids=[names[i] for i in stay])
    assert torch.equal(pairs(queries_i, queries_t), never(queries_i, queries_t))
    assert pairs.ids == never.ids
    assert len(pairs) == len(pairs.cfg.captions) == len(stay)


def test_added_pairs_count_and_can_be_taken_back():
    image, text, *_ = world()
    queries_i, queries_t, *_ = world(20, seed=1)
    pairs = Pairs.of(image[:300], text[:300], k=60)
    before = pairs(queries_i, queries_t)
    new = [f"new{i}" for i in range(100)]
    pairs.add(image[300:], text[300:], new, captions=new)
    assert torch.equal(pairs(queries_i, queries_t), Pairs.of(image, text, k=60)(queries_i, queries_t))
    pairs.remove(new)
    assert torch.equal(pairs(queries_i, queries_t), before)


def test_an_explanation_adds_up_to_the_score():
    image, text, *_ = world()
    queries_i, queries_t, *_ = world(1, seed=1)
    pairs = Pairs.of(image, text, k=80, p=4, captions=[f"caption {i}" for i in range(400)])
    parts = pairs.explain(queries_i[0], queries_t[0])
    assert sum(c.contribution for c in parts) == pytest.approx(float(pairs(queries_i, queries_t)), abs=1e-6)
    assert parts == sorted(parts, key=lambda c: -c.contribution)
    assert parts[0].caption == f"caption {parts[0].id}"
    assert pairs.explain(queries_i[0], queries_t[0], top=2) == parts[:2]
    pairs.remove([parts[0].id])
    assert pairs.explain(queries_i[0], queries_t[0])[0].id != parts[0].id


def test_descriptions_that_do_not_meet_score_zero_and_nothing_is_not_a_number():
    pairs = Pairs.of(torch.eye(2), torch.eye(2), k=1)
    scores = pairs(torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, -1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert scores.tolist() == [[0, 1], [0, 0], [0, 0]]


def test_rows_of_a_classifier_are_compared_by_its_softmax():
    torch.manual_seed(0)
    rows, bias, features, texts = torch.randn(9, 5), torch.randn(9), torch.randn(3, 5), torch.randn(2, 4)
    cfg = PairsConfig(
        ids=tuple("abcdefghi"), image_width=5, text_width=4, k=6, p=4, image_similarity="classifier", temperature=3.0
    )
    pairs = Pairs(cfg)
    pairs.image, pairs.text, pairs.bias = rows, torch.randn(9, 4), bias
    likely = ((features.double() @ rows.double().T + bias) / 3).softmax(1)
    values, at = likely.topk(6)
    expected = torch.nn.functional.normalize(torch.zeros_like(likely).scatter(1, at, values) ** 4, dim=1)
    assert (pairs.describe_images(features).dense() - expected).abs().max() < 1e-6
    before = pairs(features, texts)
    pairs.add(torch.randn(1, 5), torch.randn(1, 4), ["j"], bias=torch.randn(1))
    pairs.remove(["j"])
    assert torch.equal(pairs(features, texts), before)


def test_mistakes_are_named_and_change_nothing():
    image, text, *_ = world(20)
    pairs = Pairs.of(image, text, ids=[f"p{i}" for i in range(20)])
    with pytest.raises(UnknownName, match='"p77"'):
        pairs.remove(["p3", "p77"])
    with pytest.raises(UsageError, match='"p3" exists already'):
        pairs.add(image[:1], text[:1], ["p3"])
    with pytest.raises(UsageError, match="20 and 19"):
        Pairs.of(image, text[1:])
    with pytest.raises(UsageError, match="different ids; got 1 of 20"):
        Pairs.of(image, text, ids=["x"] * 20)
    with pytest.raises(UsageError, match=r"\(n, 29\); got \(20, 41\)"):
        pairs(text, text)
    with pytest.raises(UsageError, match="biases"):
        pairs.add(image[:1], text[:1], ["q"], bias=torch.zeros(1))
    assert len(pairs) == 20


def test_a_weight_counts_as_so_many_copies():
    image, text, *_ = world(60)
    queries_i, queries_t, *_ = world(9, seed=1)
    pairs = Pairs.of(image, text, k=60, p=3)
    pairs.weigh(["4", "7"], 3)
    copies = Pairs.of(torch.cat([image, image[[4, 4, 7, 7]]]), torch.cat([text, text[[4, 4, 7, 7]]]), k=64, p=3)
    torch.testing.assert_close(pairs(queries_i, queries_t), copies(queries_i, queries_t), atol=1e-6, rtol=0)
    parts = pairs.explain(queries_i[0], queries_t[0])
    assert sum(c.contribution for c in parts) == pytest.approx(float(pairs(queries_i, queries_t)[0, 0]), abs=1e-6)
    assert {c.weight for c in parts if c.id in ("4", "7")} <= {3.0}
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="above 0"):
            pairs.weigh(["4"], wrong)
    with pytest.raises(UnknownName):
        pairs.weigh(["4", "x"], 2)
    twin = pairs.with_settings(k=5)
    twin.weigh(["1"], 9)
    twin.remove(["2"])
    assert float(pairs.weights[1]) == 1
    assert len(pairs) == 60


def test_edits_in_any_order_leave_what_a_fresh_table_would_hold():
    image, text, *_ = world(300)
    queries_i, queries_t, *_ = world(5, seed=1)
    pairs = Pairs.of(image[:100], text[:100], k=40, p=3)
    for i in range(100, 300):
        pairs.add(image[i : i + 1], text[i : i + 1], [str(i)])
    twin = pairs.with_settings()
    pairs.remove(["7", "150", "299"])
    twin.add(image[:1], text[:1], ["other"])
    pairs.add(image[7:8], text[7:8], ["7"])
    order = [*(i for i in range(300) if i not in (7, 150, 299)), 7]
    fresh = Pairs.of(image[order], text[order], k=40, p=3, ids=[str(i) for i in order])
    assert torch.equal(pairs(queries_i, queries_t), fresh(queries_i, queries_t))
    assert pairs.ids == fresh.ids
    assert pairs.cfg == fresh.cfg
    assert torch.equal(pairs.state_dict()["text"], fresh.text)
    assert torch.equal(pairs.describe_images(queries_i).dense(), fresh.describe_images(queries_i).dense())
    assert len(twin) == 301


def test_vectors_that_are_no_numbers_are_refused():
    image, text, *_ = world(10)
    pairs = Pairs.of(image.half(), text.half())
    for bad in (float("nan"), float("inf"), 1e6):  # the last is beyond float16
        vector = image[:1].clone()
        vector[0, 3] = bad
        with pytest.raises(NotFinite, match='"new": its image vector'):
            pairs.add(vector, text[:1], ["new"])
    assert len(pairs) == 10
