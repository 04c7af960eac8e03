"""Every teacher keeps its contract, and teachers that break it are told how."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch

from recdistill.config import TeacherConfig, base
from recdistill.config.teacher import has_llm, reads_llm
from recdistill.data.batches import batches, seen_items
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.ranking import best_items, rank_among, rank_of_target
from recdistill.registry import TEACHERS
from recdistill.students.student import Student
from recdistill.teachers import checks
from recdistill.teachers.gate_tables import gate_tables
from recdistill.teachers.generative.teacher import GenerativeOptions
from recdistill.teachers.outputs import Manifest, TeacherOutputs
from recdistill.teachers.ranking.teacher import RankingOptions, RankingTeacher
from recdistill.teachers.training import train_teacher
from recdistill.testing import check_teacher
from recdistill.testing.teachers import check_teacher_outputs, small_backbone, small_data
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.recorder import NoRecorder


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], type]:
    """Registers a class for the length of a test."""
    monkeypatch.setattr(TEACHERS, "_declared", dict(TEACHERS._known()))
    monkeypatch.setattr(base, "_tables", {})
    return TEACHERS.register("mine", options=RankingOptions)


# One behind a server needs a server: tests/teachers/endpoint/test_teacher.py.
QUICK, SLOW = ("ranking", "endpoint"), pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["ranking", *(pytest.param(name, marks=SLOW) for name in TEACHERS.names() if name not in QUICK)]
)
def test_every_teacher_keeps_the_contract(name: str) -> None:
    before = torch.get_rng_state()
    check_teacher(name)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ranking", RankingOptions(packing=False, backbone_residual=False)),
        pytest.param("generative", GenerativeOptions(answer="constrained", candidates=4), marks=SLOW),
    ],
)
def test_a_teacher_is_checked_with_its_options(name: str, options: Any) -> None:
    check_teacher(TEACHERS.get(name), options)


def test_a_subclass_can_be_checked(registered: Callable[[type], type]) -> None:
    class Mine(RankingTeacher):
        pass

    check_teacher(registered(Mine))


def test_one_that_is_not_registered_is_told_so() -> None:
    class Mine(RankingTeacher):
        pass

    with pytest.raises(AssertionError, match=r"Mine: is not registered; write @TEACHERS\.register"):
        check_teacher(Mine)


@dataclasses.dataclass(frozen=True, eq=False)
class Popular:
    """A teacher without LLM, training or gate: the most popular items first, as an endpoint might answer."""

    config: TeacherConfig
    backbone: Student
    data: SequenceData
    processes: Processes = ALONE

    needs_llm = False
    needs_language_model_head = False
    llm = ""
    kind = "mine"
    confidence = "minus the popularity of an item, from 0; small is sure"

    @classmethod
    def build(cls, config, llm, backbone, data, processes=ALONE):
        assert llm is None
        return cls(config, backbone, data, processes)

    @classmethod
    def load(cls, folder, config, llm, backbone, data):
        assert (folder / "nothing.txt").read_text() == "learnt"
        return cls.build(config, llm, backbone, data)

    @classmethod
    def check(cls, config, most_tokens):
        assert most_tokens is None

    def lesson(self):
        return None

    def tokens_a_sample(self):
        return 1.0

    def num_tokens(self, samples, batch):
        return len(batch)

    def batches(self, samples, *, shuffle, seed=0, index=None):
        return batches(
            samples, length=12, batch_size=7, stride=1, padding_id=self.data.padding_id, seed=seed, epoch=0,
            shuffle=shuffle, index=index,
        )  # fmt: skip

    def distances(self, batch):
        count = torch.from_numpy(self.data.item_count).float() + torch.linspace(0, 0.5, self.data.num_items)
        return (count.max() - count).repeat(len(batch), 1)

    def outputs(self, samples, batch):
        distance = self.distances(batch)
        distance[seen_items(samples, batch.sample)] = torch.inf
        return distance, batch.length.float().unsqueeze(1)[batch.row]

    def item_embedding(self):
        return torch.eye(self.data.num_items)

    def ranks(self, folder=None):
        ranked = []
        data = self.data
        for samples, new in ((data.validation, data.new_validation), (data.test, data.new_test)):
            scores = -torch.cat([self.distances(batch) for batch in self.batches(samples, shuffle=False)])
            seen = seen_items(samples, torch.arange(len(samples)))
            target = torch.from_numpy(samples.targets)
            among = rank_among(scores, target, torch.from_numpy(new), seen)
            ranked.append(Ranked(rank_of_target(scores, target, seen), best_items(scores, 10, seen), among))
        return *ranked, 0.1

    def answers(self):
        return None

    def gate_weights(self, states):
        return None

    def save(self, folder):
        folder.mkdir()
        (folder / "nothing.txt").write_text("learnt")


def test_a_teacher_without_llm_training_or_gate_can_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TEACHERS, "_declared", dict(TEACHERS._known()))
    monkeypatch.setattr(base, "_tables", {})
    TEACHERS.register("mine")(Popular)
    check_teacher("mine")
    config = TeacherConfig(teacher="mine", llm="/no/such/model")
    checks.check_teacher(config)
    made, progress = train_teacher(config, DATA, small_backbone(DATA), recorder=NoRecorder())
    assert isinstance(made, Popular)
    assert progress.steps == 0
    assert gate_tables(made) is None


class Unnamed(RankingTeacher):
    kind = "ranking"


class Undeclared(RankingTeacher):
    needs_language_model_head = None


class ByPlace(RankingTeacher):
    def outputs(self, samples, batch):
        distance, states = super().outputs(samples, batch)
        return distance + torch.arange(len(batch)).unsqueeze(1), states


class StatesByPlace(RankingTeacher):
    def outputs(self, samples, batch):
        distance, states = super().outputs(samples, batch)
        return distance, states.cumsum(dim=0)


class ListsTheSeen(RankingTeacher):
    def outputs(self, samples, batch):
        logits, states = self.score(batch)
        return -logits.log_softmax(dim=1), states


class RanksTheSeen(RankingTeacher):
    def excluded(self, samples, batch):
        return None


class WithoutNewItems(RankingTeacher):
    def ranks(self, folder=None):
        *ranked, seconds = super().ranks(folder)
        return *(dataclasses.replace(one, among=None) for one in ranked), seconds


class AllAreNew(RankingTeacher):
    def ranks(self, folder=None):
        *ranked, seconds = super().ranks(folder)
        return *(dataclasses.replace(one, among=one.ranks) for one in ranked), seconds


class LowerAmongNew(RankingTeacher):
    def ranks(self, folder=None):
        *ranked, seconds = super().ranks(folder)
        return *(dataclasses.replace(one, among=one.among.sign() * 1000) for one in ranked), seconds


class Draws(RankingTeacher):
    def outputs(self, samples, batch):
        distance, states = super().outputs(samples, batch)
        return distance + 0.1 * torch.rand_like(distance), states


class Forgets(RankingTeacher):
    @classmethod
    def load(cls, folder, config, llm, backbone, data):
        return cls.build(config, llm, backbone, data)


class Raises(RankingTeacher):
    def ranks(self, folder=None):
        return 1 / 0


class OnePass(RankingTeacher):
    def lesson(self):
        own = super().lesson()
        return dataclasses.replace(own, batches=lambda: islice(own.batches(), 2))


class OtherBatches(RankingTeacher):
    def lesson(self):
        own, calls = super().lesson(), []

        def batches() -> Iterator[Any]:
            calls.append(1)
            return islice(own.batches(), len(calls), None)

        return dataclasses.replace(own, batches=batches)


class WholeShares(RankingTeacher):
    def lesson(self):
        own = super().lesson()
        return dataclasses.replace(own, divide=lambda batch, index, count: (own.divide(batch, index, count)[0], 1.0))


class NoTotal(RankingTeacher):
    def lesson(self):
        own = super().lesson()
        return dataclasses.replace(own, step=lambda batch: {"loss": own.step(batch)["total"]})


class GateAside(RankingTeacher):
    def lesson(self):
        own = super().lesson()
        return dataclasses.replace(own, groups=own.groups[:1])


class KeptAside(RankingTeacher):
    def lesson(self):
        own = super().lesson()
        kept = {name: tensor for name, tensor in own.parameters.items() if not name.startswith("gate.")}
        return dataclasses.replace(own, parameters=kept)


class LearnsNothing(RankingTeacher):
    def lesson(self):
        own = super().lesson()
        return dataclasses.replace(own, step=lambda batch: {"total": 0 * own.step(batch)["total"]})


class TrainsTheBackbone(RankingTeacher):
    def lesson(self):
        own = super().lesson()

        def step(batch):
            self.backbone.items.embedding.weight.add_(0.1)
            return own.step(batch)

        return dataclasses.replace(own, step=step)


class FreeOfCharge(RankingTeacher):
    def num_tokens(self, samples, batch):
        return 0


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Unnamed, "kind is 'ranking'; give the name that it is registered under"),
        (Undeclared, "has no class attribute needs_language_model_head"),
        (ByPlace, "the outputs of a permuted batch are not the permuted outputs"),
        (StatesByPlace, "the outputs of a permuted batch are not the permuted outputs"),
        (ListsTheSeen, "holds an item of its history"),
        (RanksTheSeen, "ranks of the validation samples: .*of its history"),
        (WithoutNewItems, r"targets that are new items have no rank among them; give Ranked\.among"),
        (AllAreNew, r"Ranked\.among is above 0 for \d+ samples, and \d+ have a new item for a target"),
        (LowerAmongNew, "a target ranks lower among new items than among all"),
        (Draws, "gives another ranking when asked again|gives another distance when asked again"),
        (Forgets, "loaded over a fresh LLM, its (ranking|distance) is not that of before"),
        (Raises, "ranks raises ZeroDivisionError"),
        (OnePass, "its lesson has 2 batches; give them pass after pass"),
        (OtherBatches, "batches are others when asked for again"),
        (WholeShares, "the shares of a batch divided by 2 sum to 2; they must sum to 1"),
        (NoTotal, "no differentiable scalar named total"),
        (GateAside, r"gate\.linear\.weight can be trained, but is in no group of its lesson"),
        (KeptAside, "its lesson trains a parameter that is not in parameters"),
        (LearnsNothing, "training changes nothing"),
        (TrainsTheBackbone, "training changes the backbone"),
        (FreeOfCharge, "size names no tokens of a batch"),
    ],
)
def test_a_teacher_that_breaks_it_is_told_how(
    broken: type[RankingTeacher], said: str, registered: Callable[[type], type]
) -> None:
    registered(broken)
    with pytest.raises(AssertionError, match=f"^mine: .*({said})"):
        check_teacher("mine")


DATA = small_data()


def outputs(**changes: Any) -> TeacherOutputs:
    """Outputs that fit the data, for its first three samples."""
    unseen = [
        [
            item
            for item in range(DATA.num_items)
            if item not in DATA.train.items[DATA.train.start[s] : DATA.train.end[s]]
        ]
        for s in range(3)
    ]
    values: dict[str, Any] = {
        "manifest": Manifest(DATA.fingerprint, "tiny", DATA.num_items, len(DATA.train)),
        "sample": torch.arange(3),
        "ranking": torch.tensor([row[:4] for row in unseen]),
        "distance": torch.tensor([[0.1, 0.2, 0.2, 3.0]] * 3),
        "item_embedding": torch.randn(DATA.num_items, 3),
    }
    return TeacherOutputs(**(values | changes))


def test_outputs_that_fit_pass() -> None:
    check_teacher_outputs(outputs(), DATA)
    seen = outputs().ranking
    seen[1, 0] = DATA.train.items[DATA.train.start[1]]
    check_teacher_outputs(outputs(ranking=seen), DATA, exclude_seen=False)
    # Seen items may fill a ranking up.
    last = outputs().ranking
    last[1, 3] = DATA.train.items[DATA.train.start[1]]
    far = outputs().distance
    far[:, 3] = torch.finfo(torch.float32).max / 2
    check_teacher_outputs(outputs(ranking=last, distance=far), DATA)


def test_outputs_that_do_not_fit_are_told_how() -> None:
    good = outputs()
    seen, twice = good.ranking.clone(), good.ranking.clone()
    seen[1, 0], twice[2, 3] = DATA.train.items[DATA.train.start[1]], twice[2, 0]
    other = dataclasses.replace(good.manifest, fingerprint="0" * 64)
    unsaid = dataclasses.replace(good.manifest, confidence="")
    none = {"sample": torch.zeros(0).long(), "ranking": torch.zeros(0, 4).long(), "distance": torch.zeros(0, 4)}
    for changes, said in (
        ({"ranking": seen}, "the ranking of sample 1 holds an item of its history"),
        ({"ranking": twice}, "the ranking of sample 2 holds an item twice"),
        ({"distance": good.distance.flip(1)}, "distances fall along a ranking"),
        ({"item_embedding": torch.ones(DATA.num_items, 3)}, "all items have the same embedding"),
        ({"manifest": other}, "are not those of the data"),
        ({"manifest": unsaid}, "confidence is empty"),
        (none, "no sample is covered"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_teacher_outputs(outputs(**changes), DATA)


def test_what_has_an_llm_is_told_by_the_class_where_its_registration_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TEACHERS, "_declared", dict(TEACHERS._known()))
    TEACHERS.register("mine")(Popular)
    found = {
        name: (reads_llm(name), has_llm(name)) for name in ("ranking", "generative", "endpoint", "backbone", "mine")
    }
    assert found == {
        "ranking": (True, True),
        "generative": (True, True),
        "endpoint": (False, True),
        "backbone": (False, False),
        "mine": (False, False),
    }
