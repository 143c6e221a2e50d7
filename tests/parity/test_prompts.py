"""The sets of sentences against those that open_clip ships."""

import pytest

from rebus.tasks.prompts import IMAGENET, IMAGENET_BEST

pytestmark = pytest.mark.parity


def test_imagenet_sentences():
    metadata = pytest.importorskip("open_clip.zero_shot_metadata")
    assert {template("X") for template in metadata.OPENAI_IMAGENET_TEMPLATES} == {t.format("X") for t in IMAGENET}
    assert [template("X") for template in metadata.SIMPLE_IMAGENET_TEMPLATES] == [t.format("X") for t in IMAGENET_BEST]
