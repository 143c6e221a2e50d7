"""Early fusion: image and text tokens in one sequence.

An image becomes a grid of codes, the indices of the nearest vectors of a learned codebook. A decoder then models one
sequence of text tokens and image codes by next-token prediction, p(t_i | t_1 … t_{i−1}). So the same network captions,
answers, generates images, and continues interleaved documents. Details that the codebook does not represent are lost:
fine print, small objects. Choose it if images are to be generated too; for image understanding alone, an image encoder
keeps more.
"""

from rebus.models.early_fusion.chameleon import Chameleon
from rebus.models.early_fusion.chameleon_config import ChameleonConfig

__all__ = ["Chameleon", "ChameleonConfig"]
