"""Training a teacher without a run: rates, budgets, what it goes on from, what it refuses."""

from pathlib import Path

import pytest
import torch
from small_teachers import LENGTH, OPTIONS, KilledError, small, small_backbone

from recdistill.config import TeacherConfig, changed
from recdistill.errors import InputError
from recdistill.students.build import StudentShape, build_student
from recdistill.teachers import training as module
from recdistill.teachers.ranking.teacher import RankingTeacher
from recdistill.teachers.training import train_teacher
from recdistill.training.distributed import Processes
from recdistill.training.fit import TrainingPlan
from recdistill.training.recorder import NoRecorder


class Kept(NoRecorder):
    """Keeps the training curve, and its checkpoint in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.curve: list[tuple[int, dict[str, float]]] = []

    @property
    def work(self) -> Path:
        return self.folder

    def log_metrics(self, metrics, step=0):
        self.curve.append((step, dict(metrics)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"), users=12)


@pytest.fixture
def options(tiny_llm_folder):
    return OPTIONS | {"llm": str(tiny_llm_folder), "token_budget": 1200, "llm_learning_rate": 0.01, "device": "cpu"}


def test_it_trains_without_a_run(data, options):
    backbone = small_backbone(data)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    config = TeacherConfig(**options | {"token_budget": 16000, "llm_learning_rate": 0.003})
    teacher, progress = train_teacher(config, data, backbone, recorder=NoRecorder())
    assert progress.steps == 80
    assert progress.epoch == len(progress.history) == 20
    untrained, _ = train_teacher(changed(config, token_budget=0), data, backbone, recorder=NoRecorder())
    losses = []
    for one in (untrained, teacher):
        lesson = one.lesson()
        batches = [batch for batch, _ in zip(lesson.batches(), range(10), strict=False)]
        with torch.no_grad():
            losses.append(sum(float(lesson.step(batch)["total"]) for batch in batches))
    assert losses[1] < 0.9 * losses[0]
    assert not teacher.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    validation, test, _ = teacher.ranks()
    assert (len(validation.ranks), len(test.ranks)) == (len(data.validation), len(data.test))


def test_the_seed_decides_all_of_it(data, options):
    ranks = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(ranks))
        config = TeacherConfig(**options, seed=seed)
        teacher, _ = train_teacher(config, data, small_backbone(data), recorder=NoRecorder())
        ranks.append(torch.cat([one.ranks for one in teacher.ranks()[:2]]))
    assert torch.equal(ranks[0], ranks[1])
    assert not torch.equal(ranks[0], ranks[2])


def test_a_budget_of_none_trains_nothing(data, options):
    teacher, progress = train_teacher(
        TeacherConfig(**options | {"token_budget": 0}), data, small_backbone(data), recorder=NoRecorder()
    )
    # What it costs is the reading of the titles alone.
    assert (progress.steps, progress.seconds) == (0, teacher.model.title_seconds)
    assert not teacher.model.training


def test_the_gate_learns_at_its_own_rate(data, options, monkeypatch):
    seen = []

    def fit(plan, checkpoint, log):
        seen.extend(plan.optimizer.param_groups)
        gate = {id(parameter) for parameter in plan.module.gate.parameters()}
        of_gate = [all(id(p) in gate for p in group["params"]) for group in plan.optimizer.param_groups]
        trained = {id(p) for group in plan.optimizer.param_groups for p in group["params"]}
        assert of_gate == [False, True]
        assert trained == {id(p) for p in plan.module.parameters() if p.requires_grad}
        assert {id(t) for t in plan.parameters.values() if t.requires_grad} == trained
        raise InputError("seen enough")

    monkeypatch.setattr(module, "fit", fit)
    config = TeacherConfig(**options, gate_scale=0.3, llm_weight_decay=0.02)
    with pytest.raises(InputError, match="seen enough"):
        train_teacher(config, data, small_backbone(data), recorder=NoRecorder())
    assert [group["lr"] for group in seen] == pytest.approx([0.01, 0.003])
    assert [group["weight_decay"] for group in seen] == [0.02, 0.02]


def test_a_killed_training_goes_on_and_ends_the_same(data, options, tmp_path, monkeypatch):
    config, backbone = TeacherConfig(**options), small_backbone(data)
    whole, kept = Kept(tmp_path / "whole"), Kept(tmp_path / "killed")
    # A checkpoint after every step, whatever it costs.
    monkeypatch.setitem(TrainingPlan.__init__.__kwdefaults__, "checkpoint_spacing", 0.0)
    expected, _ = train_teacher(config, data, backbone, recorder=whole)
    score, calls = RankingTeacher.score, []

    def until(self, batch):
        if len(calls) == 4:
            raise KilledError
        calls.append(batch)
        return score(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(RankingTeacher, "score", until)
        with pytest.raises(KilledError):
            train_teacher(config, data, backbone, recorder=kept)
    kept.curve.clear()
    monkeypatch.setattr(RankingTeacher, "score", lambda self, batch: calls.append(batch) or score(self, batch))
    found, _ = train_teacher(config, data, backbone, recorder=kept)
    assert len(calls) == 6
    for name, tensor in expected.model.trained().items():
        assert torch.equal(found.model.trained()[name], tensor), name
    losses = [[metrics["train/total"] for _, metrics in one.curve] for one in (whole, kept)]
    assert losses[0] == losses[1]


def test_states_that_look_ahead_are_refused_before_the_llm_is_loaded(data, options, monkeypatch):
    shape = StudentShape("caser", 8, 0.0, LENGTH, "linear")
    caser = build_student(shape, data.num_items)
    monkeypatch.setattr(module, "base_llm", lambda *_: pytest.fail("the LLM was loaded"))
    with pytest.raises(InputError, match="backbone: is a caser, whose states look at the whole window; choose"):
        train_teacher(TeacherConfig(**options), data, caser, recorder=NoRecorder())
    named = TeacherConfig(**options, backbone_run_id="abc")
    with pytest.raises(InputError, match="backbone_run_id=abc: is a caser"):
        train_teacher(named, data, caser, recorder=NoRecorder())


def test_4_bits_are_not_divided_over_processes(data, options):
    config = TeacherConfig(**options, load_in_4bit=True)
    with pytest.raises(InputError, match="load_in_4bit=true: its weights cannot be divided over processes"):
        train_teacher(
            config, data, small_backbone(data), recorder=NoRecorder(), processes=Processes(0, 1, sharded=True)
        )
