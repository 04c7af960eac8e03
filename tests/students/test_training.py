"""Fitting a recommender: what validation chooses, what a teacher changes, and what a kill does not."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from registered_parts import registries_restored
from safetensors.torch import load_file
from torch import Tensor, nn

from recdistill.config import BaselineConfig, DistillConfig, StudentConfig, changed, narrow
from recdistill.data.sequences import SequenceData
from recdistill.distillation.objective import build_objective
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.registry import STUDENTS
from recdistill.students.build import build_student, load_recommender, save_recommender, shape_of
from recdistill.students.ease import EASE
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.measure import Fitted, ranks_of
from recdistill.students.student import Student, gather_states
from recdistill.students.training import (
    check_student,
    fit_recommender,
    loss_step,
    seen_mask,
    student_batches,
    trained_tensors,
)
from recdistill.training.recorder import NoRecorder

SMALL = {"hidden_size": 16, "max_length": 8, "epochs": 3, "patience": 3, "dropout": 0.1, "batch_size": 64}
RELEASED = {"ema_decay": 0.0, "schedule": "constant", "smoothing": 1, "least_epochs": 0}
PLAIN = {"lam": 0.0, "alpha": 0.0, "ed_weight": 0.0}
CPU = torch.device("cpu")


class KilledError(Exception):
    pass


@dataclass
class InMemory:
    """A recorder that keeps metrics by epoch and the names of files, and may be killed at its n-th metrics."""

    work: Path
    kill_at: int = -1
    epochs: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    files: dict[str, Tensor] = field(default_factory=dict)

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        self.epochs.append((step, dict(metrics)))
        if len(self.epochs) == self.kill_at:
            raise KilledError

    def tag(self, name: str, value: Any) -> None:
        pass

    def log_file(self, path: Path, folder: str) -> None:
        self.files[f"{folder}/{path.name}"] = load_file(path)["sample"]

    def curve(self, name: str) -> list[float]:
        return [metrics[name] for _, metrics in self.epochs if name in metrics]


Fit = Callable[..., Fitted]


@pytest.fixture
def recorder(tmp_path: Path) -> InMemory:
    (tmp_path / "work").mkdir()
    return InMemory(tmp_path / "work")


def distillation(**options: Any) -> DistillConfig:
    smaller = {} if options.get("student") == "caser" else {"blocks": 1}
    return DistillConfig(**SMALL | smaller | {"candidate_topk": 4} | options)


def baseline(**options: Any) -> BaselineConfig:
    smaller = {} if options.get("student") in ("caser", "ease", "itemknn") else {"blocks": 1}
    return BaselineConfig(**SMALL | smaller | options)


def weights(fitted: Fitted) -> dict[str, Tensor]:
    return fitted.model.state_dict()


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


# Without a teacher.


@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
@pytest.mark.parametrize("base_loss", ["ce", "bce"])
def test_every_student_learns_under_every_loss(
    student: str, base_loss: str, ring_data: SequenceData, recorder: InMemory
) -> None:
    config = baseline(student=student, base_loss=base_loss, epochs=12, patience=12, learning_rate=0.01)
    fitted = fit_recommender(config, ring_data, recorder=recorder)
    losses = recorder.curve("train/total")
    assert losses[-1] < losses[0]
    assert losses == recorder.curve("train/base")
    assert fitted.model.num_items == ring_data.num_items


def test_the_fitted_model_is_that_of_the_best_epoch(ring_data: SequenceData, recorder: InMemory) -> None:
    config = baseline(epochs=12, patience=2, batch_size=16, learning_rate=0.005, **RELEASED)
    fitted = fit_recommender(config, ring_data, recorder=recorder)
    curve = recorder.curve("val/ndcg_at_10")
    best = int(fitted.measured["best_epoch"])
    assert best == curve.index(max(curve))
    assert fitted.progress is not None
    assert fitted.progress.epoch == len(curve) == min(best + 3, 12)
    assert fitted.metrics["val/ndcg_at_10"] == curve[best] > 0.2  # items follow each other: this can be learnt
    for part, samples, kept in (
        ("val", ring_data.validation, fitted.validation),
        ("test", ring_data.test, fitted.test),
    ):
        ranks = ranks_of(fitted.model, samples, config.exclude_seen, CPU)
        assert torch.equal(ranks, kept.ranks)
        assert {name.split("/")[1]: value for name, value in fitted.metrics.items() if name.startswith(part)} == (
            metrics_from_ranks(ranks)
        )
    assert fitted.test.best.shape == (len(ring_data.test), 10)
    assert 0 < fitted.measured["latency_ms"] < 1000
    assert fitted.measured["ms_per_1000_recommendations"] > 0
    assert fitted.measured["train_seconds"] > 0


def test_a_part_of_the_validation_samples_chooses_and_all_are_reported(
    ring_data: SequenceData, recorder: InMemory, tmp_path: Path
) -> None:
    whole = InMemory(tmp_path / "whole")
    fit_recommender(baseline(epochs=3, patience=0), ring_data, recorder=whole)
    config = baseline(epochs=3, patience=0, validation_samples=7)
    fitted = fit_recommender(config, ring_data, recorder=recorder)
    ranks = ranks_of(fitted.model, ring_data.validation, config.exclude_seen, CPU)
    assert torch.equal(fitted.validation.ranks, ranks)
    assert fitted.metrics["val/ndcg_at_10"] == metrics_from_ranks(ranks)["ndcg_at_10"]
    part = ring_data.validation.at_most(7, config.seed)
    measured = metrics_from_ranks(ranks_of(fitted.model, part, config.exclude_seen, CPU))["ndcg_at_10"]
    assert recorder.curve("val/ndcg_at_10")[int(fitted.measured["best_epoch"])] == measured
    # Ranking fewer samples draws no random number of the training.
    assert recorder.curve("train/total") == whole.curve("train/total")
    assert ring_data.validation.at_most(len(ring_data.validation), 1) is ring_data.validation


def test_the_same_options_give_the_same_to_the_last_bit_and_another_seed_does_not(ring_data: SequenceData) -> None:
    fitted = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 10)
        fitted.append(fit_recommender(baseline(seed=seed, epochs=1), ring_data, recorder=NoRecorder()))
    assert same(weights(fitted[0]), weights(fitted[1]))
    assert not same(weights(fitted[0]), weights(fitted[2]))


def test_the_softmax_leaves_out_whole_histories_where_rankings_do(ring_data: SequenceData) -> None:
    config, train = baseline(), ring_data.train
    batch = next(student_batches(config, ring_data, causal=True)(0))

    def masked(config: BaselineConfig) -> tuple[Tensor, Tensor] | None:
        objective = build_objective(config, torch.from_numpy(ring_data.item_count), state_size=16, teacher=None)
        return seen_mask(config, ring_data, batch, objective.settings)

    found = masked(config)
    assert found is not None
    rows, items = found
    assert (rows.diff() >= 0).all()
    longer = 0
    for row, sample in enumerate(batch.sample.tolist()):
        history = train.items[train.start[sample] : train.end[sample]].tolist()
        assert items[rows == row].tolist() == history
        longer += len(history) > config.max_length
    assert longer
    for changes in ({"mask_seen": False}, {"exclude_seen": False}, {"base_loss": "bce"}):
        assert masked(changed(config, **changes)) is None


@pytest.mark.parametrize("change", [{"mask_seen": False}, {"exclude_seen": False}])
def test_masking_seen_items_changes_the_student(change: dict[str, Any], ring_data: SequenceData) -> None:
    masked, plain = (
        fit_recommender(changed(baseline(epochs=1), **one), ring_data, recorder=NoRecorder()) for one in ({}, change)
    )
    assert not same(weights(masked), weights(plain))


@pytest.mark.parametrize("student", ["sasrec", "caser"])
@pytest.mark.parametrize("batch_size", [1, 3, 16, 1000])
def test_an_epoch_has_the_steps_its_batch_size_says(student: str, batch_size: int, ring_data: SequenceData) -> None:
    config = baseline(student=student, batch_size=batch_size)
    # A walker who comes around sees a place again: such a target teaches nothing where rankings leave it out.
    trained = [sample for sample, seen in enumerate(ring_data.train.target_seen) if not seen]
    assert 0 < len(trained) < len(ring_data.train)
    for epoch in range(2):
        drawn = list(student_batches(config, ring_data, causal=student != "caser")(epoch))
        assert len(drawn) == -(-len(trained) // batch_size)
        assert sorted(torch.cat([batch.sample for batch in drawn]).tolist()) == trained
    everything = changed(config, exclude_seen=False)
    drawn = student_batches(everything, ring_data, causal=student != "caser")(0)
    assert sum(len(batch) for batch in drawn) == len(ring_data.train)


def test_a_report_sees_every_epoch_and_may_end_the_training(ring_data: SequenceData, recorder: InMemory) -> None:
    seen = []
    fitted = fit_recommender(
        baseline(),
        ring_data,
        recorder=recorder,
        report=lambda epoch, metrics: seen.append((epoch, metrics["val/ndcg_at_10"])),
    )
    assert seen == [(epoch, metrics["val/ndcg_at_10"]) for epoch, metrics in recorder.epochs]
    assert len(seen) == 3
    assert fitted.test.best.shape == (len(ring_data.test), 0)

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        fit_recommender(baseline(), ring_data, recorder=NoRecorder(), report=stop)


def test_the_released_recipe_is_a_plain_loop_to_the_last_bit(ring_data: SequenceData) -> None:
    config = baseline(epochs=4, patience=4, **RELEASED)
    torch.manual_seed(config.seed)
    model = build_student(shape_of(config), ring_data.num_items)
    objective = build_objective(
        config, torch.as_tensor(ring_data.item_count), state_size=model.state_size, teacher=None
    )
    step = loss_step(config, ring_data, model, objective, None, CPU)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    curve, kept = [], []
    for epoch in range(4):
        model.train()
        for batch in student_batches(config, ring_data, model.causal)(epoch):
            step(batch)["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        ranks = ranks_of(model, ring_data.validation, config.exclude_seen, CPU)
        curve.append(metrics_from_ranks(ranks)["ndcg_at_10"])
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    fitted = fit_recommender(config, ring_data, recorder=NoRecorder())
    assert same(weights(fitted), kept[curve.index(max(curve))])


@pytest.mark.parametrize(
    "change",
    [{"ema_decay": 0.9}, {"schedule": "linear"}, {"schedule": "cosine"}, {"rate_warmup": 0.3}],
)
def test_each_part_of_the_recipe_changes_the_student(change: dict[str, Any], ring_data: SequenceData) -> None:
    plain, other = (
        fit_recommender(baseline(**RELEASED | one), ring_data, recorder=NoRecorder()) for one in ({}, change)
    )
    assert not same(weights(plain), weights(other))


def test_the_floor_counts_where_the_rate_falls(ring_data: SequenceData) -> None:
    found = [
        fit_recommender(baseline(**RELEASED | one), ring_data, recorder=NoRecorder())
        for one in (
            {"rate_floor": 0.5},
            {},
            {"schedule": "linear"},
            {"schedule": "linear", "rate_floor": 1.0},
            {"schedule": "linear", "rate_floor": 0.5},
        )
    ]
    assert same(weights(found[0]), weights(found[1]))
    assert same(weights(found[1]), weights(found[3]))
    assert not same(weights(found[2]), weights(found[4]))


def test_no_patience_trains_to_the_end(ring_data: SequenceData, recorder: InMemory) -> None:
    fit_recommender(baseline(epochs=9, patience=0, learning_rate=1e-9), ring_data, recorder=recorder)
    assert len(recorder.curve("val/ndcg_at_10")) == 9


def test_a_buffer_that_is_saved_is_kept_with_the_best_weights() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.register_buffer("constant", torch.zeros(1), persistent=False)
    running = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert trained_tensors(module).keys() == {name for name, _ in module.named_parameters()} | running


@pytest.mark.parametrize("base_loss", ["ce", "bce"])
@pytest.mark.parametrize("mask", [True, False])
def test_items_without_a_target_are_left_as_they_were_drawn(
    base_loss: str, mask: bool, ring_data: SequenceData
) -> None:
    """Those of the ring's places that are no training target and in no history either."""
    seen = set(ring_data.train.items.tolist())
    unseen = [item for item in range(ring_data.num_items) if item not in seen]
    assert unseen
    assert not ring_data.trained[unseen].any()
    config = baseline(base_loss=base_loss, mask_untrained=mask, untrained_negatives=False)
    torch.manual_seed(config.seed)
    drawn = build_student(shape_of(config), ring_data.num_items).item_table()[unseen]
    found = fit_recommender(config, ring_data, recorder=NoRecorder()).model.item_table()[unseen]
    assert torch.equal(drawn, found) == mask


