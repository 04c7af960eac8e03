"""Every split keeps its contract, and a broken one is told why it does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from registered_parts import registries_restored

from recdistill.config.option import option
from recdistill.data.interactions import Interactions
from recdistill.data.samples import Samples
from recdistill.data.splits.leave_one_out import leave_one_out
from recdistill.errors import InputError
from recdistill.registry import SPLITS
from recdistill.testing import check_split


@pytest.mark.parametrize("name", SPLITS.names())
def test_every_registered_split(name):
    check_split(name)
    check_split(SPLITS.get(name))


@dataclass(frozen=True, kw_only=True)
class KeepOptions:
    kept: int = option(1, "test items of a user", least=1)


def keep_last(log: Interactions, options: KeepOptions) -> tuple[Samples, Samples, Samples]:
    """The last ``kept`` items of a user for test, the one before for validation."""
    train, validation, test = leave_one_out(log)
    last = validation.end[train.user] - options.kept + 1
    moved = train.subset(train.end >= last)
    held_out = Samples(
        log.item[np.lexsort((log.timestamp, log.user))],
        np.concatenate([moved.start, validation.start, test.start]),
        np.concatenate([moved.end, validation.end, test.end]),
        np.concatenate([moved.user, validation.user, test.user]),
    )
    is_test = held_out.end > validation.end[held_out.user] - options.kept + 1
    return train.subset(train.end < last), held_out.subset(~is_test), held_out.subset(is_test)


def test_a_split_with_options_of_its_own():
    with registries_restored():
        SPLITS.register("keep-last", options=KeepOptions)(keep_last)
        check_split("keep-last")
        check_split("keep-last", KeepOptions(kept=3))
        check_split(keep_last, KeepOptions(kept=2))


def changed(change: Callable[[Samples, Samples, Samples, Interactions], object]) -> Callable[[Interactions], object]:
    return lambda log: change(*leave_one_out(log), log)


def by_item(train, validation, test, log):
    """Histories in the order of the file in place of the order of time."""
    order = np.lexsort((np.arange(len(log)), log.user))
    return tuple(replace(part, items=log.item[order]) for part in (train, validation, test))


def later_ties_first(train, validation, test, log):
    order = np.lexsort((-np.arange(len(log)), log.timestamp, log.user))
    return tuple(replace(part, items=log.item[order]) for part in (train, validation, test))


def reversed_histories(train, validation, test, log):
    items = test.items.copy()
    for start, end in zip(test.start, test.end, strict=True):
        items[start:end] = items[start:end][::-1].copy()
    return train, validation, replace(test, items=items)


def other_users(train, validation, test, log):
    return train, validation, replace(test, user=np.roll(test.user, 1))


def beyond_the_user(train, validation, test, log):
    return replace(train, start=np.zeros(len(train), dtype=np.int64)), validation, test


def shuffled(train, validation, test, log):
    return train.subset(np.random.default_rng().permutation(len(train))), validation, test


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (by_item, "does not come before its target"),
        (later_ties_first, "does not come before its target .*ties in file order"),
        (reversed_histories, "a test history is not in order of time; put the oldest first"),
        (other_users, "a test sample holds interactions of another user"),
        (beyond_the_user, "a training sample holds interactions of another user"),
        (shuffled, "splits the same interactions otherwise"),
        (lambda train, validation, test, log: (train, test, test), "is a test target and one of an earlier part"),
        (lambda train, validation, test, log: (train, train, test), "is a validation target and one of an earlier"),
        (lambda train, validation, test, log: (validation, train, test), "a training history holds .* of a later part"),
        (lambda train, validation, test, log: (test, validation, train), "a training history holds .* of a later part"),
        (lambda train, validation, test, log: (train, test, validation), "a validation history holds"),
        (lambda train, validation, test, log: (train.subset(np.arange(3)), validation, test), "is a target of no part"),
        (lambda train, validation, test, log: (train, validation, test.subset([])), "leaves no test sample"),
        (lambda train, validation, test, log: (train, validation), "gives Samples, Samples; give a tuple of three"),
        (lambda train, validation, test, log: [train, validation, test], "gives list; give a tuple of three"),
        (
            lambda train, validation, test, log: (train.subset([0, 0, *range(1, len(train))]), validation, test),
            "is a training target twice",
        ),
        (
            lambda train, validation, test, log: (replace(train, items=train.items + len(log)), validation, test),
            r"training holds items outside 0 \.\. V-1",
        ),
        (
            lambda train, validation, test, log: (replace(train, start=train.end), validation, test),
            "raises ValueError .*empty history",
        ),
    ],
)
def test_a_broken_split_is_told(change, said):
    with pytest.raises(AssertionError, match=said):
        check_split(changed(change))


def test_a_split_that_leaves_out_on_purpose():
    def fewer(log: Interactions) -> tuple[Samples, ...]:
        train, validation, test = leave_one_out(log)
        return train.subset(np.arange(3)), validation, test

    check_split(fewer, may_leave_out=True)


def refuses(log: Interactions) -> tuple[Samples, ...]:
    raise InputError("too few")


def sorts_in_place(log: Interactions) -> tuple[Samples, ...]:
    log.timestamp.sort()
    return leave_one_out(log)


def fails_on_short_histories(log: Interactions) -> tuple[Samples, ...]:
    assert np.bincount(log.user).min() > 1
    return leave_one_out(log)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (refuses, r"refuses \d+ interactions of 12 users with 8 and more each \(too few\)"),
        (sorts_in_place, "changes the interactions that it is given"),
        (fails_on_short_histories, "users with one interaction each raise AssertionError"),
    ],
)
def test_what_a_split_may_raise_and_change(split, said):
    with pytest.raises(AssertionError, match=f"^{split.__name__}: .*{said}"):
        check_split(split)


def test_parts_without_samples_are_fine_for_users_of_one_interaction():
    def empty_where_short(log: Interactions) -> tuple[Samples, ...]:
        if np.bincount(log.user).min() < 3:
            none = np.zeros(0, dtype=np.int64)
            return (Samples(log.item, none, none, none),) * 3
        return leave_one_out(log)

    check_split(empty_where_short)
