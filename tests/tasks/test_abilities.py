"""What a system can do follows from its network and its declarations, and is what it says."""

from dataclasses import replace

import pytest
from torch import nn

from rebus import catalog
from rebus.codec.boxes import LOC_1024
from rebus.core.specs import ImageTokens, Prompts
from rebus.core.system import System
from rebus.tasks.abilities import abilities
from rebus.tasks.task_model import DECODING
from tests.tasks.fakes import MASK_DECODER, PROMPTS, Colours, Scripted
from tests.tasks.toys import IMAGE_TOKENS, AnswerPicker, ImageWriter, RegionNetwork


@pytest.mark.parametrize("name", catalog.SYSTEMS)
def test_the_catalogue_says_what_a_system_can_do(name):
    assert abilities(catalog.system(name)) == catalog.SYSTEMS[name].tasks


def system(network, **declared):
    nothing = {"config": object, "presets": {}, "layouts": {}}
    return System(**{"name": "toy", "network": network, **nothing, **declared})


WRITER = system(Scripted, prompts=PROMPTS, locations=LOC_1024, companions={"mask_decoder": MASK_DECODER})


def test_what_a_network_alone_decides():
    assert abilities(system(Colours)) == {"embed_images", "embed_texts", "match", "classify"}
    assert abilities(system(AnswerPicker)) == {"ask"}
    assert abilities(system(RegionNetwork)) == {"embed_texts", "detect", "segment"}
    assert abilities(system(nn.Linear)) == frozenset()
    boxes_only = type("BoxesOnly", (RegionNetwork,), {"finds_masks": False})
    assert abilities(system(boxes_only)) == {"embed_texts", "detect"}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({}, set()),
        ({"locations": None}, {"detect", "segment"}),
        ({"locations": replace(LOC_1024, masks=None)}, {"segment"}),
        ({"companions": {}}, {"segment"}),
        ({"prompts": replace(PROMPTS, detect=None)}, {"detect"}),
        ({"prompts": Prompts(caption="")}, {"ask", "classify", "detect", "segment"}),
    ],
    ids=["all", "no places", "no mask codes", "no decoder", "no prompt", "captions only"],
)
def test_a_generative_model_loses_what_it_lacks_a_declaration_for(change, lost):
    everything = {"caption", "ask", "classify", "detect", "segment", "stream"}
    assert abilities(replace(WRITER, **change)) == everything - lost


def test_documents_and_images_want_declarations_too():
    prompts = Prompts(complete="{document}", imagine="{prompt}")
    drawing = system(ImageWriter, prompts=prompts, image_tokens=lambda cfg: IMAGE_TOKENS)
    assert abilities(drawing) == {"stream", "complete", "imagine"}
    assert abilities(replace(drawing, image_tokens=None)) == {"stream", "complete"}
    assert abilities(replace(drawing, network=Scripted)) == {"stream", "complete"}, "nothing decodes its images"
    decoder = replace(MASK_DECODER, tasks=frozenset({"imagine"}))
    assert "imagine" in abilities(replace(drawing, network=Scripted, companions={"image_decoder": decoder}))
    assert abilities(replace(drawing, prompts=Prompts(complete="{document}"))) == {"stream", "complete"}


def test_every_task_that_decodes_has_a_default():
    generating = {"caption", "ask", "detect", "segment", "read", "perform", "complete", "imagine"}
    assert set(DECODING) == generating
    assert isinstance(IMAGE_TOKENS, ImageTokens)
