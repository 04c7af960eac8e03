from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recdistill.students.build import StudentShape, build_student
from recdistill.students.student import Student

NUM_ITEMS, LENGTH = 40, 10


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shape() -> Callable[..., StudentShape]:
    def make(student: str, **changes: object) -> StudentShape:
        values: dict = {"hidden_size": 16, "blocks": 2, "heads": 2, "dropout": 0.1, "max_length": LENGTH}
        return StudentShape(student, **(values | {"output": "tied"} | changes))

    return make


@pytest.fixture
def teacher_embedding() -> Tensor:
    return torch.randn(NUM_ITEMS, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def build(shape: Callable[..., StudentShape], teacher_embedding: Tensor) -> Callable[..., Student]:
    """A student in evaluation mode, its parameters moved off their initial values."""

    def make(student: str, ed_weight: float = 0.0, **changes: object) -> Student:
        model = build_student(shape(student, **changes), NUM_ITEMS, teacher_embedding, ed_weight)
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            model.items.embedding.weight[NUM_ITEMS] = 0.0
        return model.eval()

    return make
