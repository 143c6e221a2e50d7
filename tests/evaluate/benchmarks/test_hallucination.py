"""POPE and CHAIR, counted by hand."""

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.record import Record, Thing
from rebus.evaluate.benchmarks.coco_words import THINGS, things_in
from rebus.evaluate.benchmarks.pope import rates, says_yes
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import ByteLRU, Told, png, write_lines

ANSWERS = {"q1": "Yes, there is.", "q2": "yes", "q3": "No.", "q4": "There is not. Yes", "q5": "Yes", "q6": "no, none"}
LABELS = {"q1": "yes", "q2": "no", "q3": "no", "q4": "yes", "q5": "yes", "q6": "no"}


def questions(folder, name, texts, **changes):
    rows = [
        {"question_id": n, "image": png(folder / "images", n).name, "text": text, "label": LABELS[text], **changes}
        for n, text in enumerate(texts, 1)
    ]
    return write_lines(folder / name, rows)


def asked():
    return Told(ask=lambda images, texts: [ANSWERS[text] for text in texts])


def test_pope_by_hand(tmp_path):
    file = questions(tmp_path, "coco_pope_random.json", ANSWERS)
    result = measure(asked(), "pope", file)
    # said yes: q1 q2 q5; is yes: q1 q4 q5; both: q1 q5
    wanted = {"accuracy": 4 / 6, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes": 3 / 6}
    assert result.document["scores"] == pytest.approx(wanted)
    assert [mistake.key for mistake in result.outcome.worst] == ["random 2", "random 4"]  # the invented one first


def test_pope_in_three_files(tmp_path):
    for name in ("random", "popular", "adversarial"):
        questions(tmp_path, f"coco_pope_{name}.json", ["q1", "q2"] if name == "popular" else ["q1", "q3"])
    scores = measure(asked(), "pope", tmp_path).document["scores"]
    assert scores["popular"]["accuracy"] == 0.5
    assert scores["random"]["accuracy"] == scores["adversarial"]["accuracy"] == 1.0
    assert scores["accuracy"] == pytest.approx(5 / 6)
    assert measure(asked(), "pope", tmp_path, split="popular").document["scores"]["accuracy"] == 0.5
    with pytest.raises(UsageError, match=r"no questions of 'rare'; there are coco_pope_adversarial\.json"):
        measure(asked(), "pope", tmp_path, split="rare")


def test_pope_with_pictures_elsewhere_or_nowhere(tmp_path):
    file = questions(tmp_path / "here", "coco_pope_random.json", ANSWERS)
    (tmp_path / "here" / "images").rename(tmp_path / "elsewhere")
    assert measure(asked(), "pope", file, images=str(tmp_path / "elsewhere")).document["data"]["used"] == 6
    with pytest.raises(RebusError, match=r"random\.json:1: .* is missing"):
        measure(asked(), "pope", file)


def test_pope_with_strange_labels(tmp_path):
    file = questions(tmp_path, "coco_pope_random.json", ["q1"], label="perhaps")
    with pytest.raises(RebusError, match='should be "yes" or "no"; got \'perhaps\''):
        measure(asked(), "pope", file)


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no, there is none", False),
        ("It is not", False),
        ("A cat. No dog", True),
        ("", True),
    ],
)
def test_how_an_answer_is_read(answer, yes):
    assert says_yes(answer) is yes
    assert says_yes(answer, "any-case") is yes


@pytest.mark.parametrize("answer", ["NO", "no\n", "NOT there", "It is\tnot", "NoT", "It is Not"])
def test_the_authors_script_and_words_in_any_case_differ(answer):
    """`if 'No' in words or 'not' in words or 'no' in words`, of words parted at single spaces."""
    assert says_yes(answer)
    assert not says_yes(answer, "any-case")


def test_rates_of_nothing():
    assert rates([(False, False)]) == {"accuracy": 1.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes": 0.0}


def test_chair_by_hand(tmp_path):
    said = {
        0: "a man rides a motorbike past a dog",  # dog is not there; person by a caption, motorcycle marked
        1: "two puppies and a puppy on a sofa",  # all there
        2: "a sunset",  # nothing named
    }
    things = {0: ["motorcycle"], 1: ["dog", "couch", "tv"], 2: ["cat"]}
    texts = {0: ("a person on a bike",), 1: (), 2: ()}
    records = [
        Record(
            key=str(n),
            image=png(tmp_path, n),
            captions=texts[n],
            things=tuple(Thing(label=name, box=(0, 0, 9, 9)) for name in things[n]),
        )
        for n in range(3)
    ]
    order = iter(said.values())
    model = Told(caption=lambda images: [next(order) for _ in images])
    result = measure(model, "chair", ByteLRU(records, THINGS))
    assert result.document["scores"] == pytest.approx(
        {"chair_i": 1 / 6, "chair_s": 1 / 3, "recall": (2 + 2 + 0) / (3 + 3 + 1), "mentions_per_caption": 2}
    )
    assert [mistake.key for mistake in result.outcome.worst] == ["0"]
    assert any("own list" in note for note in result.document["notes"])


def test_chair_needs_the_things_of_coco(tmp_path):
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0))], ["circle"])
    with pytest.raises(UsageError, match="no annotated objects of COCO"):
        measure(Told(caption=lambda images: ["a cat"]), "chair", reader)


def test_all_things_are_known_by_their_own_names():
    assert len(THINGS) == len(set(THINGS)) == 80
    for name in THINGS:
        assert things_in(f"There is a {name}.") == [name]


@pytest.mark.parametrize(
    ("caption", "things"),
    [
        ("An orange cat and two dogs on benches", ["cat", "dog", "bench"]),
        ("an orange and white cat", ["cat"]),
        ("a bowl of oranges and an orange", ["bowl", "orange", "orange"]),
        ("Men riding motorcycles past buses and a fire truck.", ["person", "motorcycle", "bus", "truck"]),
        ("a hot dog at the bus stop near train tracks", ["hot dog"]),
        ("a baby elephant with a teddy bear", ["elephant", "teddy bear"]),
        ("people's luggage; knives, geese, mice", ["person", "suitcase", "knife", "bird", "mouse"]),
        ("a wine glass and glasses of water", ["wine glass"]),
        ("", []),
    ],
)
def test_things_that_a_caption_names(caption, things):
    assert things_in(caption) == things
