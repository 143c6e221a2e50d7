import pytest

from rebus.core.errors import UnknownName, UsageError
from rebus.tasks.prompts import CIFAR, IMAGENET, IMAGENET_BEST, LVIS, SETS, fill, templates_of


def test_the_published_numbers_of_sentences():
    assert len(IMAGENET) == len(set(IMAGENET)) == 80
    assert len(CIFAR) == len(set(CIFAR)) == 18
    assert len(IMAGENET_BEST) == 7
    assert set(IMAGENET_BEST) < set(IMAGENET)
    assert len(LVIS) == len(set(LVIS)) == 63


@pytest.mark.parametrize("name", [n for n in SETS if n != "plain"])
def test_every_sentence_has_one_place_and_a_full_stop(name):
    for text in SETS[name]:
        assert sum(text.count(place) for place in ("{}", "{name}", "{a name}")) == 1
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


def test_lvis_sentences_spell_labels_as_sentences_do():
    said = {fill(template, "Orange_juice/soda.") for template in templates_of("lvis")}
    assert len(said) == 63
    assert "There is an orange juice or soda in the scene." in said
    assert "This is a photo of a small orange juice or soda." in said, "the article of the adjective"
    assert "This is a jpeg corrupted photo of an orange juice or soda." in said
    assert "itap of my orange juice or soda." in said
    assert "This is a photo of the orange juice or soda in the scene." in said
    assert all(text[0] in "TI" or text.startswith("itap") for text in said)
    assert not any("_" in text or ".." in text for text in said)


def test_an_lvis_sentence_that_begins_small_is_introduced():
    """Rebuilt from the patterns of the paper's code, one by one."""
    looks = ["low resolution", "cropped", "close-up", "jpeg corrupted", "blurry", "pixelated", "black and white"]
    patterns = [
        ["There is {} in the scene.", "a photo of {} in the scene."],
        ["itap of {}.", "a photo of {}.", *(f"a {one} photo of {{}}." for one in ("good", "bad", "bright", "dark"))],
        [f"a {look} photo of {{}}." for look in looks],
    ]
    adjectives = ["nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see"]
    both = [f"{{}} {make} {{}}." for make in ("plastic", "toy", "plushie", "cartoon")]
    wanted = [text.format(one) for row in patterns for text in row for one in ("a cat", "the cat")]
    wanted += ["a photo of one cat in the scene.", "itap of my cat.", "a photo of one cat.", "a photo of my cat."]
    wanted += ["a photo of many cat.", "an embroidered cat.", "the embroidered cat."]
    wanted += [f"a photo of {a} {look} cat." for look in adjectives for a in ("a", "the")]
    wanted += [text.format(a, "cat") for text in both for a in ("a", "the")]
    wanted += ["a painting of the cat.", "a painting of a cat."]
    introduced = {f"This is {text}" if text.startswith(("a", "the")) else text for text in wanted}
    assert introduced == {fill(template, "cat") for template in LVIS}
