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
    """`(place, candidates (R, k))` → (R, k) shares of the candidates. A text that several candidates make is read
    once, and not again where the step before read it."""

    def __init__(self, network: object, strings: Strings):
        if not isinstance(network, JudgesText):
            raise UsageError(
                "beta weighs how well a text goes with an image, and this model has nothing to judge it by"
            )
        if strings.decode is None or strings.read is None:
            raise UsageError("beta wants decode (token ids → text) and read (texts → the tokens of their judge)")
        self.network, self.decode, self.read = network, strings.decode, strings.read
        self.known: dict[str, Tensor] = {}

    def __call__(self, place: DecodingState, candidate: Tensor) -> Tensor:
        begun = place.text[:, max(0, place.at + 1 - WINDOW) :].tolist()
        texts = [
            self.decode([*before, new]).strip()
            for before, row in zip(begun, candidate.tolist(), strict=True)
            for new in row
        ]
        vectors = self._vectors(texts, candidate.device).unflatten(0, candidate.shape)
        return self.network.judge(place.step.cache, vectors).float().softmax(dim=-1)

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
