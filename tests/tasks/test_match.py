import torch

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
