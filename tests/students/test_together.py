"""Seeds trained as one batched model: the results of each alone, ends at different times, failures and interrupts."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from text_students import of_data
from torch import Tensor

from recdistill.config import BaselineConfig, DistillConfig, StudentConfig, changed
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.students import together as module
from recdistill.students.measure import Fitted
from recdistill.students.sasrec import SASRec
from recdistill.students.step import FullStep
from recdistill.students.together import COMPANY, Member, Stacked, batches_seeds, check_together, train_together
from recdistill.students.training import fit_recommender
from recdistill.training.distributed import Processes
from recdistill.training.recorder import NoRecorder

SMALL = {"hidden_size": 16, "max_length": 8, "epochs": 3, "patience": 3, "dropout": 0.0, "batch_size": 64}
SMALL |= {"learning_rate": 5e-4, "device": "cpu"}
TAUGHT = {"lam": 0.7, "alpha": 0.3, "ed_weight": 0.4, "candidate_topk": 4}
SEEDS = (3, 4, 5)


class KilledError(Exception):
    pass


@dataclass
class InMemory:
    """A recorder that keeps metrics by epoch, and may fail at its n-th."""

    work: Path
    fail_at: int = -1
    fails: Callable[[], None] = field(default=lambda: None)
    epochs: list[dict[str, float]] = field(default_factory=list)

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        self.epochs.append(dict(metrics))
        if len(self.epochs) == self.fail_at:
            self.fails()

    def tag(self, name: str, value: Any) -> None:
        pass

    def log_file(self, path: Path, folder: str) -> None:
        load_file(path)


def failing() -> None:
    raise KilledError


@dataclass
class Seeds:
    """Trains seeds of options alone or together, each with a folder and a recorder of its own."""

    data: SequenceData
    teacher: TeacherAnswers
    folder: Path
    recorders: list[InMemory] = field(default_factory=list)

    def configs(self, options: dict[str, Any], seeds: Sequence[int]) -> list[StudentConfig]:
        kind: type[StudentConfig] = DistillConfig if "lam" in options else BaselineConfig
        first = kind(**(SMALL | options))
        return [changed(first, seed=seed) for seed in seeds]

    def recorder(self, seed: int, **fails: Any) -> InMemory:
        work = self.folder / str(seed)
        work.mkdir(exist_ok=True)
        return InMemory(work, **fails)

    def fit(self, config: StudentConfig, recorder: Any, member: Member[Fitted] | None = None) -> Fitted:
        taught = None
        if isinstance(config, DistillConfig):
            taught = self.teacher.shuffled(config.teacher_shuffle, config.seed)
        texts = of_data(self.data) if config.starts_from_texts else None
        return fit_recommender(
            config,
            self.data,
            teacher=taught,
            recorder=recorder,
            texts=texts,
            member=member,  # type: ignore[arg-type]
        )

    def alone(self, seeds: Sequence[int] = SEEDS, **options: Any) -> list[Fitted]:
        return [self.fit(one, NoRecorder()) for one in self.configs(options, seeds)]

    def together(self, seeds: Sequence[int] = SEEDS, **options: Any) -> list[Fitted]:
        configs = self.configs(options, seeds)
        self.recorders = [self.recorder(seed) for seed in seeds]
        return train_together(seeds, lambda place, member: self.fit(configs[place], self.recorders[place], member))


@pytest.fixture
def seeds(ring_data: SequenceData, teacher: TeacherAnswers, tmp_path: Path) -> Seeds:
    return Seeds(ring_data, teacher, tmp_path)


def weights(fitted: Fitted) -> dict[str, Tensor]:
    return dict(fitted.model.state_dict())


def apart(some: Sequence[Fitted], others: Sequence[Fitted]) -> float:
    """The largest difference of a weight."""
    pairs = [(weights(one), weights(other)) for one, other in zip(some, others, strict=True)]
    assert all(one.keys() == other.keys() for one, other in pairs)
    return max(float((own[name] - other[name]).abs().max()) for own, other in pairs for name in own)


def check_alike(together: Sequence[Fitted], alone: Sequence[Fitted]) -> None:
    assert apart(together, alone) < 1e-4
    for one, other in zip(together, alone, strict=True):
        assert one.progress is not None
        assert other.progress is not None
        ours, theirs = one.progress.history, other.progress.history
        assert [epoch for epoch, _ in ours] == [epoch for epoch, _ in theirs]
        for (_, metrics), (_, expected) in zip(ours, theirs, strict=True):
            for name in metrics.keys() & expected.keys():
                if "second" not in name and "memory" not in name:
                    assert metrics[name] == pytest.approx(expected[name], abs=1e-5, rel=1e-4), name
    assert apart(together[:1], together[1:2]) > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 4, "output": "linear"},
        {"base_loss": "bce"},
        {"mask_seen": True, "mask_untrained": True},
        {"student": "esasrec"},
        {"student": "caser"},
        {"student": "caser", "output": "linear"},
        {"item_init": "views", "views": "tfidf"},
        {"item_init": "views", "views": "tfidf", "output": "linear"},
        {"schedule": "cosine", "window_stride": 3},
        TAUGHT,
        TAUGHT | {"output_weight": 0.5, "output": "linear"},
        # Each seed has another deal of the teacher's vectors.
        TAUGHT | {"teacher_shuffle": "both"},
        TAUGHT | {"release_compat": True, "base_loss": "bce", "alpha": 0.0},
        TAUGHT | {"mask_seen": True, "selection_policy": "uncertainty", "selection_fraction": 0.5},
    ],
    ids=str,
)
def test_without_dropout_each_seed_has_what_it_has_alone(options: dict[str, Any], seeds: Seeds) -> None:
    check_alike(seeds.together(**options), seeds.alone(**options))


def test_in_mixed_precision_it_is_near_what_each_has_alone(seeds: Seeds) -> None:
    together, alone = seeds.together(bf16=True), seeds.alone(bf16=True)
    for one, other in zip(together, alone, strict=True):
        assert one.progress is not None
        assert other.progress is not None
        for (_, ours), (_, theirs) in zip(one.progress.history, other.progress.history, strict=True):
            assert ours["train/total"] == pytest.approx(theirs["train/total"], rel=1e-3)


def test_a_seed_that_ends_early_leaves_and_the_others_go_on(seeds: Seeds) -> None:
    options = {"epochs": 12, "patience": 1, "least_epochs": 0, "smoothing": 1, "ema_decay": 0.0, "batch_size": 32}
    together, alone = seeds.together(**options), seeds.alone(**options)
    assert len({len(one.progress.history) for one in together if one.progress is not None}) > 1
    check_alike(together, alone)


@pytest.mark.parametrize("options", [{}, {"student": "esasrec"}, TAUGHT | {"selection_policy": "random"}], ids=str)
def test_with_dropout_it_is_the_same_again_and_another_than_alone(options: dict[str, Any], seeds: Seeds) -> None:
    options = {"dropout": 0.3} | options
    if "selection_policy" in options:
        options["selection_fraction"] = 0.5
    first = seeds.together(**options)
    others = Seeds(seeds.data, seeds.teacher, seeds.folder / "again")
    others.folder.mkdir()
    assert apart(first, others.together(**options)) == 0
    assert apart(first[:1], seeds.alone(SEEDS[:1], **options)) > 1e-4


def test_trainings_that_are_alike_have_masks_of_their_own(seeds: Seeds) -> None:
    configs = seeds.configs({"dropout": 0.3}, (3, 3))
    found = train_together((3, 3), lambda place, member: seeds.fit(configs[place], NoRecorder(), member))
    assert apart(found[:1], found[1:]) > 1e-4
    configs = seeds.configs({"dropout": 0.0}, (3, 3))
    found = train_together((3, 3), lambda place, member: seeds.fit(configs[place], NoRecorder(), member))
    assert apart(found[:1], found[1:]) < 1e-5


def test_random_numbers_of_the_losses_are_each_seeds_own(seeds: Seeds) -> None:
    drawn: list[list[int]] = [[], []]

    def train(place: int, member: Member[None]) -> None:
        torch.manual_seed(place)
        config = seeds.configs({"base_loss": "bce", "epochs": 2}, (place,))[0]
        seeds.fit(config, NoRecorder(), member)
        drawn[place].append(int(torch.randint(2**40, ())))

    train_together((0, 1), train)
    together = [one[0] for one in drawn]
    for place in (0, 1):
        seeds.fit(seeds.configs({"base_loss": "bce", "epochs": 2}, (place,))[0], NoRecorder())
        assert int(torch.randint(2**40, ())) == together[place]


def ended(names: set[int]) -> bool:
    """Whether no thread is left but those of before, in a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(one.ident not in names for one in threading.enumerate()):
        time.sleep(0.01)
    return all(one.ident in names for one in threading.enumerate())


