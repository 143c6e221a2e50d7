import pytest

from rebus.core.errors import UnknownName, UsageError
from rebus.tasks.ask import ask
from rebus.tasks.caption import caption
from rebus.tasks.stream import _unsure, stream
from tests.tasks.fakes import picture, writer


def says(colour, prompt):
    return f"a {colour} dog . the very very {prompt.split()[-1]} cat"


@pytest.mark.parametrize(
    "options", [{}, {"max_new_tokens": 3}, {"stop": "very very"}, {"stop": [". the", "z"]}], ids=str
)
def test_the_pieces_joined_are_the_caption(options):
    model = writer(says)
    pieces = list(stream(model, "caption", picture("red"), **options))
    assert "".join(pieces) == caption(model, picture("red"), **options)
    assert len(pieces) > 1
    assert all(pieces)


def test_the_pieces_joined_are_the_answer():
    model = writer(says)
    assert "".join(stream(model, "ask", picture("blue"), "what colour")) == ask(model, picture("blue"), "what colour")
    assert "".join(stream(model, "caption", picture("blue"), "a photo")).endswith("photo cat")


def test_closing_a_stream_stops_the_model():
    model = writer(says)
    steps, step = [], model.network.step
    model.network.step = lambda *args: steps.append(1) or step(*args)
    pieces = stream(model, "caption", picture("red"))
    next(pieces), next(pieces)
    pieces.close()
    assert len(steps) < 4


def test_wrong_arguments_are_refused_before_the_first_piece():
    model = writer(says)
    with pytest.raises(UsageError, match="one image and one text"):
        stream(model, "caption", [picture("red")])
    with pytest.raises(UnknownName, match="There are: caption, ask"):
        stream(model, "captoin", picture("red"))
    with pytest.raises(UsageError, match="cannot stream"):
        stream(model, "caption", picture("red"), strategy="beam")


def test_what_may_yet_change_is_held_back():
    assert _unsure("ab\ufffd", ()) == 1
    assert _unsure("a cat.", (". x",)) == 1
    assert _unsure("a cat. ", (". x",)) == 2
    assert _unsure("a cat", (". x",)) == 0
