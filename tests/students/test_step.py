"""The losses of a training step: by blocks, and over drawn negatives with few rows of the item table."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recdistill.config import BaselineConfig, DataConfig, DistillConfig, changed
from recdistill.data.batches import Batch, batches
from recdistill.data.flat_samples import FlatSamples
from recdistill.data.interactions import Interactions
from recdistill.data.load import split_data
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.distillation import blockwise
from recdistill.distillation.objective import Objective, build_objective, settings_of
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students import step
from recdistill.students.build import shape_of
from recdistill.students.step import loss_step, negatives_among, seen_mask, student_batches
from recdistill.students.student import Student
from recdistill.students.text_vectors import TextVectors
from recdistill.students.training import (
    fit_recommender,
    initial_student,
    optimizer_of,
    row_sparse,
    selection_of,
    student_plan,
)
from recdistill.testing.teachers import small_data
from recdistill.training.distributed import Processes
from recdistill.training.recorder import NoRecorder

CPU = torch.device("cpu")
SMALL = {"hidden_size": 16, "max_length": 8, "epochs": 3, "patience": 3, "dropout": 0.0, "batch_size": 64}


def options_of(student: str, **options: Any) -> dict[str, Any]:
    return SMALL | {"student": student} | options


def teacher_of(data: SequenceData) -> TeacherAnswers:
    """A teacher of every second sample, whose item embeddings are narrow."""
    generator = torch.Generator().manual_seed(0)
    samples = len(data.train)
    covered = torch.arange(samples) % 2 == 0
    return TeacherAnswers(
        covered=covered,
        ranking=torch.randint(40, (samples, 4), generator=generator),
        distance=torch.rand(samples, 4, generator=generator),
        item_embedding=torch.randn(data.num_items, 6, generator=generator),
        sample=covered.nonzero().squeeze(1),
        covered_share=0.5,
    )


def one_step(config: Any, data: SequenceData, teacher: TeacherAnswers | None = None) -> tuple[dict, Student]:
    """Losses and the model, with gradients, of the first batch."""
    torch.manual_seed(1)
    model = initial_student(config, shape_of(config), data.num_items, teacher).train()
    selection = selection_of(config, data, model, teacher, NoRecorder())
    if selection is not None:
        selection.begin_epoch(0)
        model.train()
    counts = torch.as_tensor(data.item_count)
    objective = build_objective(config, counts, state_size=model.state_size, teacher=teacher)
    step = loss_step(config, data, model, objective, selection, CPU)
    losses = step(next(student_batches(config, data, model.causal)(0)))
    losses["total"].backward()
    return losses, model


def dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
@pytest.mark.parametrize("distilled", [False, True])
def test_with_all_items_drawn_a_step_is_that_of_the_full_softmax(
    student: str, output: str, distilled: bool, ring_data: SequenceData
) -> None:
    options = options_of(student, output=output)
    kind, teacher = BaselineConfig, None
    if distilled:
        # Without consistency: in float32, at the start, which item is the K-th best is a matter of rounding.
        options |= {"alpha": 0.1, "candidate_topk": 4, "ed_weight": 0.5, "gamma_consistency": 0.0}
        kind, teacher = DistillConfig, teacher_of(ring_data)
    full, of_full = one_step(kind(**options), ring_data, teacher)
    sampled, of_sampled = one_step(kind(**options, base_loss="sampled", negatives=10_000), ring_data, teacher)
    for name, value in full.items():
        torch.testing.assert_close(sampled[name], value, rtol=1e-4, atol=1e-5)
    table = dict(of_sampled.named_parameters())
    assert table["items.embedding.weight"].grad.is_sparse
    assert output == "tied" or table["output.weight"].grad.is_sparse
    for name, parameter in of_full.named_parameters():
        torch.testing.assert_close(dense(table[name].grad), parameter.grad, rtol=1e-3, atol=1e-5)


def test_few_negatives_reach_few_rows_and_the_step_leaves_the_others(ring_data: SequenceData) -> None:
    config = BaselineConfig(**options_of("sasrec", base_loss="sampled", negatives=2, batch_size=4))
    _, model = one_step(config, ring_data)
    table = model.items.embedding.weight
    used = table.grad.coalesce().indices()[0]
    assert 0 < len(used) < ring_data.num_items / 2
    before = table.detach().clone()
    optimizer_of(config, model).step()
    changed = (table.detach() != before).any(dim=1).nonzero().squeeze(1)
    assert set(changed.tolist()) <= set(used.tolist()) - {ring_data.padding_id}
    assert len(changed) >= len(used) - 1


@pytest.mark.parametrize("base_loss", ["sampled", "gbce"])
def test_an_own_output_and_its_bias_learn_in_the_rows_in_use_alone(base_loss: str, ring_data: SequenceData) -> None:
    options = options_of("sasrec", base_loss=base_loss, negatives=1, batch_size=4, output="linear")
    config = BaselineConfig(**options)
    _, model = one_step(config, ring_data)
    assert model.output is not None
    bias = model.output.bias
    used = bias.grad.coalesce().indices()[0].tolist()
    assert 0 < len(used) < ring_data.num_items / 2
    assert used == model.output.weight.grad.coalesce().indices()[0].tolist()
    assert {id(one) for one in row_sparse(config, model)} >= {id(bias), id(model.output.weight)}
    optimizer_of(config, model).step()
    changed_rows = bias.detach().nonzero().squeeze(1).tolist()
    assert set(changed_rows) <= set(used)
    assert changed_rows


@pytest.mark.parametrize("base_loss", ["ce", "sampled", "gbce"])
def test_no_step_holds_the_scores_of_all_items_for_all_samples(
    base_loss: str, ring_data: SequenceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "block_rows", lambda *_: 50)

    class Watch(TorchDispatchMode):
        shapes: ClassVar[set[tuple[int, ...]]] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    Watch.shapes.add(tuple(tensor.shape))
            return result

    config = BaselineConfig(**options_of("sasrec", base_loss=base_loss, negatives=5, batch_size=300))
    with Watch():
        one_step(config, ring_data)
    batch = len(next(student_batches(config, ring_data, causal=True)(0)))
    assert batch > 128
    blocks = any(40 < shape[0] <= 50 and shape[-1] == 42 for shape in Watch.shapes if len(shape) == 2)
    assert blocks == (base_loss == "ce")
    assert not any(shape[0] == batch and shape[-1] >= 42 for shape in Watch.shapes if len(shape) == 2)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_a_student_of_shared_negatives_learns_and_goes_on_after_a_kill(
    sampling: str, ring_data: SequenceData, tmp_path: Path
) -> None:
    config = BaselineConfig(
        **options_of("sasrec", base_loss="sampled", negatives=15, negative_sampling=sampling)
        | {"epochs": 12, "patience": 12, "learning_rate": 0.01, "dropout": 0.1}
    )

    class Killed(Exception):  # noqa: N818
        pass

    class Recorder:
        def __init__(self, work: Path, kill_at: int = -1) -> None:
            self.work, self.kill_at, self.losses = work, kill_at, []
            work.mkdir(exist_ok=True)

        def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
            self.losses.append(metrics["train/base"])
            if step == self.kill_at:
                raise Killed

        def tag(self, name: str, value: object) -> None:
            pass

    whole, killed = Recorder(tmp_path / "a"), Recorder(tmp_path / "b", kill_at=4)
    expected = fit_recommender(config, ring_data, recorder=whole)
    assert expected.metrics["val/ndcg_at_10"] > 0.3
    assert whole.losses[-1] < 0.8 * whole.losses[0]
    with pytest.raises(Killed):
        fit_recommender(config, ring_data, recorder=killed)
    found = fit_recommender(config, ring_data, recorder=Recorder(tmp_path / "b"))
    theirs = expected.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.model.state_dict().items())


def test_a_window_answers_as_many_samples_as_asked(ring_data: SequenceData) -> None:
    def largest(**options: Any) -> int:
        config = BaselineConfig(**options_of("sasrec", **options))
        drawn = student_batches(config, ring_data, causal=True)(0)
        return max(int(batch.row.bincount().max()) for batch in drawn)

    assert largest() == 8
    assert largest(window_stride=4) == 4
    assert largest(window_stride=1) == 1
    with pytest.raises(InputError, match="window_stride=9: must be at most max_length=8"):
        BaselineConfig(**options_of("sasrec", window_stride=9))


@pytest.mark.parametrize("base_loss", ["ce", "bce"])
@pytest.mark.parametrize("student", ["sasrec", "caser"])
def test_a_batch_cut_on_a_device_has_the_losses_of_one_of_the_cpu(
    ring_data: SequenceData, student: str, base_loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit where the device is the CPU, with several blocks whose pairs are not read."""
    monkeypatch.setattr(blockwise, "block_rows", lambda *_: 10)
    config = DistillConfig(**options_of(student, base_loss=base_loss, candidate_topk=4))
    expected, model = one_step(config, ring_data, teacher_of(ring_data))
    cut_there = partial(batches, flat=FlatSamples.of(ring_data.train))
    monkeypatch.setattr(step, "batches", lambda *given, flat, **options: cut_there(*given, **options))
    monkeypatch.setattr(blockwise, "is_read_at_once", lambda _: False)
    found, other = one_step(config, ring_data, teacher_of(ring_data))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert mine.grad is theirs.grad is None or torch.equal(dense(mine.grad), dense(theirs.grad))


