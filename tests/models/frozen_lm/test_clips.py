"""Video: clips in place of images, in every task that takes images."""

import pytest
from PIL import Image

import rebus
from rebus.core.errors import BadImage
from tests.models.frozen_lm.joined import joined

OPTIONS = {"max_new_tokens": 4}


def frames(*colours):
    return [Image.new("RGB", (31, 24), colour) for colour in colours]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return joined(tmp_path_factory.mktemp("parts"), num_frames=2)


CLIP = rebus.Clip(frames("red", "green", "blue"))
OTHER = rebus.Clip(frames("white", "red", "black"))


def test_a_clip_is_one_image_whose_frames_have_an_order(model):
    batch = model.processor(images=[CLIP, OTHER], texts="Output:")
    assert batch["pixels"].shape == (2, 1, 3, 3, 24, 24)
    text = model.processor.text
    assert (batch["tokens"] == text.spec.image_token_id).sum(1).tolist() == [1, 1]
    backwards = rebus.Clip(CLIP.frames[::-1])
    latents = [model.network.see(model.processor(images=[one])["pixels"]) for one in (CLIP, backwards)]
    assert (latents[0] - latents[1]).abs().max() > 1e-3


def test_a_clip_in_a_batch_is_answered_as_alone(model):
    both = model.caption([CLIP, OTHER], **OPTIONS)
    assert both == [model.caption(CLIP, **OPTIONS), model.caption(OTHER, **OPTIONS)]
    assert model.ask(CLIP, "what is it ?", **OPTIONS) == model.ask([CLIP], ["what is it ?"], **OPTIONS)[0]


def test_documents_and_examples_hold_clips(model):
    whole = model.complete([OTHER, "Output:a red dog", CLIP, "Output:"], **OPTIONS)
    assert isinstance(whole, str)
    shots = [(OTHER, "a red dog")]
    seen = model.shots("caption", shots).inputs([(CLIP, "Output:")])
    assert seen["pixels"].shape == (1, 1, 3, 3, 24, 24)
    assert model.caption([CLIP, OTHER], examples=shots, **OPTIONS)[0] == model.caption(CLIP, examples=shots, **OPTIONS)


def test_a_saved_model_still_watches(model, tmp_path):
    again = rebus.load(model.save(tmp_path / "model"), device="cpu")
    assert again.caption(CLIP, **OPTIONS) == model.caption(CLIP, **OPTIONS)


def test_what_is_no_clip_is_refused(model, tmp_path_factory):
    with pytest.raises(BadImage, match="without frames"):
        rebus.Clip([])
    with pytest.raises(BadImage, match="a list of frames; got str"):
        rebus.Clip("a.mp4")
    with pytest.raises(BadImage, match="got 3, and 1 of clip 1"):
        model.complete([CLIP, "a", frames("red")[0], "b"], **OPTIONS)
    with pytest.raises(BadImage, match="was not trained on video"):
        joined(tmp_path_factory.mktemp("still")).caption(CLIP, **OPTIONS)
    with pytest.raises(BadImage, match="was not trained on video"):
        rebus.load("siglip/scenes").embed_images([CLIP])