@pytest.mark.parametrize("base_loss", ["bce", "gbce"])
def test_a_loss_whose_scores_have_a_scale_pushes_all_items(base_loss: str, ring_data: SequenceData) -> None:
    """Where nothing pushes an item without a target, it stands above those that are pushed."""
    config = baseline(base_loss=base_loss, epochs=20, patience=0, negatives=16, learning_rate=0.03, **RELEASED)
    history, length = (torch.from_numpy(one) for one in ring_data.test.windows_of(range(20), 8, ring_data.num_items))
    best = {}
    for pushes in (True, False):
        model = fit_recommender(changed(config, untrained_negatives=pushes), ring_data, recorder=NoRecorder()).model
        with torch.no_grad():
            best[pushes] = model.scores(history, length)[:, ~ring_data.trained].max(dim=1).values.mean()
    assert best[True] < best[False] - 0.5
    assert "untrained_negatives" in config.values()
    for unread in (changed(config, base_loss="ce"), changed(config, item_init="views", base_loss="bce")):
        assert "untrained_negatives" not in unread.values()
        assert not unread.pushes_untrained


# With a teacher.


@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
@pytest.mark.parametrize("base_loss", ["ce", "bce"])
def test_without_the_teachers_terms_it_is_the_undistilled_student_to_the_last_bit(
    student: str, base_loss: str, ring_data: SequenceData, teacher: TeacherAnswers
) -> None:
    config = distillation(student=student, base_loss=base_loss, **PLAIN)
    ours = fit_recommender(config, ring_data, teacher=teacher, recorder=NoRecorder())
    plain = fit_recommender(narrow(config, BaselineConfig), ring_data, recorder=NoRecorder())
    assert same(weights(ours), weights(plain))
    untaught = fit_recommender(distillation(student=student, base_loss=base_loss), ring_data, recorder=NoRecorder())
    assert same(weights(untaught), weights(plain))


