import torch

from rebus.tasks.classify import classify
from rebus.tasks.embed import embed_images, embed_texts
from rebus.tasks.match import match
from tests.tasks.fakes import COLOURS, picture, two_towers


def test_every_picture_with_every_text():
    model = two_towers()
    pictures, texts = [picture(c) for c in COLOURS], ["a green cat", "red"]
    scores = match(model, pictures, texts)
    assert scores.shape == (3, 2)
    assert scores.argmax(dim=0).tolist() == [1, 0]
    torch.testing.assert_close(scores, embed_images(model, pictures) @ embed_texts(model, texts).T)
    assert match(model, pictures[0], "red").shape == (1, 1)


def test_a_space_too_wide_for_vectors_is_compared_by_the_network_itself():
    """What the encoders give is handed over as it is, neither of unit length nor in one piece."""
    dense, wide = two_towers(), two_towers()
    network = wide.network
    network.is_dense, network.averages_templates = False, False
    network.image_vectors = lambda pixels: 3 * network.embed_image(pixels)
    network.text_vectors = lambda tokens, mask: 2 * network.embed_text(tokens, mask)
    network.score = lambda image, text: image @ text.T / 6
    pictures, texts = [picture(c) for c in COLOURS], ["a green cat", "red"]
    torch.testing.assert_close(match(wide, pictures, texts), match(dense, pictures, texts))
    assert classify(wide, pictures, list(COLOURS), ["{}", "a very {}"])[1].top == "green"
