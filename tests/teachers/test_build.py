"""A saved teacher over its LLM, backbone and data."""

import pytest
import torch
from small_teachers import OPTIONS, small, small_backbone

from recdistill.config import TeacherConfig, changed
from recdistill.errors import InputError
from recdistill.registry import TEACHERS
from recdistill.teachers.build import base_llm, load_teacher
from recdistill.teachers.scoring import make_outputs
from recdistill.teachers.training import train_teacher
from recdistill.training.distributed import Processes
from recdistill.training.recorder import NoRecorder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"), users=8)


@pytest.mark.parametrize("kind", ["ranking", pytest.param("generative", marks=pytest.mark.slow)])
def test_a_saved_teacher_scores_the_same(data, tiny_llm_folder, tmp_path, kind):
    own = {"candidates": 4} if kind == "generative" else {"teacher_window": 8}
    options = {"teacher_history": 3, "llm": str(tiny_llm_folder), "teacher": kind, "top_n": 5, "device": "cpu"}
    config = TeacherConfig(**options, **own, token_budget=900, tokens_per_batch=300, llm_learning_rate=0.01)
    backbone = small_backbone(data)
    teacher, _ = train_teacher(config, data, backbone, recorder=NoRecorder())
    teacher.save(tmp_path / "teacher")
    loaded = load_teacher(tmp_path / "teacher", config, backbone, data)
    assert type(loaded) is TEACHERS.get(kind)
    found, expected = (make_outputs(one, config, tmp_path / str(id(one))) for one in (loaded, teacher))
    for name in ("ranking", "distance", "item_embedding"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    for own_ranks, others in zip(loaded.ranks()[:2], teacher.ranks()[:2], strict=True):
        assert torch.equal(own_ranks.ranks, others.ranks)
    # How it ranks may be chosen anew.
    open_to_all = load_teacher(tmp_path / "teacher", changed(config, exclude_seen=False), backbone, data)
    assert not torch.equal(open_to_all.ranks()[1].ranks, teacher.ranks()[1].ranks)


def test_the_llm_is_loaded_as_the_teacher_needs_it(tiny_llm_folder):
    alone = Processes()
    for kind, has_head in (("ranking", False), ("generative", True)):
        llm = base_llm(TeacherConfig(llm=str(tiny_llm_folder), teacher=kind), alone)
        assert llm is not None
        assert (llm.model.get_output_embeddings() is not None) == has_head


def test_a_teacher_without_an_llm_loads_none(monkeypatch):
    monkeypatch.setattr(TEACHERS.get("ranking"), "needs_llm", False)
    assert base_llm(TeacherConfig(llm="/no/such"), Processes()) is None


def test_another_llm_or_folder_is_refused(data, tiny_llm_folder, tmp_path):
    config = TeacherConfig(**OPTIONS | {"llm": str(tiny_llm_folder), "token_budget": 0, "device": "cpu"})
    backbone = small_backbone(data)
    with pytest.raises(InputError, match="nowhere: no readable teacher"):
        load_teacher(tmp_path / "nowhere", config, backbone, data)
