import dataclasses
from pathlib import Path

import pytest
import torch

from recdistill.config import base
from recdistill.distillation.policies.custom import policy_of_file
from recdistill.registry import POLICIES
from recdistill.testing.policies import check_policy, example_signals


@pytest.fixture
def registered(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(POLICIES, "_declared", dict(POLICIES._known()))
    monkeypatch.setattr(base, "_tables", {})


@pytest.mark.parametrize("name", [name for name in POLICIES.names() if name != "custom"])
def test_every_policy_keeps_the_contract(name):
    check_policy(name)
    check_policy(POLICIES.get(name))


def test_a_users_file_can_be_checked(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("def policy(signals):\n    return signals.student_loss + signals.distance[:, 0]\n")
    check_policy(policy_of_file(str(file)))


def test_the_examples_hold_eligible_and_other_samples():
    signals = example_signals()
    assert signals.eligible.any()
    assert not signals.eligible.all()
    assert (signals.candidates.sort(dim=1).values.diff(dim=1) > 0).all()


def one_number(signals):
    return signals.student_loss.mean()


def a_list(signals):
    return signals.student_loss.tolist()


def a_missing_signal(signals):
    return signals.popularity


def infinite(signals):
    return torch.where(signals.student_loss > 2, torch.inf, signals.student_loss)


def not_a_number(signals):
    # A spread needs two samples.
    loss = signals.student_loss
    return (loss - loss.min()) / (loss.max() - loss.min())


def fails_without_eligible(signals):
    return signals.student_loss - signals.student_loss[signals.eligible].max()


def sorts_in_place(signals):
    signals.distance.clamp_(max=1)
    return signals.distance[:, 0]


def counts_in_place(signals):
    signals.item_count[0] += 1
    return signals.item_count[signals.target]


def draws_globally(signals):
    return torch.rand(len(signals.target))


class Remembers:
    """Prefers, at each call, other samples."""

    __name__ = "remembers"

    def __init__(self):
        self.calls = 0

    def __call__(self, signals):
        self.calls += 1
        return signals.student_loss * (-1) ** self.calls


def mean_of_all_rows(signals):
    return signals.distance[:, 0] - signals.distance.nan_to_num().mean()


def indexes_all_rows(signals):
    return torch.bincount(signals.candidates.flatten())[signals.candidates[:, 0]]


def by_place(signals):
    return torch.arange(len(signals.target))


def next_to_it(signals):
    return signals.student_loss.cumsum(dim=0).where(signals.eligible, 0.0)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (one_number, "one_number: the selection policy gave scores"),
        (a_list, "a_list: the selection policy gave scores list"),
        (a_missing_signal, "raises AttributeError"),
        (infinite, "infinite score to an eligible sample"),
        (not_a_number, "not a number.*on signals of 1 samples"),
        (fails_without_eligible, "raises .* where no sample is eligible"),
        (sorts_in_place, "changes its signal distance in place"),
        (counts_in_place, "changes its signal item_count in place"),
        (draws_globally, "draws from torch's global random numbers"),
        (Remembers(), "other scores for the same signals and seed"),
        (mean_of_all_rows, "depend on rows that are not eligible"),
        (indexes_all_rows, "where rows that are not eligible hold no valid item"),
        (by_place, "depends on its place"),
        (next_to_it, "scores of eligible samples depend on rows that are not eligible"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_policy_is_told_what_to_mend(policy, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check_policy(policy)
    assert "\n" not in str(caught.value)


def test_a_querying_policy_that_reads_the_teacher_is_caught(registered):
    @POLICIES.register("reads_distance", queries=True)
    def reads_distance(signals):
        return signals.distance[:, 0]

    @POLICIES.register("reads_where_it_can", queries=True)
    def reads_where_it_can(signals):
        return signals.distance[:, 0] if hasattr(signals, "distance") else signals.student_loss

    for policy in (reads_distance, "reads_distance"):
        with pytest.raises(AssertionError, match=r"register it with queries=False"):
            check_policy(policy)
    for policy in (reads_where_it_can, "reads_where_it_can"):
        with pytest.raises(AssertionError, match="scores change with the teacher's answers"):
            check_policy(policy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OffsetOptions:
    offset: float = 0.0


def test_options_are_passed_on(registered):
    @POLICIES.register("offset", options=OffsetOptions, queries=True)
    def offset(signals, options):
        return signals.student_loss / options.offset

    check_policy("offset", OffsetOptions(offset=2.0))
    with pytest.raises(AssertionError, match="infinite score"):
        check_policy("offset")
