"""Every published checkpoint, a module for each family: a row is the whole truth about one.

Architecture, size, where its weights were released, licence. `parameters` counts the architecture as published, tied
weights once.
"""

from rebus.catalog.checkpoints import (
    contrastive,
    cross_attention,
    distillation,
    early_fusion,
    frozen_lm,
    masked_lm,
    prefix_lm,
    training_free,
    unified,
)
from rebus.core.card import ModelCard

_FAMILIES = (
    contrastive,
    prefix_lm,
    cross_attention,
    frozen_lm,
    masked_lm,
    distillation,
    training_free,
    unified,
    early_fusion,
)
SMALL = "clip/b32"  # whose speed is measured where any model will do: it trains on every machine
ROWS: dict[str, ModelCard] = {card.name: card for family in _FAMILIES for card in family.CARDS}
