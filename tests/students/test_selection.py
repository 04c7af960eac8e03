from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.config import DistillConfig
from recdistill.data.batches import batches
from recdistill.data.flat_samples import FlatSamples
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.students.build import StudentShape, build_student
from recdistill.students.selection import SELECTED, Selection

Make = Callable[..., Selection]


@pytest.fixture
def make(ring_data: SequenceData, shape: Callable[..., StudentShape]) -> Make:
    """A selection among the even samples, which a teacher covers; it keeps masks in ``kept``."""

    def make(kept: list[tuple[int, Tensor]] | None = None, **options: Any) -> Selection:
        samples = len(ring_data.train)
        teacher = TeacherAnswers(
            covered=torch.arange(samples) % 2 == 0,
            ranking=torch.randint(0, 42, (samples, 3)),
            distance=torch.rand(samples, 3),
            item_embedding=torch.zeros(42, 2),
            sample=torch.arange(0, samples, 2),
        )
        model = build_student(shape("sasrec"), 42)
        keep = kept if kept is not None else []
        return Selection(
            DistillConfig(**{"exclude_seen": False} | options),
            ring_data,
            model,
            teacher,
            lambda epoch, mask: keep.append((epoch, mask)),
        )

    return make


def test_all_samples_that_the_teacher_covers_are_distilled_unless_a_policy_chooses(make: Make) -> None:
    kept: list[tuple[int, Tensor]] = []
    selection = make(kept)
    covered = selection.teacher.covered
    for epoch in range(3):
        assert selection.begin_epoch(epoch) == {"train/distilled_share": pytest.approx(float(covered.float().mean()))}
    assert torch.equal(selection.selected, covered)
    assert kept == []


def test_a_policy_chooses_every_few_epochs_and_says_what_it_kept(make: Make) -> None:
    kept: list[tuple[int, Tensor]] = []
    selection = make(kept, selection_policy="random", selection_fraction=0.5, refresh_interval=2, seed=3)
    count = round(0.5 * int(selection.teacher.covered.sum()))
    shares = [selection.begin_epoch(epoch) for epoch in range(5)]
    assert [epoch for epoch, _ in kept] == [0, 2, 4]
    assert torch.equal(selection.memory["selected"], kept[-1][1])
    for _, mask in kept:
        assert int(mask.sum()) == count
        assert not (mask & ~selection.teacher.covered).any()
    assert ["train/selection_overlap" in one for one in shares] == [False, False, True, False, True]
    both = int((kept[0][1] & kept[1][1]).sum())
    assert 0 < both < count
    assert shares[2]["train/selection_overlap"] == both / count
    share = count / len(selection.selected)
    assert [one["train/distilled_share"] for one in shares] == pytest.approx([share] * 5)


def test_a_fraction_of_all_draws_among_them(make: Make) -> None:
    selection = make(selection_fraction=0.25)
    selection.begin_epoch(0)
    assert int(selection.selected.sum()) == round(0.25 * int(selection.teacher.covered.sum()))


def test_a_policy_reads_the_student_and_the_teacher_as_they_are(make: Make) -> None:
    selection = make(selection_policy="kl_divergence", selection_fraction=0.5, temperature=2.0, seed=7)
    signals = selection.signals()
    assert (signals.temperature, signals.seed) == (2.0, 7)
    assert torch.equal(signals.candidates, selection.teacher.ranking)
    assert torch.equal(signals.distance, selection.teacher.distance)
    assert torch.equal(signals.eligible, selection.teacher.covered)
    before = signals.student_loss
    with torch.no_grad():
        selection.model.items.embedding.weight += 0.3 * torch.randn(43, 16)
    assert not torch.equal(selection.signals().student_loss, before)