def test_batches_are_cut_on_the_device_but_under_drawn_negatives(ring_data: SequenceData) -> None:
    for base_loss, where in (("ce", "meta"), ("bce", "meta"), ("sampled", "cpu"), ("gbce", "cpu")):
        config = BaselineConfig(**options_of("sasrec", base_loss=base_loss))
        batch = next(student_batches(config, ring_data, causal=True, device="meta")(0))
        assert batch.history.device.type == where
        plan = student_plan(
            config, ring_data, shape_of(config), None, NoRecorder(), processes=Processes(0, 2, torch.device("meta"))
        )[1]
        assert type(next(iter(plan.batches(0)))) is Batch


def test_what_shared_negatives_cannot_do_is_refused(ring_data: SequenceData) -> None:
    config = BaselineConfig(**options_of("sasrec", base_loss="sampled"))
    model = initial_student(config, shape_of(config), ring_data.num_items, None)
    counts, settings = torch.as_tensor(ring_data.item_count), ObjectiveSettings(base_loss="sampled")
    reads = Objective(settings, counts, {"entropy": torch.nn.Identity()}, {"entropy": 1.0})
    with pytest.raises(InputError, match=r"base_loss=sampled: .*entropy_weight reads them"):
        loss_step(config, ring_data, model, reads, None, CPU)

    class OwnScores(type(model)):  # type: ignore[misc]
        def logits(self, states: torch.Tensor) -> torch.Tensor:
            return super().logits(states) * 2

    model.__class__ = OwnScores
    with pytest.raises(InputError, match="base_loss=sampled: sasrec makes scores of its own"):
        loss_step(config, ring_data, model, Objective(settings, counts), None, CPU)
    with pytest.raises(InputError, match="negative_sampling=popularity: gbce"):
        BaselineConfig(base_loss="gbce", negative_sampling="popularity")


