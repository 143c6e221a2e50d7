import numpy as np
import pytest
import torch

from rebus.core.errors import BadImage, BadText, LimitExceeded, MissingFile, UsageError
from rebus.tasks.embed import embed_images, embed_texts
from tests.tasks.fakes import COLOURS, picture, two_towers


def test_one_or_many_give_unit_rows():
    model = two_towers()
    many = embed_images(model, [picture(c) for c in COLOURS])
    assert many.shape == (3, 3)
    assert many.dtype == torch.float32
    torch.testing.assert_close(many.norm(dim=1), torch.ones(3))
    assert embed_images(model, picture("red")).shape == (1, 3)
    assert embed_texts(model, "a red dog").shape == (1, 3)
    assert embed_texts(model, ["a red dog", "blue"]).shape == (2, 3)


def test_a_batch_changes_nothing_for_pictures_and_texts():
    model = two_towers()
    pictures = [picture(c) for c in COLOURS] * 30
    together = embed_images(model, pictures)
    assert max(model.network.batches) == 32
    torch.testing.assert_close(together[7:8], embed_images(model, pictures[7]))
    texts = ["a very very red dog", "blue", "the green cat is green"] * 40
    torch.testing.assert_close(embed_texts(model, texts)[[5]], embed_texts(model, texts[5]))
    torch.testing.assert_close(embed_texts(model, texts)[[4]], embed_texts(model, texts[4]))


@pytest.mark.parametrize(
    "kind",
    [
        lambda image: np.asarray(image),
        lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255,
        lambda image: np.asarray(image)[None],
        lambda image: [image],
    ],
    ids=["array", "tensor", "stack", "list"],
)
def test_pictures_of_every_kind(kind):
    model = two_towers()
    expected = embed_images(model, picture("green"))
    torch.testing.assert_close(embed_images(model, kind(picture("green"))), expected)


def test_a_bad_picture_is_named_by_its_place_in_the_whole_list(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    pictures = [picture("red")] * 40 + [tmp_path / "empty.jpg"] + [picture("red")]
    with pytest.raises(BadImage, match=r"^images\[40\].*empty\.jpg: empty file"):
        embed_images(two_towers(), pictures)


def test_nothing_or_nonsense_is_refused():
    with pytest.raises(UsageError, match="no images"):
        embed_images(two_towers(), [])
    with pytest.raises(UsageError, match="no texts"):
        embed_texts(two_towers(), [])
    with pytest.raises(BadImage, match="got int"):
        embed_images(two_towers(), 3)
    with pytest.raises(BadText, match=r"texts\[1\] must be a text; got int"):
        embed_texts(two_towers(), ["red", 3])


def test_fault_13_too_many_pictures_in_one_call(monkeypatch):
    monkeypatch.setenv("REBUS_MAX_IMAGES", "3")
    with pytest.raises(LimitExceeded, match="MAX_IMAGES = 3"):
        embed_images(two_towers(), [picture("red")] * 4)


def test_fault_10_a_web_address_is_not_fetched():
    with pytest.raises(BadImage, match="a URL"):
        embed_images(two_towers(), "http://169.254.169.254/latest")
    with pytest.raises(BadImage, match="a URL"):
        embed_images(two_towers(), "file:///etc/passwd")


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_fault_17_odd_texts_are_refused(text):
    with pytest.raises(BadText):
        embed_texts(two_towers(), text)


@pytest.mark.parametrize("text", ["", "שלום", "red " * 500])
def test_fault_17_other_texts_have_a_defined_answer(text):
    assert embed_texts(two_towers(), text).isfinite().all()


def test_fault_17_a_megabyte_of_text_passes_a_named_limit():
    with pytest.raises(LimitExceeded, match="MAX_TEXT_CHARS"):
        embed_texts(two_towers(), "a" * 1_000_000)


def test_a_checkpoint_without_preprocessor_file_names_it():
    model = two_towers()
    model.processor.image = None
    with pytest.raises(MissingFile, match=r"preprocessor_config\.json"):
        embed_images(model, picture("red"))


def test_fault_16_texts_of_many_batches_that_were_cut_are_counted_together(caplog):
    model = two_towers()
    context = model.processor.text.spec.context
    embed_texts(model, ["red"] * 70 + ["a " * 2 * context] * 70)
    assert [r.getMessage().split(" texts")[0] for r in caplog.records] == ["70 of 140"]