def interrupting() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("fails", "error"), [(failing, KilledError), (interrupting, KeyboardInterrupt)])
def test_what_ends_one_ends_all_and_they_go_on_from_their_checkpoints(
    fails: Callable[[], None], error: type[BaseException], seeds: Seeds
) -> None:
    before = {one.ident or 0 for one in threading.enumerate()}
    told = []

    def fit(place: int, member: Member[Fitted]) -> Fitted:
        try:
            return seeds.fit(configs[place], seeds.recorders[place], member)
        except BaseException as raised:
            told.append((place, type(raised)))
            raise

    options = {"epochs": 4, "batch_size": 32, "patience": 0}
    configs = seeds.configs(options, SEEDS)
    seeds.recorders = [seeds.recorder(seed) for seed in SEEDS]
    seeds.recorders[1] = seeds.recorder(SEEDS[1], fail_at=3, fails=fails)
    with pytest.raises(error):
        train_together(SEEDS, fit)
    assert ended(before)
    assert sorted(told) == [(0, KeyboardInterrupt), (1, error), (2, KeyboardInterrupt)]
    assert len(seeds.recorders[0].epochs) == 3
    assert (seeds.folder / str(SEEDS[0]) / "student.safetensors").exists()
    check_alike(seeds.together(**options), seeds.alone(**options))


