from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rebus.core.errors import BadText, MissingFile
from rebus.tasks.segment import segment
from tests.tasks.fakes import picture, writer

LEFT_HALF = "<loc0000><loc0000><loc1023><loc0511>"
CODES = "".join(f"<seg{n:03d}>" for n in range(16))


def top_half(codes):
    """A decoder that draws the upper half of every box, and checks what it is given."""
    assert codes.shape[1] == 16
    assert codes[0].tolist() == list(range(16))
    drawn = torch.ones(len(codes), 64, 64)
    drawn[:, 32:] = -1
    return drawn


DECODER = SimpleNamespace(decode=top_half)


def test_a_mask_has_the_size_of_the_given_picture():
    model = writer(lambda colour, prompt: f"{LEFT_HALF}{CODES} cat", sure=0.8, mask_decoder=DECODER)
    (mask,) = segment(model, picture("red", (40, 20)), "the cat")
    assert model.network.prompts == ["segment the cat"]
    assert mask.mask.shape == (20, 40)
    assert mask.mask.dtype == np.bool_
    expected = np.zeros((20, 40), dtype=bool)
    expected[:10, :19] = True
    assert (mask.mask != expected).mean() < 0.03
    assert mask.label == "cat"
    assert mask.box == pytest.approx((0, 0, 40 * 511 / 1023, 20))
    assert mask.score == pytest.approx(0.8, abs=1e-4)


def test_the_phrase_names_a_mask_without_label():
    model = writer(lambda colour, prompt: LEFT_HALF + CODES, mask_decoder=DECODER)
    assert segment(model, picture("red"), "red cat")[0].label == "red cat"


def test_pieces_without_sixteen_codes_are_left_out():
    model = writer(lambda colour, prompt: f"{LEFT_HALF} cat ; {LEFT_HALF}{CODES[:-8]} dog", mask_decoder=DECODER)
    assert segment(model, picture("red"), "cat") == []


def test_lists_and_pairs():
    def says(colour, prompt):
        return f"{LEFT_HALF}{CODES}" if colour in prompt else ""

    model = writer(says, mask_decoder=DECODER)
    red, blue = picture("red", (16, 8)), picture("blue", (8, 16))
    assert [len(found) for found in segment(model, [red, blue], "red cat")] == [1, 0]
    assert [len(found) for found in segment(model, red, ["blue", "red"])] == [0, 1]
    pairs = segment(model, [red, blue], ["red", "blue"])
    assert [found[0].mask.shape for found in pairs] == [(8, 16), (16, 8)]
    assert (pairs[1][0].mask == segment(model, blue, "blue")[0].mask).all()


def test_without_a_mask_decoder_the_missing_file_is_named():
    with pytest.raises(MissingFile, match=r"vae-oid\.npz"):
        segment(writer(lambda colour, prompt: ""), picture("red"), "cat")


def test_fault_17_an_empty_phrase_is_a_clear_error():
    with pytest.raises(BadText, match="a phrase must be a text"):
        segment(writer(lambda colour, prompt: "", mask_decoder=DECODER), picture("red"), " ")
