"""MAGIC's third term: which of the candidates makes the text go best with the image.

Su et al., "Language Models Can See: Plugging Visual Controls in Text Generation", 2022, eq. 4. Text reaches the judge
as a string, so that its vocabulary need not be the generator's.
"""

import torch
from torch import Tensor

from rebus.core.capabilities import JudgesText
from rebus.core.errors import UsageError
from rebus.generation.decoding_state import DecodingState, Strings

WINDOW = 60  # tokens of the text that are judged, its last ones: more would seldom fit into the judge's context
_AT_ONCE = 256  # texts that the judge reads together


class JudgedText:
    """`(place, candidates (R, k), possible (R, k))` → (R, k) shares of the possible candidates, 0 of the others. A text
    that several candidates make is read once, and not again where the step before read it."""

    def __init__(self, network: object, strings: Strings):
        if not isinstance(network, JudgesText):
            raise UsageError("beta weighs image-text similarity, and this model has no guide to compute it")
        if strings.decode is None or strings.read is None:
            raise UsageError("beta needs decode (token ids → text) and read (texts → the tokens of the guide)")
        self.network, self.decode, self.read = network, strings.decode, strings.read
        self.known: dict[str, Tensor] = {}

    def __call__(self, place: DecodingState, candidate: Tensor, possible: Tensor) -> Tensor:
        begun = place.text[:, max(0, place.at + 1 - WINDOW) :].tolist()
        read = torch.where(possible, candidate, candidate[:, :1])  # what is read anyway, in place of the others
        texts = [
            self.decode([*before, new]).strip() for before, row in zip(begun, read.tolist(), strict=True) for new in row
        ]
        vectors = self._vectors(texts, candidate.device).unflatten(0, candidate.shape)
        fit = self.network.judge(place.step.cache, vectors).float()
        return fit.masked_fill(~possible, -torch.inf).softmax(dim=-1)

    def _vectors(self, texts: list[str], device: torch.device) -> Tensor:
        """(T, E) of texts, some of which are alike."""
        each = list(dict.fromkeys(texts))
        new = sorted((text for text in each if text not in self.known), key=len)  # little padding
        for first in range(0, len(new), _AT_ONCE):
            some = new[first : first + _AT_ONCE]
            tokens = {name: tensor.to(device) for name, tensor in self.read(some).items()}
            self.known.update(zip(some, self.network.read_text(**tokens), strict=True))
        self.known = {text: self.known[text] for text in each}
        places = {text: number for number, text in enumerate(each)}
        return torch.stack(list(self.known.values()))[[places[text] for text in texts]]
