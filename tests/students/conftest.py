from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from recdistill.config import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.load import split_data
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.students.build import StudentShape, build_student
from recdistill.students.shape import own_options
from recdistill.students.student import Student
from recdistill.testing.teachers import small_data

NUM_ITEMS, LENGTH = 40, 10


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shape() -> Callable[..., StudentShape]:
    def make(student: str, **changes: object) -> StudentShape:
        options = {name: changes.pop(name) for name in own_options(student) if name in changes}
        values: dict = {"hidden_size": 16, "dropout": 0.1, "max_length": LENGTH, "output": "tied"}
        return StudentShape(student, **(values | changes), options=options)

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


@pytest.fixture(scope="session")
def ring() -> Interactions:
    """Thirty users of 6 to 16 interactions, an item mostly followed by the next of 40; nobody has items 40 and 41."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(30):
        item, begin = random.integers(40), random.integers(20)
        for time in range(random.integers(6, 17)):
            rows.append((user, item, begin + time))
            item = (item + 1) % 40 if random.random() < 0.8 else random.integers(40)
    user, item, timestamp = np.array(rows).T
    return Interactions(
        user=user,
        item=item,
        timestamp=timestamp,
        user_ids=tuple(f"u{one}" for one in range(30)),
        item_ids=tuple(f"i{one}" for one in range(42)),
        titles=tuple(f"Film {one}" for one in range(42)),
        source="the ring",
    )


@pytest.fixture(scope="session")
def ring_data(ring: Interactions) -> SequenceData:
    """The ring, the last two items of each user held out."""
    return split_data(ring, DataConfig())


@pytest.fixture(scope="session")
def teacher(ring_data: SequenceData) -> TeacherAnswers:
    """A teacher that is sure of the next items of the ring, for three of four samples."""
    train = ring_data.train
    covered = torch.arange(len(train)) % 4 > 0
    last = torch.as_tensor(train.items[train.end - 1])
    generator = torch.Generator().manual_seed(1)
    sample = covered.nonzero().squeeze(1)
    return TeacherAnswers(
        covered=covered,
        ranking=(last[:, None] + torch.arange(1, 5)) % 40,
        distance=torch.arange(1.0, 5.0).repeat(len(train), 1),
        item_embedding=torch.randn(42, 12, generator=generator),
        sample=sample,
        sequence_embedding=torch.randn(len(sample), 6, generator=generator),
        llm="tiny",
        covered_share=0.75,
    )


@pytest.fixture(scope="session")
def drawn_data() -> SequenceData:
    """Sixty users, forty items."""
    return small_data(60, 40)


@pytest.fixture(scope="session")
def drawn_answers(drawn_data: SequenceData) -> TeacherAnswers:
    """A teacher's five candidates of half of the samples, drawn at random."""
    draw, samples = torch.Generator().manual_seed(0), len(drawn_data.train)
    covered = torch.rand(samples, generator=draw) < 0.5
    return TeacherAnswers(
        covered=covered,
        ranking=torch.stack([torch.randperm(drawn_data.num_items, generator=draw)[:5] for _ in range(samples)]),
        distance=torch.rand(samples, 5, generator=draw),
        item_embedding=torch.randn(drawn_data.num_items, 12, generator=draw),
        sample=covered.nonzero().squeeze(1),
    )
