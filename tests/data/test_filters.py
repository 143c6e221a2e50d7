"""What is refused, and the reason that is counted."""

import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rebus.core.errors import UsageError
from rebus.data.filters import ALIGN, Filters, Sifted, count, rules, sieve, sift, size_of
from rebus.data.frequencies import Common, Counting, grams_of, text_id
from rebus.data.near_duplicates import looks_of
from rebus.data.record import BadRecord, Record
from rebus.data.scenes import scene


@dataclass(frozen=True)
class Listed:
    records: tuple[Record | None, ...]
    labels: tuple[str, ...] = ()

    @property
    def sizes(self) -> list[int]:
        return [1, len(self.records) - 1]

    def read(self, block: int, row: int) -> Record:
        record = self.records[block + row]
        if record is None:
            raise BadRecord(f"{block}:{row}", "damaged")
        return record


def pair(*captions: str, key: str = "k", **facts: Any) -> Record:
    return Record(key=key, captions=captions, facts={"width": 640, "height": 480, **facts})


@pytest.mark.parametrize(
    "filters, good, bad, reason",
    [
        (Filters(min_width=640), {}, {"width": 639}, "width below 640"),
        (Filters(min_height=480), {}, {"height": 479}, "height below 480"),
        (Filters(shorter_side_over=200), {"height": 201}, {"height": 200}, "shorter side not over 200"),
        (Filters(aspect_under=3), {"width": 1439}, {"width": 1440}, "aspect not under 3"),
        (Filters(aspect_under=3), {"width": "161"}, {"width": "160"}, "aspect not under 3"),
        (
            Filters(min_clip_b32=0.3),
            {"clip_similarity_vitb32": 0.3},
            {"clip_similarity_vitb32": 0.29},
            "_vitb32 below 0.3",
        ),
        (Filters(min_clip_l14=0.3), {"clip_similarity_vitl14": 1}, {"clip_similarity_vitl14": 0}, "_vitl14 below 0.3"),
        (Filters(min_aesthetic=5), {"aesthetic_score_laion_v2": 5}, {"aesthetic_score_laion_v2": 4}, "v2 below 5"),
        (Filters(max_nsfw_opennsfw2=0.5), {"nsfw_score_opennsfw2": 0.5}, {"nsfw_score_opennsfw2": 0.6}, "above 0.5"),
        (Filters(max_nsfw_gantman=0.5), {"nsfw_score_gantman": "0"}, {"nsfw_score_gantman": "1"}, "gantman above 0.5"),
        (Filters(max_watermark=0.8), {"watermark_score": 0.8}, {"watermark_score": 0.9}, "watermark_score above 0.8"),
        (Filters(max_watermark=0.8), {"watermark_score": 0}, {"watermark_score": float("nan")}, "above 0.8"),
        (Filters(max_watermark=0.8), {"watermark_score": 0}, {}, "no watermark_score"),
        (Filters(min_faces=1), {"num_faces": 1}, {"num_faces": 0}, "num_faces below 1"),
        (Filters(max_faces=1), {"num_faces": 1}, {"num_faces": 2}, "num_faces above 1"),
        (Filters(min_width=1), {}, {"width": None}, "no width and height"),
    ],
)
def test_columns(filters: Filters, good: dict[str, Any], bad: dict[str, Any], reason: str) -> None:
    chosen = rules(filters)
    assert sieve(pair("a text", **good), chosen) == (pair("a text", **good), [])
    left, (why,) = sieve(pair("a text", **bad), chosen)
    assert left is None
    assert why.endswith(reason)


def test_captions_go_one_by_one() -> None:
    record = pair("two words", "just three words", " ".join("x" * 20), " ".join("x" * 21))
    left, reasons = sieve(record, rules(Filters(min_words=3, max_words=20)))
    assert left is not None
    assert left.captions == record.captions[1:3]
    assert reasons == ["text of less than 3 words", "text of more than 20 words"]


def test_sizes_are_the_first_ones_known() -> None:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(data, "JPEG", exif=exif)
    assert size_of(pair("x", original_width=1000, original_height=900)) == (1000, 900)
    assert size_of(pair("x")) == (640, 480)
    assert size_of(Record(key="k", image=data.getvalue())) == (20, 30)
    assert size_of(Record(key="k", image=b"no image")) is None
    assert size_of(Record(key="k")) is None