@pytest.mark.parametrize(
    "changes",
    [
        {"lam": 0.5},
        {"alpha": 0.5},
        {"ed_weight": 0.5},
        {"lam": 0.5, "ranking_loss": "kl"},
        {"lam": 0.5, "ranking_loss": "bce"},
        {"lam": 0.5, "base_weight": 0.0},
        {"output_weight": 0.5},
    ],
)
def test_each_term_changes_the_student(
    changes: dict[str, Any], ring_data: SequenceData, teacher: TeacherAnswers, recorder: InMemory
) -> None:
    plain = fit_recommender(distillation(**PLAIN), ring_data, teacher=teacher, recorder=NoRecorder())
    other = fit_recommender(distillation(**PLAIN | changes), ring_data, teacher=teacher, recorder=recorder)
    assert not same(weights(plain), weights(other))
    assert weights(other).keys() - weights(plain).keys() <= {"items.projection.weight", "items.projection.bias"}
    for name in ("total", "base", "dro", "ranking", *(["output"] if "output_weight" in changes else [])):
        assert len(recorder.curve(f"train/{name}")) == 3, name


@pytest.mark.parametrize("base_loss", ["ce", "bce"])
def test_a_candidates_loss_may_be_another_than_the_targets(
    base_loss: str, ring_data: SequenceData, teacher: TeacherAnswers
) -> None:
    fitted = {}
    for name in ("base", "ranking", "bce", "ce"):
        config = distillation(base_loss=base_loss, **PLAIN | {"lam": 0.5, "ranking_loss": name})
        fitted[name] = weights(fit_recommender(config, ring_data, teacher=teacher, recorder=NoRecorder()))
    assert same(fitted["base"], fitted["ranking"])
    assert not same(fitted["bce"], fitted["ce"])
    other = "bce" if base_loss == "ce" else "ce"
    assert not same(fitted["base"], fitted[other])
    if base_loss == "bce":
        assert same(fitted["base"], fitted["bce"])