def test_a_student_with_scores_of_its_own_is_trained_by_them(ring_data: SequenceData) -> None:
    config = BaselineConfig(**options_of("sasrec"))
    torch.manual_seed(1)
    model = initial_student(config, shape_of(config), ring_data.num_items, None)

    class OwnScores(type(model)):  # type: ignore[misc]
        def logits(self, states: torch.Tensor) -> torch.Tensor:
            return 0 * super().logits(states)

    model.__class__ = OwnScores
    objective = build_objective(config, torch.as_tensor(ring_data.item_count), state_size=16, teacher=None)
    losses = loss_step(config, ring_data, model, objective, None, CPU)(
        next(student_batches(config, ring_data, causal=True)(0))
    )
    plain, _ = one_step(config, ring_data)
    # Uniform over what competes: below the logarithm of all items, and not the student's own.
    assert losses["base"] < torch.tensor(42.0).log()
    assert losses["base"] != plain["base"]


@pytest.fixture
def repeated_data(ring_data: SequenceData) -> tuple[SequenceData, int]:
    """The ring, one sample of which has a target of no other sample that its own history holds; and that item."""
    train, alone = ring_data.train, 41
    items = np.append(train.items, [0, alone, alone])
    end = np.append(train.end, len(items) - 1)
    start, user = np.append(train.start, len(items) - 3), np.append(train.user, 0)
    return replace(ring_data, train=Samples(items, start, end, user)), alone


