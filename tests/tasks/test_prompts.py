import pytest

from rebus.core.errors import UnknownName, UsageError
from rebus.tasks.prompts import CIFAR, IMAGENET, IMAGENET_BEST, SETS, fill, templates_of


def test_the_published_numbers_of_sentences():
    assert len(IMAGENET) == len(set(IMAGENET)) == 80
    assert len(CIFAR) == len(set(CIFAR)) == 18
    assert len(IMAGENET_BEST) == 7
    assert set(IMAGENET_BEST) < set(IMAGENET)


@pytest.mark.parametrize("name", [n for n in SETS if n != "plain"])
def test_every_sentence_has_one_place_and_a_full_stop(name):
    for text in SETS[name]:
        assert text.count("{}") == 1
        assert text.endswith(".")


def test_names_and_sentences():
    assert templates_of("cifar10") == CIFAR
    assert templates_of("my {}") == ("my {}",)
    assert templates_of(["a {}", "b {}"]) == ("a {}", "b {}")
    with pytest.raises(UnknownName, match='did you mean "imagenet"'):
        templates_of("imagenett")
    with pytest.raises(UsageError, match="'no place'"):
        templates_of(["a {}", "no place"])
    with pytest.raises(UsageError, match="templates is empty"):
        templates_of([])


def test_braces_in_a_label_are_only_braces():
    assert fill("a {}.", "{x} {") == "a {x} {."