def test_wide_item_embeddings_are_projected_in_bfloat16(ring_data: SequenceData, teacher: TeacherAnswers) -> None:
    for width, dtype in ((1024, torch.float32), (1025, torch.bfloat16)):
        values = vars(teacher) | {"item_embedding": torch.randn(42, width)}
        fitted = fit_recommender(
            distillation(epochs=1), ring_data, teacher=TeacherAnswers(**values), recorder=NoRecorder()
        )
        assert fitted.model.items.teacher_embedding.dtype == dtype


def test_a_step_reads_only_the_directions_that_are_asked_for(
    ring_data: SequenceData, teacher: TeacherAnswers, recorder: InMemory, capsys: pytest.CaptureFixture[str]
) -> None:
    some = fit_recommender(distillation(ed_rank=3), ring_data, teacher=teacher, recorder=NoRecorder())
    assert re.search(r"ed_rank=3: leaves out \d+\.\d% of the length of the teacher's item emb", capsys.readouterr().out)
    assert isinstance(some.model, Student)
    assert some.model.items.teacher_embedding.shape == (42, 3)  # type: ignore[union-attr]
    whole = fit_recommender(distillation(), ring_data, teacher=teacher, recorder=NoRecorder())
    assert weights(some).keys() == weights(whole).keys()
    assert not same(weights(some), weights(whole))
    for rank in (12, 50):
        with pytest.raises(InputError, match=rf"^ed_rank={rank}: the teacher's table is 42 x 12; give less"):
            fit_recommender(distillation(ed_rank=rank), ring_data, teacher=teacher, recorder=recorder)


