"""Copy a teacher's embeddings. Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge
Distillation" (ViLD), 2021, Sec. 3.2, equation 4."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def embedding_distillation(
    student: Float[Tensor, "N E"], teacher: Float[Tensor, "N E"], valid: Bool[Tensor, "N"] | None = None
) -> Float[Tensor, ""]:
    """Mean over the valid rows of ‖s − t‖₁ between the unit vectors, summed over E and not averaged; 0 without any."""
    exact = torch.promote_types(student.dtype, torch.float32)
    ours, theirs = (F.normalize(rows.to(exact), dim=1) for rows in (student, teacher.detach()))
    apart = (ours - theirs).abs().sum(dim=1)
    if valid is None:
        valid = torch.ones_like(apart, dtype=torch.bool)
    return (apart * valid).sum() / valid.sum().clamp(min=1)