def test_a_member_that_ended_as_it_was_to_be_stopped_is_not_waited_for() -> None:
    member: Member[int] = Member([1], threading.Event(), lambda member: 1)
    member.thread.start()
    member.go_on()
    assert member.ended
    waits = threading.Thread(target=member.go_on, daemon=True)
    waits.start()
    waits.join(5)
    assert not waits.is_alive()


def test_an_interrupt_while_all_are_computed_ends_all(seeds: Seeds, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {one.ident or 0 for one in threading.enumerate()}

    def interrupted(self: Stacked) -> None:
        interrupting()

    monkeypatch.setattr(Stacked, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        seeds.together()
    assert ended(before)


def test_what_a_seeds_losses_raise_is_that_seeds(seeds: Seeds, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = FullStep.losses

    def fails(self: FullStep, *given: Any) -> Any:
        if self.config.seed == SEEDS[2]:
            raise InputError("no loss")
        return losses(self, *given)

    monkeypatch.setattr(FullStep, "losses", fails)
    told: list[tuple[int, str]] = []

    def fit(place: int, member: Member[Fitted]) -> Fitted:
        try:
            return seeds.fit(configs[place], NoRecorder(), member)
        except BaseException as raised:
            told.append((place, str(raised)))
            raise

    configs = seeds.configs({}, SEEDS)
    with pytest.raises(InputError, match="no loss"):
        train_together(SEEDS, fit)
    assert told == [(2, "no loss"), (0, ""), (1, "")]


def test_one_that_has_nothing_to_train_is_not_waited_for(seeds: Seeds) -> None:
    configs = seeds.configs({}, SEEDS)

    def fit(place: int, member: Member[Fitted | None]) -> Fitted | None:
        return None if place == 0 else seeds.fit(configs[place], NoRecorder(), member)

    first, *others = train_together(SEEDS, fit)
    assert first is None
    assert apart([one for one in others if one is not None], seeds.alone(SEEDS[1:])) < 1e-4


def test_a_key_names_all_seeds_of_the_group() -> None:
    named = train_together((3, 4, 5), lambda place, member: member.contents)
    assert named == [{COMPANY: "3, 4, 5"}] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"student": "gru4rec"},
            "final_together=true: student=gru4rec cannot be batched; use one of caser, esasrec, sasrec",
        ),
        ({"student": "ease"}, "student=ease cannot be batched"),
        ({"base_loss": "gbce"}, "base_loss=gbce has sparse gradients"),
    ],
)
def test_what_cannot_be_batched_is_refused(options: dict[str, Any], said: str, seeds: Seeds) -> None:
    small = {name: SMALL[name] for name in ("max_length", "epochs")} if options.get("student") == "ease" else SMALL
    with pytest.raises(InputError, match=said):
        check_together(BaselineConfig(**(small | options)))


def test_a_launch_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "join", lambda device: Processes(0, 2))
    with pytest.raises(InputError, match="trains in one process; start it without accelerate launch or torchrun"):
        check_together(BaselineConfig())


def test_a_subclass_says_for_itself_that_it_can_be_batched_and_scores_of_its_own_cannot() -> None:
    class Changed(SASRec):
        pass

    class Said(SASRec):
        batches_seeds = True

    class Scores(SASRec):
        batches_seeds = True

        def logits(self, states: Tensor) -> Tensor:
            return 2 * super().logits(states)

    assert [batches_seeds(kind) for kind in (SASRec, Changed, Said, Scores)] == [True, False, True, False]