def test_the_kept_student_needs_no_teacher(ring_data: SequenceData, teacher: TeacherAnswers, tmp_path: Path) -> None:
    fitted = fit_recommender(distillation(), ring_data, teacher=teacher, recorder=NoRecorder())
    save_recommender(tmp_path, fitted.model, fitted.shape, fold=True)
    ranks = ranks_of(load_recommender(tmp_path), ring_data.test, True, CPU)
    # Folding the projection into the table rounds otherwise: a near tie may turn.
    assert int((ranks != fitted.test.ranks).sum()) <= 1


def test_the_samples_that_the_teacher_covers_are_distilled(
    ring_data: SequenceData, teacher: TeacherAnswers, recorder: InMemory
) -> None:
    fit_recommender(distillation(), ring_data, teacher=teacher, recorder=recorder)
    learnt = torch.from_numpy(~ring_data.train.target_seen)
    share = float((teacher.covered & learnt).float().mean())
    assert recorder.curve("train/distilled_share") == pytest.approx([share] * 3)
    assert recorder.files == {}


@pytest.mark.parametrize(("policy", "refresh"), [("kl_divergence", 2), ("random", 1), ("ground_truth_error", 5)])
def test_a_policy_keeps_its_share_and_chooses_again(
    policy: str, refresh: int, ring_data: SequenceData, teacher: TeacherAnswers, recorder: InMemory
) -> None:
    config = distillation(
        selection_policy=policy, selection_fraction=0.3, refresh_interval=refresh, epochs=4, patience=4
    )
    fit_recommender(config, ring_data, teacher=teacher, recorder=recorder)
    answered = teacher.covered & torch.from_numpy(~ring_data.train.target_seen)
    count = round(0.3 * int(answered.sum()))
    assert sorted(recorder.files) == [f"selection/epoch-{epoch:03d}.safetensors" for epoch in range(0, 4, refresh)]
    for sample in recorder.files.values():
        assert len(sample) == len(sample.unique()) == count
        assert answered[sample].all()
    assert recorder.curve("train/distilled_share") == pytest.approx([count / len(ring_data.train)] * 4)
    overlaps = recorder.curve("train/selection_overlap")
    assert len(overlaps) == len(range(refresh, 4, refresh))
    assert all(0 <= one <= 1 for one in overlaps)


