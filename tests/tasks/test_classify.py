import logging
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rebus.codec.text import TextPipeline
from rebus.core.errors import BadText, LimitExceeded, UnsupportedTask, UsageError
from rebus.tasks.classify import Classifier, classify
from rebus.tasks.embed import embed_images, embed_texts
from tests.tasks.fakes import COLOURS, TOKENIZER, picture, two_towers, writer


def test_two_towers_rank_by_scaled_similarity():
    model = two_towers(log_scale=2.0)
    ranking = classify(model, picture("green"), ["red", "green", "blue"])
    assert ranking.top == "green"
    assert sum(ranking.probabilities) == pytest.approx(1)
    assert list(ranking.probabilities) == sorted(ranking.probabilities, reverse=True)
    logits = embed_images(model, picture("green")) @ embed_texts(model, list(COLOURS)).T * torch.tensor(2.0).exp()
    expected = dict(zip(COLOURS, logits.softmax(-1)[0].tolist(), strict=True))
    assert dict(ranking) == pytest.approx(expected)


def test_sentences_are_normalised_averaged_and_normalised_again():
    model, templates = two_towers(), ["a very {}.", "{}", "the photo of a very very {}"]
    ranking = classify(model, picture("blue"), ["red", "blue"], templates)
    rows = []
    for label in ("red", "blue"):
        vectors = embed_texts(model, [t.replace("{}", label) for t in templates])
        rows.append(F.normalize(vectors.mean(0), dim=0))
    logits = embed_images(model, picture("blue")) @ torch.stack(rows).T * torch.tensor(2.0).exp()
    assert dict(ranking)["blue"] == pytest.approx(logits.softmax(-1)[0, 1].item())


def test_sentences_stay_candidates_where_the_network_does_not_average():
    model, templates = two_towers(), ["a very {}.", "{}"]
    model.network.averages_templates = False
    ranking = classify(model, picture("blue"), ["red", "blue"], templates)
    texts = embed_texts(model, [t.replace("{}", label) for label in ("red", "blue") for t in templates])
    logits = (embed_images(model, picture("blue")) @ texts.T).view(2, 2).amax(1) * torch.tensor(2.0).exp()
    assert dict(ranking)["blue"] == pytest.approx(logits.softmax(-1)[1].item())


def test_the_system_may_have_a_sentence_of_its_own():
    words = two_towers(classify="a very {}")
    assert classify(words, picture("red"), ["red", "blue"]) == classify(
        two_towers(), picture("red"), ["red", "blue"], "a very {}"
    )
    assert classify(words, picture("red"), ["red", "blue"], "plain") == classify(
        two_towers(), picture("red"), ["red", "blue"]
    )


def test_a_list_of_pictures_gives_a_list_and_rows_equal_single_results():
    pictures = [picture(c) for c in COLOURS] * 2
    rankings = classify(two_towers(), pictures, list(COLOURS), "imagenet")
    assert [r.top for r in rankings] == [*COLOURS, *COLOURS]
    for ranking, one in zip(rankings, pictures, strict=True):
        alone = classify(two_towers(), one, list(COLOURS), "imagenet")
        assert ranking.labels == alone.labels
        assert ranking.probabilities == pytest.approx(alone.probabilities)
    assert classify(two_towers(), [], ["red"]) == []


def test_a_classifier_reads_its_labels_once():
    model = two_towers()
    rank = Classifier(model, list(COLOURS))
    model.processor.text = None
    assert rank(picture("blue")) == classify(two_towers(), picture("blue"), list(COLOURS))
    assert [r.top for r in rank([picture("red"), picture("green")])] == ["red", "green"]


def test_fault_18_no_labels_is_an_error():
    with pytest.raises(UsageError, match="labels is empty"):
        classify(two_towers(), picture("red"), [])


def test_fault_18_one_label_is_certain():
    ranking = classify(two_towers(), picture("red"), ["blue"])
    assert (ranking.labels, ranking.probabilities) == (("blue",), (1.0,))


