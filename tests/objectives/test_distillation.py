import pytest
import torch

from rebus.objectives import embedding_distillation


def test_unit_vectors_are_compared_side_by_side_and_summed() -> None:
    student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(embedding_distillation(student, teacher)) == pytest.approx((0.4 + 0.8 + 2.0) / 2)
    assert float(embedding_distillation(student, teacher, torch.tensor([True, False]))) == pytest.approx(1.2)
    assert float(embedding_distillation(student, teacher, torch.tensor([False, False]))) == 0.0


def test_the_teacher_learns_nothing() -> None:
    student, teacher = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    embedding_distillation(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None
