"""PaLI-3's claim: what its world says is so, and its settings differ in the image encoder alone."""

from itertools import pairwise

import numpy as np
import torch

from rebus.data.scenes.writing import dots
from rebus.reproduce import pali3, regions_world
from rebus.reproduce import signs_world as world

WORDS = {number: word for word, number in world.IDS.items()}
SMALL = pali3.Budget(images=24, steps=2, tuning=2, batch_size=8, test=8, width=16, num_layers=1)


def said(row: torch.Tensor) -> str:
    return " ".join(WORDS[i] for i in row.tolist() if i in WORDS)


def names(s: world.Signs, row: int) -> list[str]:
    return [regions_world.NAMES[world.KINDS[kind]] for kind in s.kinds[row]]


def test_captions_say_what_is_there_and_where() -> None:
    s, rows = world.signs(1, 60), torch.arange(60)
    whole = [said(row) for row in world.captions(s, rows, np.random.default_rng(0))]
    things = [said(row) for row in world.captions(s, rows, np.random.default_rng(0), whole=False)]
    for row in range(60):
        places = [f"{world._DOWN[c // 3]} {world._ACROSS[c % 3]}" for c in s.cells[row]]
        facts = [f"{name} {place}" for name, place in zip(names(s, row), places)] + [
            f"written {world.DIGITS[s.digits[row]]}"
        ]
        left = whole[row]
        for fact in facts:
            left = left.replace(fact, "", 1)
        assert not left.strip()
        assert things[row] in (*names(s, row), " ".join(names(s, row)))
    assert 0.5 < np.mean(["written" in text for text in whole]) < 0.85
    assert not [text for text in things if "written" in text]


def test_things_and_signs_stand_in_their_cells() -> None:
    s = world.signs(2, 30)
    again = world.signs(2, 30)
    assert torch.equal(s.pixels, again.pixels)
    for row in range(30):
        assert len({*s.cells[row]}) == 3
        for box, cell in zip(s.boxes[row], s.cells[row]):
            corner = world.CELL * np.array([cell % 3, cell // 3])
            assert (box[:2] >= corner).all()
            assert (box[2:] <= corner + world.CELL).all()
        assert s.boxes[row, 0, 2] - s.boxes[row, 0, 0] > s.boxes[row, 1, 2] - s.boxes[row, 1, 0]
        down, across = (world.CELL * int(c) for c in (s.cells[row, 2] // 3, s.cells[row, 2] % 3))
        cell = s.pixels[row, 1, down : down + world.CELL, across : across + world.CELL]
        sign = torch.from_numpy(dots(world.DIGITS[s.digits[row]]))
        places = cell.unfold(0, sign.shape[0], 1).unfold(1, sign.shape[1], 1)
        assert bool((((places > 0) == sign).all(dim=(2, 3))).any())


def test_answers_are_right_and_scored_as_such(monkeypatch) -> None:
    s = world.signs(3, 8)
    asked, answers = (part.unflatten(0, (-1, 4)) for part in world.questions(s))
    for row in range(8):
        assert [said(q) for q in asked[row]] == [*(f"find {name}" for name in names(s, row)), "read", "name"]
        boxes = world.BIN * (answers[row, :2, :4] - world.PLACES).numpy()
        assert np.abs(boxes - s.boxes[row]).max() <= world.BIN / 2
        assert said(answers[row, 2]) == world.DIGITS[s.digits[row]]
        assert said(answers[row, 3]) == names(s, row)[0]
    given = answers.flatten(0, 1).clamp(min=world.PAD)
    monkeypatch.setattr(pali3, "generate", lambda made, batch, **options: given)
    assert pali3._right(None, s) == {"boxes": 1.0, "reading": 1.0, "naming": 1.0}
    given[0, 0] += 8  # the first box begins where it ends
    given[2, 0] = world.IDS["0"] + (1 + s.digits[0]) % len(world.DIGITS)
    assert pali3._right(None, s) == {"boxes": 15 / 16, "reading": 7 / 8, "naming": 1.0}


def test_settings_differ_in_the_image_encoder_alone(monkeypatch) -> None:
    begun, ended, fit = {}, {}, pali3.fit

    def watched(network, objective, batch_at, optim, steps):
        answers = isinstance(network, pali3.PaLI3)
        if answers:
            begun[setting] = {name: value.clone() for name, value in network.state_dict().items()}
        fit(network, objective, batch_at, optim, steps)
        if answers:
            ended[setting] = network.state_dict()

    monkeypatch.setattr(pali3, "fit", watched)
    for setting in (pali3.NONE, pali3.CLASSES, pali3.CAPTIONS):
        pali3.measure(SMALL, setting, 1)
    images = [torch.cat([v.flatten() for n, v in state.items() if n.startswith("image.")]) for state in begun.values()]
    assert all((one - other).abs().max() > 1e-4 for one, other in pairwise(images))
    for state in begun.values():
        same = [torch.equal(value, begun[pali3.NONE][name]) for name, value in state.items() if name[:6] != "image."]
        assert all(same)
    for setting in begun:
        learned = {n for n, value in ended[setting].items() if not torch.equal(value, begun[setting][n])}
        assert not [name for name in learned if name.startswith("image.")]
        assert {"image_proj.weight", "text.tokens.weight"} <= learned
