import pytest

from rebus.core.answers import Ranking
from rebus.core.errors import RebusError, UsageError
from rebus.data.record import Record
from rebus.data.scenes import scene
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import ByteLRU, Seeing, Told, coloured, labelled, png


def test_scores_are_counted_by_class(tmp_path):
    path = labelled(tmp_path, 40)
    model = Seeing([scene(n, "test", count=1) for n in range(40)])
    result = measure(model, "zeroshot", path, layout="folder")
    scores, files = result.document["scores"], sorted(path.rglob("*.png"))
    labels = sorted({file.parent.name for file in files})
    right = [bool(int(file.stem) % 4) or file.parent.name == labels[0] for file in files]
    assert scores["top1"] == pytest.approx(sum(right) / len(files))
    assert scores["top5"] >= scores["top1"]
    by_class = {
        label: sum(r for r, f in zip(right, files, strict=True) if f.parent.name == label)
        / sum(f.parent.name == label for f in files)
        for label in labels
    }
    assert scores["by_class"] == pytest.approx(by_class)
    assert scores["mean_per_class"] == pytest.approx(sum(by_class.values()) / len(by_class))
    assert result.document["data"]["layout"] == "folder"
    assert result.document["data"]["used"] == len(files)
    assert [mistake.said.startswith(labels[0]) for mistake in result.outcome.worst] == [True] * right.count(False)


def named(label):
    """Says always the same label."""

    def classify(images, labels, templates=None):
        order = (label, *(one for one in labels if one != label))
        return [Ranking(order, (0.9, *[0.1 / (len(order) - 1)] * (len(order) - 1))) for _ in images]

    return Told(classify=classify)


def test_labels_by_other_names(tmp_path):
    records = [Record(key=str(n), image=png(tmp_path, n), label=f"n{n % 2}") for n in range(4)]
    names = {"n0": "cat", "n1": "dog"}
    scores = measure(named("dog"), "zeroshot", ByteLRU(records, ["n0", "n1"]), labels=names).document["scores"]
    assert scores == {"top1": 0.5, "mean_per_class": 0.5, "by_class": {"cat": 0.0, "dog": 1.0}}  # no top 5 of two


def test_more_candidates_than_the_data_set_has(tmp_path):
    records = [Record(key="a", image=png(tmp_path, 0), label="cat")]
    result = measure(named("dog"), "zeroshot", ByteLRU(records, ["cat"]), labels=["cat", "dog", "cow"])
    assert result.document["scores"]["by_class"] == {"cat": 0.0}


def test_numbers_are_places_in_the_list(tmp_path):
    records = [Record(key=str(n), image=png(tmp_path, n), label=str(n)) for n in range(2)]
    result = measure(named("dog"), "zeroshot", ByteLRU(records, ["0", "1"]), labels=["cat", "dog"])
    assert result.document["scores"]["by_class"] == {"cat": 0.0, "dog": 1.0}


def test_a_label_that_is_no_candidate(tmp_path):
    records = [Record(key="a", image=png(tmp_path, 0), label="cat")]
    with pytest.raises(RebusError, match='a: its label "cat" is not among the 2 candidates'):
        measure(named("dog"), "zeroshot", ByteLRU(records, ["cat"]), labels=["dog", "cow"])


def test_data_without_labels(tmp_path):
    with pytest.raises(UsageError, match="no labels"):
        measure(named("dog"), "zeroshot", ByteLRU([Record(key="a", image=png(tmp_path, 0))]))


def test_two_towers_read_the_labels_once(tmp_path, clip, monkeypatch):
    read = []
    original = type(clip.network).embed_text
    monkeypatch.setattr(
        type(clip.network), "embed_text", lambda self, *a, **k: read.append(1) or original(self, *a, **k)
    )
    result = measure(clip, "zeroshot", coloured(tmp_path, "test", 3), batch_size=2)
    assert len(read) == 1  # five batches of images, one of labels
    assert result.document["scores"]["top1"] == 1.0


def test_the_sentences_that_the_data_set_brings(tmp_path):
    heard = []

    def classify(images, labels, templates=None):
        heard.append(templates)
        return [Ranking(tuple(labels), (0.9, 0.1)) for _ in images]

    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), label="cat")], ["cat", "dog"])
    assert "sentences" not in str(measure(Told(classify=classify), "zeroshot", reader).document["notes"])
    reader.templates = ("art of the {}", "a {}")
    told = measure(Told(classify=classify), "zeroshot", reader).document
    assert "with the data set's 2 sentences around a label" in told["notes"]
    measure(Told(classify=classify), "zeroshot", reader, templates="plain")
    assert heard == [None, ("art of the {}", "a {}"), "plain"]
