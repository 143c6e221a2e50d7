"""Training objectives: (network, batch) → `Losses`. An objective is a small frozen, callable dataclass.

Objectives know no model: they call the network with the batch and read one of the named tuples of `core/outputs.py`.
"""

from typing import Any, get_args

from rebus.core.errors import UsageError
from rebus.core.system import System
from rebus.objectives.accumulate import Learner, backward, check_parts, measure, split
from rebus.objectives.answers import AnswerLoss, soft_answers
from rebus.objectives.attributes import AttributesLoss, attributes
from rebus.objectives.both_ways import BothWaysLoss, LabelSetLoss
from rebus.objectives.codebook import CodebookLoss
from rebus.objectives.contrastive import Contrast, SigmoidLoss, SoftmaxLoss, sigmoid_contrastive, softmax_contrastive
from rebus.objectives.contrastive_tokens import ContrastiveTokenLoss, contrastive_tokens
from rebus.objectives.distillation import embedding_distillation
from rebus.objectives.distilled_detection import DistilledDetectionLoss
from rebus.objectives.interleaved import InterleavedLoss
from rebus.objectives.losses import Losses
from rebus.objectives.masked_lm import MaskedLMLoss, make_blanks, masked_lm, matching
from rebus.objectives.masked_text import MaskedTextLoss
from rebus.objectives.next_token import NextTokenLoss, next_token
from rebus.objectives.patch_names import SeeAndSpeakLoss, patch_names
from rebus.objectives.prefix_lm import PrefixLMLoss
from rebus.objectives.self_critical import SelfCriticalLoss, self_critical
from rebus.objectives.span_corruption import Denoiser, SpanCorruptionLoss, ul2_denoisers

Objective = (
    SoftmaxLoss
    | SigmoidLoss
    | NextTokenLoss
    | InterleavedLoss
    | CodebookLoss
    | SeeAndSpeakLoss
    | BothWaysLoss
    | LabelSetLoss
    | PrefixLMLoss
    | SpanCorruptionLoss
    | DistilledDetectionLoss
    | AttributesLoss
    | MaskedTextLoss
    | ContrastiveTokenLoss
    | MaskedLMLoss
    | AnswerLoss
    | SelfCriticalLoss
)
# kind → objective, as a system names the one of its paper
OBJECTIVES: dict[str, Any] = {objective.kind: objective for objective in get_args(Objective)}


def check_trained(system: System) -> None:
    """Raises `UsageError` for a system that is not trained."""
    if system.objective is None:
        raise UsageError(f"{system.name} is put together from trained parts: there is nothing to train")


def objective_of(system: System, config: Any) -> Any:
    """What the paper of a system trains a network of this configuration by; raises as `check_trained` does."""
    check_trained(system)
    assert system.objective is not None
    kind = system.objective if isinstance(system.objective, str) else system.objective(config)
    return OBJECTIVES[kind](**system.objective_options)


__all__ = [
    "OBJECTIVES",
    "AnswerLoss",
    "AttributesLoss",
    "BothWaysLoss",
    "CodebookLoss",
    "Contrast",
    "ContrastiveTokenLoss",
    "Denoiser",
    "DistilledDetectionLoss",
    "InterleavedLoss",
    "LabelSetLoss",
    "Learner",
    "Losses",
    "MaskedLMLoss",
    "MaskedTextLoss",
    "NextTokenLoss",
    "Objective",
    "PrefixLMLoss",
    "SeeAndSpeakLoss",
    "SelfCriticalLoss",
    "SigmoidLoss",
    "SoftmaxLoss",
    "SpanCorruptionLoss",
    "attributes",
    "backward",
    "check_parts",
    "check_trained",
    "contrastive_tokens",
    "embedding_distillation",
    "make_blanks",
    "masked_lm",
    "matching",
    "measure",
    "next_token",
    "objective_of",
    "patch_names",
    "self_critical",
    "sigmoid_contrastive",
    "soft_answers",
    "softmax_contrastive",
    "split",
    "ul2_denoisers",
]