def test_align_refuses_as_the_paper_says() -> None:
    many = [pair("alt img here", key=f"m{n}", url=f"m{n}") for n in range(11)]
    few = [pair("ten of these", key=f"f{n}", url=f"f{n}") for n in range(10)]
    twice = [pair("same pair twice", key=f"t{n}", url="t") for n in range(11)]
    crowded = [pair(f"crowded text {n}", key=f"c{n}", url="c") for n in range(1_001)]
    small = pair("a small image", key="s", url="s", height=200)
    long = pair("a long image", key="l", url="l", height=213)
    short = pair("two words", key="w", url="w")
    sifted = sift(Listed((*many, *few, *twice, *crowded, small, long, short, None)), ALIGN)
    kept = [sifted.read(block, row).captions[0] for block, size in enumerate(sifted.sizes) for row in range(size)]
    assert kept == ["ten of these"] * 10 + ["same pair twice"] * 11
    assert sifted.refused == {
        "text of more than 10 images": 11,
        "image with more than 1000 texts": 1_001,
        "shorter side not over 200": 1,
        "aspect not under 3": 1,
        "text of less than 3 words": 1,
    }
    assert sifted.damaged == 1


def test_rare_words_are_those_the_data_has_seldom() -> None:
    records = (
        *(pair("A red  car", key=f"{n}") for n in range(3)),
        pair("a zyx car", key="z"),
        pair("car a red", key="b"),
    )
    sifted = sift(Listed(records), Filters(min_gram_count=3))
    assert sifted.refused == {"text with a rare word or pair of words": 2}
    assert sum(sifted.sizes) == 3
    top = sift(Listed(records), Filters(most_grams=2))  # "a" and "car" come most often, but no pair of words
    assert sum(top.sizes) == 0


@pytest.mark.parametrize(
    "given_words, left",
    [(["A", "red", "car"], 1), (["a", "red", "car", "a red", "red car"], 1), (["a", "red", "car", "x y"], 0)],
)
def test_common_words_may_be_given(given_words: list[str], left: int) -> None:
    records = (pair("a red car"), pair("a blue car"))
    sifted = sift(Listed(records), Filters(most_grams=1), common=Common.of(given_words))
    assert sum(sifted.sizes) == left


def test_filters_that_count_need_a_count() -> None:
    with pytest.raises(UsageError, match="count them first"):
        rules(ALIGN)
    frequent = count(Listed((pair("x"), pair("y"))), ALIGN)
    assert len(rules(ALIGN, frequent)) == 6


def test_a_sifted_reader_travels_and_tells_its_progress() -> None:
    seen: list[tuple[int, int]] = []
    records = tuple(pair("one two three", "x", key=f"{n}") for n in range(3))
    sifted: Sifted = sift(
        Listed(records), Filters(min_words=2), progress=lambda done, total: seen.append((done, total))
    )
    again = pickle.loads(pickle.dumps(sifted))
    assert (again.sizes, again.labels) == ([1, 2], ())
    assert again.read(1, 1).captions == ("one two three",)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert sifted.refused == {"text of less than 2 words": 3}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=30), st.integers(0, 3))
def test_counts_are_of_different_partners(pairs: list[tuple[str, str]], most: int) -> None:
    counting = Counting()
    for text, image in pairs:
        counting.add(Record(key=image, captions=(text,)))
    frequent = counting.finish(images_per_text=most, texts_per_image=most, min_count=2)
    for text in "abc":
        assert frequent.has_text(text) == (len({image for t, image in pairs if t == text}) > most)
        assert (text in frequent.common) == (sum(t == text for t, _ in pairs) >= 2)  # type: ignore[operator]
    for image in "xyz":
        assert frequent.has_image(Record(key=image)) == (len({t for t, i in pairs if i == image}) > most)


def test_words_are_counted_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rebus.data.frequencies._MERGED", 3)
    counting = Counting()
    for n in range(10):
        counting.add(pair("a b", key=f"{n}"))
    common = counting.finish(min_count=10).common
    assert common is not None
    assert all(gram in common for gram in ("a", "b", "a b"))
    assert "c" not in common


def test_texts_that_differ_in_blanks_and_capitals_are_one() -> None:
    assert text_id("A  Red\ncar ") == text_id("a red car") != text_id("a redcar")
    assert [*grams_of("A red car")] == ["a", "red", "car", "a red", "red car"]
    assert text_id("\ud800") != text_id("")


def test_images_like_those_to_be_measured_on_go_with_all_their_texts() -> None:
    test, other = (scene(seed, "test").image for seed in (1, 2))
    smaller = io.BytesIO()
    test.resize((60, 60)).save(smaller, "JPEG", quality=60)
    tested = looks_of([Listed((Record(key="t", image=np.asarray(test)), None, Record(key="no image")))])
    assert tested.damaged == 2
    records = (
        Record(key="copy", image=smaller.getvalue(), captions=("one", "two", "three words long")),
        Record(key="other", image=np.asarray(other), captions=("three words long",)),
        Record(key="broken", image=b"<html>", captions=("three words long",)),
        Record(key="without", captions=("three words long",)),
    )
    sifted = sift(Listed(records), Filters(min_words=2), tested=tested)
    assert [sifted.read(block, row).key for block, n in enumerate(sifted.sizes) for row in range(n)] == [
        "other",
        "without",
    ]
    assert sifted.refused == {
        "text of less than 2 words": 2,
        "image like a test image": 1,
        "image that cannot be read": 1,
    }