def test_a_policy_of_ones_own_file_selects(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "easy.py"
    file.write_text("def policy(signals):\n    return -signals.student_loss + 0 * signals.distance[:, 0]\n")
    selection = make(selection_policy="custom", selection_fraction=0.3, policy_file=str(file))
    loss = selection.signals().student_loss
    selection.begin_epoch(0)
    chosen, left = selection.selected, selection.teacher.covered & ~selection.selected
    assert loss[chosen].max() <= loss[left].min()


def test_the_answers_of_a_batch_say_which_samples_are_distilled(make: Make) -> None:
    selection = make(selection_fraction=0.25)
    selection.begin_epoch(0)
    sample = torch.tensor([4, 0, 9, 2])
    answers = selection.answers(sample, torch.device("cpu"))
    assert torch.equal(answers.distilled, selection.selected[sample])
    assert torch.equal(answers.candidates, selection.teacher.ranking[sample])
    assert torch.equal(answers.distance, selection.teacher.distance[sample])


def test_answers_on_a_device_are_those_on_the_cpu(
    make: Make, ring_data: SequenceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each selection, and of that of a checkpoint; those that do not fit there stay on the CPU."""
    selection = make(selection_fraction=0.25, refresh_interval=1)
    options = {"length": 8, "batch_size": 16, "stride": 4, "padding_id": 43, "seed": 0}
    for number in range(3):
        if number < 2:
            selection.begin_epoch(number)
        else:
            selection.memory.update({SELECTED: selection.teacher.covered.clone()})
        for batch in batches(ring_data.train, epoch=number, flat=FlatSamples.of(ring_data.train), **options):
            found, expected = selection.answers_of(batch), selection.answers(batch.sample, torch.device("cpu"))
            for name, value in vars(expected).items():
                mine = getattr(found, name)
                assert value is mine is None or torch.equal(mine, value), name
    batch = next(batches(ring_data.train, epoch=0, flat=FlatSamples.of(ring_data.train, "meta"), **options))
    assert make().answers_of(batch).candidates.device.type == "meta"
    monkeypatch.setattr("recdistill.students.selection.MOST_BYTES", 1)
    assert make().answers_of(batch).candidates.device.type == "cpu"


@pytest.mark.parametrize("policy", ["all", "random", "uncertainty"])
def test_answers_for_samples_of_no_batch_are_not_chosen(make: Make, ring_data: SequenceData, policy: str) -> None:
    # As of files that cover samples whose targets come again, of which nothing is learnt.
    learnt = torch.from_numpy(~ring_data.train.target_seen)
    assert 0 < learnt.sum() < len(learnt)
    fraction = 1.0 if policy == "all" else 0.5
    selection = make(selection_policy=policy, selection_fraction=fraction, exclude_seen=True)
    share = selection.begin_epoch(0)["train/distilled_share"]
    chosen = selection.selected
    assert not (chosen & ~learnt).any()
    assert share == pytest.approx(float(chosen.float().mean()))
    answered = int((selection.teacher.covered & learnt).sum())
    assert int(chosen.sum()) == pytest.approx(answered * fraction, abs=1)


def test_a_seed_draws_what_no_other_seed_draws(make: Make) -> None:
    options = {"selection_policy": "random", "selection_fraction": 0.3, "refresh_interval": 1}
    first, second = (make(seed=seed, **options) for seed in (1, 2))
    assert not torch.equal(first.chosen(1), second.chosen(0))
    assert torch.equal(first.chosen(1), first.chosen(1))
    assert not torch.equal(first.chosen(1), first.chosen(2))


def test_a_teacher_that_covers_nothing_that_is_learnt_from_is_told(
    make: Make, ring_data: SequenceData, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = make()
    repeats = torch.from_numpy(ring_data.train.target_seen)
    assert repeats.any()
    teacher = replace(selection.teacher, covered=repeats, sample=repeats.nonzero().squeeze(1))
    Selection(DistillConfig(), ring_data, selection.model, teacher, lambda epoch, mask: None)
    assert "none that is learnt from: no ranking or state is distilled" in capsys.readouterr().out
