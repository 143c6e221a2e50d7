"""Early fusion: pixels and words in one stream of tokens.

An image is cut into a grid, and each place of it becomes the nearest word of a learned codebook. From then on there
are no images: a decoder that knows nothing but tokens reads texts in which some words are codes, and predicts the next
one, p(t_i | t_1 … t_{i−1}), whether that is text or a code. So the same network captions, answers, draws, and continues
with a page of text and images, in any order. What each codebook leaves out of an image is lost to it: fine print,
small objects. Choose it where images are to be written too; to read images alone, an encoder sees more.
"""

from rebus.models.early_fusion.chameleon import Chameleon
from rebus.models.early_fusion.chameleon_config import ChameleonConfig

__all__ = ["Chameleon", "ChameleonConfig"]
