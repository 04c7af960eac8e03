"""Checks of a split: whoever writes one calls `check_split` on it and learns what to mend."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from recdistill.data.interactions import Interactions
from recdistill.data.samples import Int64Array, Samples
from recdistill.errors import InputError
from recdistill.registry import SPLITS

Split = Callable[..., Any]
PARTS = ("training", "validation", "test")


def check_split(split: str | Split, options: Any = None, *, may_leave_out: bool = False) -> None:
    """Check that a split keeps its contract, on small logs with ties.

    A history holds nothing of the future, no interaction is lost or used twice, and nothing that is tested was trained
    on.

    Args:
        split: the name of a registered split, or the function.
        options: instance of the split's options dataclass; None for its defaults.
        may_leave_out: the split leaves interactions out on purpose, which are then targets of no part.

    Raises:
        AssertionError: the split breaks the contract; the message says how, and what to change.
    """
    name = split if isinstance(split, str) else getattr(split, "__name__", repr(split))
    call = _with_options(split, options)
    for seed in range(3):
        log = _log(seed)
        parts = _parts(name, call, log)
        again = _parts(name, call, log)
        assert all(_equal(one, other) for one, other in zip(parts, again, strict=True)), (
            f"{name}: splits the same interactions otherwise when called again; draw random numbers with a fixed seed"
        )
        _check_samples(name, log, parts)
        _check_time(name, log, parts)
        _check_targets(name, log, parts)
        _check_later_parts(name, parts)
        if not may_leave_out:
            _check_nothing_is_lost(name, log, parts)
    _check_short_histories(name, call)


def _with_options(split: str | Split, options: Any) -> Split:
    """The split as a function of interactions alone."""
    function = SPLITS.get(split) if isinstance(split, str) else split
    registered = [name for name in SPLITS.names() if SPLITS.get(name) is function]
    kind = SPLITS.options(registered[0]) if registered else None
    own = kind() if options is None and kind is not None else options
    return function if own is None else lambda log: function(log, own)


def _log(seed: int, users: int = 12) -> Interactions:
    """Users of 8 to 15 interactions in random order of time, with ties; item i is interaction i, so each is known."""
    random = np.random.default_rng(seed)
    user = random.permutation(np.repeat(np.arange(users), random.integers(8, 16, size=users)))
    user = np.unique(user, return_index=True)[1].argsort().argsort()[user]  # numbered by first appearance
    count = len(user)
    return Interactions(
        user=user,
        item=np.arange(count),
        timestamp=random.integers(count // 2, size=count),
        user_ids=tuple(f"user {number}" for number in range(users)),
        item_ids=tuple(f"item {number}" for number in range(count)),
        titles=tuple(f"title {number}" for number in range(count)),
        source="a log of check_split",
    )


def _parts(name: str, call: Split, log: Interactions) -> tuple[Samples, ...]:
    """What the split gives, of the right kind; the log must not change."""
    before = [np.copy(array) for array in (log.user, log.item, log.timestamp)]
    try:
        found = call(log)
    except InputError as error:
        raise AssertionError(
            f"{name}: refuses {len(log)} interactions of {len(log.user_ids)} users with 8 and more each ({error}); "
            "split them"
        ) from error
    except ValueError as error:
        raise AssertionError(
            f"{name}: raises ValueError ({error}); a sample is a history items[start:end], not empty, and the target "
            "items[end]"
        ) from error
    kinds = [type(part) for part in found] if isinstance(found, tuple) else [type(found)]
    assert kinds == [Samples] * len(PARTS), (
        f"{name}: gives {', '.join(kind.__name__ for kind in kinds)}; give a tuple of three Samples: training, "
        "validation, test"
    )
    after = (log.user, log.item, log.timestamp)
    assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True)), (
        f"{name}: changes the interactions that it is given; work on a copy"
    )
    return found


def _equal(one: Samples, other: Samples) -> bool:
    return all(np.array_equal(getattr(one, spec.name), getattr(other, spec.name)) for spec in fields(Samples))


def _check_samples(name: str, log: Interactions, parts: tuple[Samples, ...]) -> None:
    """Each part has samples, and each sample is of one user and of interactions of the log."""
    for part, samples in zip(PARTS, parts, strict=True):
        assert len(samples), f"{name}: leaves no {part} sample of {len(log)} interactions; each part needs one"
        known = (samples.items >= 0) & (samples.items < len(log))
        assert bool(known.all()), f"{name}: {part} holds items outside 0 .. V-1; take them from the interactions"
        rows, history = samples.seen(np.arange(len(samples)))
        own = [
            bool((log.user[history] == samples.user[rows]).all()),
            bool((log.user[samples.targets] == samples.user).all()),
        ]
        assert all(own), (
            f"{name}: a {part} sample holds interactions of another user than its own; `items` keeps each user's "
            "together, and start, end and user point to the same one"
        )


def _order(log: Interactions) -> Int64Array:
    """Positions of the interactions by user and time, ties in file order."""
    return np.lexsort((log.timestamp, log.user))


def _check_time(name: str, log: Interactions, parts: tuple[Samples, ...]) -> None:
    """A history is in order of time, ties in file order, and all of it comes before its target."""
    moment = np.empty(len(log), dtype=np.int64)
    moment[_order(log)] = np.arange(len(log))
    for part, samples in zip(PARTS, parts, strict=True):
        rows, history = samples.seen(np.arange(len(samples)))
        late = moment[history] >= moment[samples.targets][rows]
        assert not late.any(), (
            f"{name}: a {part} history holds interaction {_first(history[late])}, which does not come before its "
            f"target {_first(samples.targets[rows[late]])}; order by time, ties in file order, and end a history at "
            "its target"
        )
        same = rows[1:] == rows[:-1]
        assert bool((moment[history][1:] > moment[history][:-1])[same].all()), (
            f"{name}: a {part} history is not in order of time; put the oldest first, ties in file order "
            "(data.splits.order.order_by_time)"
        )


def _check_targets(name: str, log: Interactions, parts: tuple[Samples, ...]) -> None:
    """An interaction is the target of one sample at most: nothing is both trained on and tested."""
    seen = np.zeros(len(log), dtype=bool)
    for part, samples in zip(PARTS, parts, strict=True):
        count = np.bincount(samples.targets, minlength=len(log))
        twice = np.flatnonzero(count > 1)
        assert not len(twice), f"{name}: interaction {_first(twice)} is a {part} target twice; make one sample of it"
        shared = np.flatnonzero(seen & (count > 0))
        assert not len(shared), (
            f"{name}: interaction {_first(shared)} is a {part} target and one of an earlier part; give it to one part"
        )
        seen |= count > 0


def _check_later_parts(name: str, parts: tuple[Samples, ...]) -> None:
    """No history holds a target of a later part."""
    for place in range(len(PARTS) - 1):
        _, history = parts[place].seen(np.arange(len(parts[place])))
        later = np.concatenate([part.targets for part in parts[place + 1 :]])
        leaked = np.intersect1d(history, later)
        assert not len(leaked), (
            f"{name}: a {PARTS[place]} history holds interaction {_first(leaked)}, a target of a later part; "
            "what is tested must come after what is trained on"
        )


def _check_nothing_is_lost(name: str, log: Interactions, parts: tuple[Samples, ...]) -> None:
    """Every interaction but a user's first has a history, and is a target."""
    order = _order(log)
    first = order[np.unique(log.user[order], return_index=True)[1]]
    targets = np.concatenate([samples.targets for samples in parts])
    lost = np.setdiff1d(np.arange(len(log)), np.concatenate([first, targets]))
    assert not len(lost), (
        f"{name}: interaction {_first(lost)} has a history and is a target of no part ({len(lost)} are lost); make it "
        "one, or call check_split with may_leave_out=True where that is meant"
    )


def _check_short_histories(name: str, call: Split) -> None:
    """Users with one interaction each have no sample: that is bad input, and said as such."""
    count = 5
    log = Interactions(
        user=np.arange(count),
        item=np.arange(count),
        timestamp=np.arange(count),
        user_ids=tuple("abcde"),
        item_ids=tuple("abcde"),
        titles=tuple("ABCDE"),
        source="users with one interaction each",
    )
    try:
        call(log)
    except InputError as error:
        lines = str(error).splitlines()
    except Exception as error:
        raise AssertionError(
            f"{name}: users with one interaction each raise {type(error).__name__} ({error}); raise InputError, one "
            "line that says what to do, or give parts without samples"
        ) from error
    else:
        return
    assert len(lines) == 1, f"{name}: its InputError has {len(lines)} lines; say what, where and what to do in one"


def _first(values: Int64Array) -> int:
    return int(values[0])