def is_reproducible(name: str) -> bool:
    return not name.startswith("system/") and "second" not in name


@pytest.mark.parametrize("kill_at", [1, 2, 3])
@pytest.mark.parametrize("recipe", [RELEASED, {"ema_decay": 0.95, "schedule": "cosine", "smoothing": 2}])
def test_a_killed_training_goes_on_with_the_same_numbers_and_its_selections(
    kill_at: int, recipe: dict[str, Any], ring_data: SequenceData, teacher: TeacherAnswers, tmp_path: Path
) -> None:
    chosen = {"selection_policy": "kl_divergence", "selection_fraction": 0.4, "refresh_interval": 2}
    config = distillation(**chosen, output_weight=0.2, alpha=0.1, **recipe)
    whole, killed, resumed = InMemory(tmp_path / "a"), InMemory(tmp_path / "b", kill_at), InMemory(tmp_path / "b")
    expected = fit_recommender(config, ring_data, teacher=teacher, recorder=whole)
    with pytest.raises(KilledError):
        fit_recommender(config, ring_data, teacher=teacher, recorder=killed)
    found = fit_recommender(config, ring_data, teacher=teacher, recorder=resumed)
    assert same(weights(found), weights(expected))
    assert torch.equal(found.test.ranks, expected.test.ranks)
    assert (
        resumed.files.keys()
        == whole.files.keys()
        == {
            "selection/epoch-000.safetensors",
            "selection/epoch-002.safetensors",
        }
    )
    assert all(torch.equal(sample, whole.files[name]) for name, sample in resumed.files.items())
    for (epoch, ours), (of_whole, theirs) in zip(resumed.epochs, whole.epochs, strict=True):
        assert epoch == of_whole
        assert {name: value for name, value in ours.items() if is_reproducible(name)} == {
            name: value for name, value in theirs.items() if is_reproducible(name)
        }


def test_a_finished_checkpoint_is_not_trained_again(ring_data: SequenceData, recorder: InMemory) -> None:
    first = fit_recommender(baseline(), ring_data, recorder=recorder)
    again = fit_recommender(baseline(), ring_data, recorder=recorder)
    assert same(weights(first), weights(again))
    assert first.progress == again.progress
    shutil.rmtree(recorder.work)
    assert same(weights(first), weights(fit_recommender(baseline(), ring_data, recorder=recorder)))


# In closed form.