@pytest.mark.parametrize("item_init", ["random", "views"])
def test_an_item_that_is_only_repeated_is_masked_as_one_without_a_target(
    repeated_data: tuple[SequenceData, int], item_init: str
) -> None:
    data, alone = repeated_data
    assert data.trained[alone]
    texts = None
    if item_init == "views":
        texts = TextVectors(torch.randn(data.num_items, 5), torch.as_tensor(data.trained))
    config = BaselineConfig(**SMALL, item_init=item_init, device="cpu")
    model, plan = student_plan(config, data, shape_of(config), None, NoRecorder(), texts)
    assert alone in plan.module.extra.untrained.tolist()
    assert texts is None or not bool(model.items.learns[alone])
    among = negatives_among(changed(config, untrained_negatives=False, base_loss="bce"), data, CPU)
    assert among is not None
    assert alone not in among.tolist()
    everything = changed(config, exclude_seen=False)
    _, plan = student_plan(everything, data, shape_of(config), None, NoRecorder(), texts)
    assert alone not in plan.module.extra.untrained.tolist()


def test_under_bce_the_students_top_k_has_no_item_of_the_history(ring_data: SequenceData) -> None:
    config = DistillConfig(**SMALL, base_loss="bce", candidate_topk=4)
    batch = next(student_batches(config, ring_data, causal=True)(0))
    excluded = seen_mask(config, ring_data, batch, settings_of(config))
    assert excluded is not None
    assert len(excluded[0]) > len(batch)
    for other in ({"gamma_consistency": 0.0}, {"release_compat": True}, {"mask_seen": False}, {"lam": 0.0}):
        assert seen_mask(changed(config, **other), ring_data, batch, settings_of(changed(config, **other))) is None
    # It weighs candidates alone: the base loss is the same.
    given = [one_step(one, ring_data, teacher_of(ring_data))[0] for one in (config, changed(config, mask_seen=False))]
    assert torch.equal(given[0]["base"], given[1]["base"])


def test_a_candidate_without_a_negative_names_its_own_option(ring_data: SequenceData) -> None:
    few = split_data(
        Interactions(
            user=np.repeat(np.arange(3), 8),
            item=np.tile(np.arange(4), 6),
            timestamp=np.tile(np.arange(8), 3),
            user_ids=("a", "b", "c"),
            item_ids=tuple("0123"),
            titles=tuple("0123"),
            source="few",
        ),
        DataConfig(),
    )
    count = len(few.train)
    ranking, distance = torch.zeros(count, 1, dtype=torch.int64), torch.zeros(count, 1)
    teacher = replace(teacher_of(few), ranking=ranking, distance=distance)
    config = DistillConfig(**SMALL, ranking_loss="bce", candidate_topk=1, exclude_seen=False, ed_weight=0.0)
    with pytest.raises(InputError, match=r"^ranking_loss=bce: a sample knows all 4 items, .* set ranking_loss=ce$"):
        one_step(config, few, teacher)


def test_gbce_learns_what_follows_what() -> None:
    """With few negatives that all samples of a batch share it forgets again, and ends at 0.2 here."""
    data = small_data(120, 30)
    config = BaselineConfig(
        **options_of("sasrec", base_loss="gbce", negatives=3, dropout=0.0, hidden_size=16, learning_rate=0.01)
    )
    _, plan = student_plan(config, data, shape_of(config), None, NoRecorder())
    for epoch in range(30):
        plan.module.train()
        for batch in plan.batches(epoch):
            plan.step(batch)["total"].backward()
            plan.optimizer.step()
            plan.optimizer.zero_grad()
    plan.module.eval()
    assert plan.validate()["val/ndcg_at_10"] > 0.6
