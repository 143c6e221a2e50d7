"""`magic/starter`: captions of real photos, offline: SmolLM2-135M of the package index, guided by `asif/starter`."""

from typing import Any

from rebus.backbones.starter_networks import starter_language_model
from rebus.core.config import to_dict
from rebus.core.system import Assembled, Part
from rebus.models.training_free.magic import MAGICConfig, join
from rebus.models.training_free.starter import assemble_starter as assemble_guide

# Chosen on 50 training photos of Flickr8k alone, by the guide's score, by CIDEr-D and by reading what was said: many
# examples make many things probable after "A"; with a smaller min_p words come in that the guide likes and nobody would
# say, with a larger one every photo shows a woman.
PROMPT = """Captions of photographs:
A man in a red shirt is riding a horse on the beach .
Two children are playing with a ball in a park .
A black dog is running through the snow .
A woman in a white dress is walking down the street .
A boy is jumping into a swimming pool .
A group of people are sitting around a table .
A brown dog is catching a frisbee in the grass .
A girl in a pink jacket is climbing a rock .
A surfer is riding a big wave .
Two dogs are playing in the water .
A football player is kicking the ball .
A person on a bike is riding down a dirt road .
A plate of food is on a wooden table .
A cat is sleeping on a couch .
A red car is parked in front of a house .
A boat is floating on a calm lake .
A bird is sitting on a branch .
A train is coming down the tracks .
A baby is smiling at the camera .
Many people are standing in front of a building .
A skier is going down a snowy hill .
A horse is jumping over a fence .
A bowl of fruit is next to a glass of water .
A dog with a stick in its mouth is running on the beach .
"""
SETTINGS: dict[str, Any] = {
    "guide_scale": 60.0,
    "k": 24,
    "alpha": 0.1,
    "beta": 1.0,
    "min_p": 0.03,
    "max_new_tokens": 20,
}


def assemble_starter() -> Assembled:
    """The model behind `magic/starter`. Raises `MissingExtra` where its packages are not installed."""
    text = starter_language_model("magic/starter")
    guide = assemble_guide()
    config = MAGICConfig(
        text=Part(system="llama", config=to_dict(text.config)),
        guide=Part(system="asif", config=to_dict(guide.config)),
        prompt=PROMPT,
        plain_captions=True,
        max_sentences=1,
        **SETTINGS,
    )
    joined = {
        **{f"text.{name}": tensor for name, tensor in text.tensors.items()},
        **{f"guide.{name}": tensor for name, tensor in guide.tensors.items()},
    }
    return Assembled(config, joined, join(config, text.processor, guide.processor))