def test_fault_18_duplicates_are_merged_and_reported(caplog):
    with caplog.at_level(logging.WARNING, logger="rebus"):
        ranking = classify(two_towers(), picture("red"), ["red", "blue", "red"])
    assert sorted(ranking.labels) == ["blue", "red"]
    assert "merged: red" in caplog.text
    assert ranking == classify(two_towers(), picture("red"), ["red", "blue"])


def test_fault_18_very_many_labels(monkeypatch):
    labels = [f"dog {n}" for n in range(5_000)]
    assert len(classify(two_towers(), picture("red"), [*labels, "red"])) == 5_001
    monkeypatch.setenv("REBUS_MAX_LABELS", "4000")
    with pytest.raises(LimitExceeded, match="5,000 passes the limit MAX_LABELS = 4,000"):
        classify(two_towers(), picture("red"), labels)


@pytest.mark.parametrize("labels, message", [(["a", " "], r"labels\[1\]"), ([3], r"labels\[0\]")])
def test_fault_18_a_label_must_be_words(labels, message):
    with pytest.raises(BadText, match=message):
        classify(two_towers(), picture("red"), labels)


def test_a_text_instead_of_a_list_of_labels_is_refused():
    with pytest.raises(UsageError, match="labels expects a list"):
        classify(two_towers(), picture("red"), "red,blue")


def test_a_writer_ranks_by_likelihood():
    model = writer(lambda colour, prompt: f"a {colour} dog", sure=0.9)
    labels = ["a red dog", "a blue dog", "a red", "a blue cat"]
    ranking = classify(model, picture("red"), labels)
    assert ranking.top == "a red dog"
    assert set(model.network.prompts) == {"caption en"}
    other = torch.tensor(0.1 / (model.processor.text.tokenizer.vocab_size - 1)).log()
    sure = torch.tensor(0.9).log()
    # After the first wrong word the script goes on all the same.
    totals = torch.stack([4 * sure, 3 * sure + other, 2 * sure + other, 2 * sure + 2 * other])
    expected = dict(zip(labels, totals.softmax(0).tolist(), strict=True))
    assert dict(ranking) == pytest.approx(expected, abs=1e-6)


def test_a_writer_ranks_every_picture_as_if_alone():
    model = writer(lambda colour, prompt: colour)
    pictures = [picture(c) for c in ("red", "blue", "green", "red", "red", "blue")]
    rankings = classify(model, pictures, list(COLOURS))
    assert [r.top for r in rankings] == ["red", "blue", "green", "red", "red", "blue"]
    assert rankings[1] == classify(model, picture("blue"), list(COLOURS))


def test_a_writer_takes_templates_too():
    model = writer(lambda colour, prompt: f"a photo of a {colour} dog")
    assert classify(model, picture("blue"), ["red", "blue"], ["a photo of a {} dog", "{}"]).top == "blue"


def test_fault_14_a_label_is_never_a_control_token():
    model = writer(lambda colour, prompt: "<loc0001>")
    ranking = dict(classify(model, picture("red"), ["<loc0001>", "cat"]))
    assert ranking["<loc0001>"] < 0.99  # as the script's token it would be certain


def test_a_network_that_can_do_neither_is_unsupported():
    model = two_towers()
    model.network = torch.nn.Linear(1, 1)
    with pytest.raises(UnsupportedTask, match="cannot classify"):
        classify(model, picture("red"), ["red"])


def test_labels_that_the_model_reads_as_one_text_are_one_label(caplog):
    model = two_towers()
    model.processor.text = TextPipeline(TOKENIZER, replace(model.processor.text.spec, lower=True, canonical=True))
    ranking = classify(model, picture("red"), ["Red", "blue", "red ", "RED!", "green"])
    assert sorted(ranking.labels) == ["Red", "blue", "green"]
    assert dict(ranking)["Red"] == pytest.approx(dict(classify(model, picture("red"), ["red", "blue", "green"]))["red"])
    assert "merged: 'Red' = 'red ' = 'RED!'" in caplog.text


def test_labels_that_the_model_tells_apart_stay_apart(caplog):
    assert sorted(Classifier(two_towers(), ["Red", "red", " red"]).labels) == ["Red", "red"]
    assert "merged: 'red' = ' red'" in caplog.text