@pytest.mark.parametrize("student", STUDENTS.names(gradient=False))
def test_a_closed_form_recommender_is_fitted_and_measured(
    student: str, ring_data: SequenceData, recorder: InMemory, tmp_path: Path
) -> None:
    fitted = fit_recommender(baseline(student=student), ring_data, recorder=recorder)
    assert fitted.progress is None
    assert fitted.measured.keys() == {"train_seconds", "ms_per_1000_recommendations", "latency_ms"}
    assert fitted.metrics["test/ndcg_at_10"] > 0.1
    assert fitted.test.best.shape == (len(ring_data.test), 10)
    # All of a history is read, whatever max_length students have.
    assert fitted.shape.max_length == int((ring_data.test.end - ring_data.test.start).max()) > 8
    save_recommender(tmp_path / "kept", fitted.model, fitted.shape, fold=True)
    loaded = load_recommender(tmp_path / "kept")
    assert torch.equal(ranks_of(loaded, ring_data.test, True, CPU), fitted.test.ranks)
    assert recorder.epochs == []


# Before any work.


@pytest.mark.parametrize(
    ("config", "num_items", "said"),
    [
        (StudentConfig(heads=5), 100, "heads=5: must divide hidden_size=64"),
        (StudentConfig(student="caser", max_length=3), 100, "max_length=3: caser needs at least 4"),
        (StudentConfig(student="ease"), 30_000, "student=ease: .* at most 20,000 items"),
        (
            DistillConfig(selection_policy="custom", selection_fraction=0.5, policy_file="no such file.py"),
            100,
            "policy_file=no such file.py: cannot be run",
        ),
        (
            DistillConfig(gamma_position=0, gamma_confidence=0, gamma_consistency=0),
            100,
            "gammas of position, .* not all 0",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(config: StudentConfig, num_items: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_student(config, num_items)


def test_a_check_draws_no_random_number_and_takes_what_can_be_fitted() -> None:
    before = torch.get_rng_state()
    for student in STUDENTS.names():
        check_student(StudentConfig(student=student), 1000)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_not_finite_is_refused(ring_data: SequenceData) -> None:
    with pytest.raises(InputError, match=r"sasrec epoch: .* lower the learning rate"):
        fit_recommender(baseline(learning_rate=1e30), ring_data, recorder=NoRecorder())


class Plain(Student):
    """The last item's embedding."""

    causal = True

    def __init__(self, items: ItemEmbedding, dropout: float, max_length: int, output: str) -> None:
        super().__init__(items, items.hidden_size, max_length, output)

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return gather_states(self.items(history), row, column)


def student(**methods: Any) -> type[Student]:
    """A student in which some attributes are others."""
    return type("Own", (Plain,), methods | {"__module__": __name__})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (student(causal="yes"), r": does not say whether it is causal; write causal = True or False in it"),
        (student(__init__=lambda self, items: None), r" \(test_training\.py.*\): TypeError: "),
        (student(forward=lambda self, *place: self.missing), r" \(test_training\.py:\d+\): AttributeError: 'Own'"),
        (student(forward=lambda self, *place: self.items(place[0])), r"Own: forward gives \[\d+, \d+, \d+\] for \d+ "),
        (EASE, r": is registered with gradient=True, but is no Student; derive it from that, or register it with"),
    ],
)
def test_what_a_student_of_ones_own_does_wrong_is_one_line(
    kind: type, said: str, ring_data: SequenceData, recorder: InMemory
) -> None:
    with registries_restored():
        STUDENTS.register("own", gradient=True)(kind)
        config = BaselineConfig(student="own", **SMALL | {"epochs": 1, "least_epochs": 1})
        with pytest.raises(InputError, match="^student (?:'own')?" + said):
            checked_and_fitted(config, ring_data, recorder)


def checked_and_fitted(config: BaselineConfig, data: SequenceData, recorder: InMemory) -> None:
    check_student(config, data.num_items)
    fit_recommender(config, data, recorder=recorder)
