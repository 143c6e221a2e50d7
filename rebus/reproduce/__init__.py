"""The central claims of the papers in miniature: what is measured, with which seeds, and the rule by which it holds.

`rebus reproduce NAME` runs one. Each is a file with a function of its name that returns its `Claim`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rebus.core.errors import unknown

if TYPE_CHECKING:
    from rebus.reproduce.claim import Claim

CLAIMS = {  # name → what is claimed
    "clip": "captions alone teach names, of combinations never seen too, sooner than word prediction does",
    "align": "more noisy pairs beat fewer clean ones; smoothed labels and a learned temperature",
    "siglip": "a sigmoid on every pair beats a softmax over the batch where batches are small, in less memory",
    "vild": "copying a dual encoder's embeddings, a detector finds classes of which it never saw a box",
    "visualgpt": "gates that can reopen adapt a language model to images with fewer pairs than plain cross-attention",
    "magic": "guided by a dual encoder, a language model that never saw an image describes it, without gradients",
    "virtex": "an image encoder learns more from captions than from class labels of as many images, or twice as many",
    "visualbert": "pre-training on captions and on the task's text makes a better judge of statements about images",
    "paligemma": "images and prompts that see each other (prefix mask) are answered better than with a causal mask",
    "pali3": "contrastively trained frozen image encoders beat classification-trained ones at localisation and reading",
    "florence2": "one model of many tasks answers better than one model each, for the same compute",
    "simvlm": "reading any beginning of a text and writing the rest teaches more than span corruption or plain LM",
    "flamingo": "documents teach a frozen language model to learn from examples that it sees, behind gates",
    "chameleon": "norms hold what a stream of two modalities drives up; guidance draws what is asked for more often",
    "asif": "pairs alone join two networks that never met; more pairs help, deleted ones are forgotten",
}


def find(name: str) -> "Claim":
    """The claim of that name. Raises `UnknownName` with the nearest names."""
    if name not in CLAIMS:
        raise unknown("claim", name, CLAIMS, f"Claims: {', '.join(CLAIMS)}.")
    found: Claim = getattr(import_module(f"rebus.reproduce.{name}"), name)()
    return found
