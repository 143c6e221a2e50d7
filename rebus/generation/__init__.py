"""Text generation: one decoding loop over `core.capabilities.WritesText`, and several strategies.

A generative model encodes its prompt once (`start`) and then generates one token at a time (`step`); its state is a
cache that is passed in and out, so encoder-decoders, prefix models and guided models use the same loop.

    greedy.py        the most probable token
    sampling.py      a drawn token: temperature, top_k, top_p; one random stream a row
    beam.py          the most probable sentence, among a few kept at a time
    contrastive.py   probable, yet unlike what was already said, and like an image
    judged_text.py   how well a text goes with the image, for contrastive.py
    constraints.py   what may be written: allowed tokens, no repeated n-grams
    guidance.py      classifier-free guidance: away from a second prompt
    interrupted.py   others work between the steps of a decoding
    stopping.py      end tokens and stop strings
    scoring.py       no choice at all: how likely is a given text
    loop.py          `generate` and `stream`, which join them
"""

from rebus.generation.beam import Beam
from rebus.generation.contrastive import Contrastive
from rebus.generation.greedy import Greedy
from rebus.generation.guidance import Guidance
from rebus.generation.loop import OPTIONS, STRATEGIES, generate, options_of, stream
from rebus.generation.sampling import Sample
from rebus.generation.scoring import Likelihood, score, score_choices, score_tokens
from rebus.generation.stopping import cut

__all__ = [
    "OPTIONS",
    "STRATEGIES",
    "Beam",
    "Contrastive",
    "Greedy",
    "Guidance",
    "Likelihood",
    "Sample",
    "cut",
    "generate",
    "options_of",
    "score",
    "score_choices",
    "score_tokens",
    "stream",
]
