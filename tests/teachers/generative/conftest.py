import pytest
from small_teachers import small, small_backbone
from tiny_generative import generative_teacher

from recdistill.data.sequences import SequenceData
from recdistill.students.student import Student
from recdistill.teachers.generative import teacher as module
from recdistill.teachers.generative.model import GenerativeModel


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_A_BATCH", 700)


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> SequenceData:
    """Nine users of the small data set."""
    return small(tmp_path_factory.mktemp("data"), users=9)


@pytest.fixture(scope="package")
def backbone(data: SequenceData) -> Student:
    return small_backbone(data)


@pytest.fixture(scope="package")
def model(data: SequenceData, backbone: Student) -> GenerativeModel:
    """A model moved off its initial values, which tests do not change."""
    return generative_teacher(data, backbone).model
