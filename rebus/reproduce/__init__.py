"""The central claims of the papers at small scale: the measurement, the random seeds, and the rule by which a claim
holds.

`rebus reproduce NAME` runs one. Each is a file with a function of its name that returns its `Claim`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rebus.core.errors import unknown

if TYPE_CHECKING:
    from rebus.reproduce.claim import Claim

CLAIMS = {  # name → what is claimed
    "clip": "training on captions transfers to unseen combinations, and is faster than word prediction",
    "align": "more noisy pairs beat fewer clean ones; label smoothing and a learned temperature",
    "siglip": "a sigmoid loss per pair beats a softmax for small batches, in less memory",
    "vild": "distilled from a dual encoder, a detector finds classes without box annotations",
    "visualgpt": "its gates adapt a language model to images with fewer pairs than plain cross-attention",
    "magic": "guided by a dual encoder, a text-only language model captions images, without gradients",
    "virtex": "an image encoder learns more from captions than from class labels of as many images, or twice as many",
    "visualbert": "pre-training on captions and on the task's text improves accuracy on statements about images",
    "paligemma": "a prefix mask over image and prompt gives better answers than a causal mask",
    "pali3": "contrastively trained frozen image encoders beat classification-trained ones at localisation and reading",
    "florence2": "a multi-task model is more accurate than single-task models, for the same compute",
    "simvlm": "PrefixLM pretraining beats span corruption and plain language modelling",
    "flamingo": "interleaved documents give a frozen language model in-context learning from images, with gates",
    "chameleon": "norms prevent divergence of mixed-modal training; guidance makes images match their prompts",
    "asif": "pairs alone align two independently trained encoders; more pairs help, deleted ones are forgotten",
}


def find(name: str) -> "Claim":
    """The claim of that name. Raises `UnknownName` with the nearest names."""
    if name not in CLAIMS:
        raise unknown("claim", name, CLAIMS, f"Claims: {', '.join(CLAIMS)}.")
    found: Claim = getattr(import_module(f"rebus.reproduce.{name}"), name)()
    return found
