"""A table of words that reads in both directions: tokens → vectors, and vectors → scores of the tokens."""

from jaxtyping import Float
from torch import Tensor, nn

from rebus.nn.linear import linear


class TokenEmbedding(nn.Embedding):
    """An embedding that is also the head of its language model ("tied"). Press & Wolf 2017."""

    def scores(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return linear(hidden, self.weight)
