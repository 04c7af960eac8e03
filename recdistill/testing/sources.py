"""Checks of a data source: whoever writes one calls `check_source` on it and learns what to mend."""

from collections.abc import Callable
from typing import Any

import numpy as np

from recdistill.config.data import DataConfig
from recdistill.data.fingerprint import fingerprint
from recdistill.data.interactions import Interactions
from recdistill.data.load import call_part
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import SOURCES

NOWHERE = "a file that is not there"


def check_source(source: str | Callable[..., Any], **options: Any) -> None:
    """Check that a data source keeps its contract: interactions numbered as documented, or samples that came split.

    Args:
        source: its name, or the function.
        options: of `DataConfig`, as ``interactions`` and ``items``, and the source's own: so that it finds its data.

    Raises:
        AssertionError: the source breaks the contract; the message says how, and what to change.
    """
    name = source if isinstance(source, str) else getattr(source, "__name__", repr(source))
    found = _read(source, options)
    if isinstance(found, Interactions):
        _check_interactions(name, found)
    elif isinstance(found, SequenceData):
        _check_split_data(name, found)
    else:
        raise AssertionError(
            f"{name}: gives a {type(found).__name__}; give Interactions, or SequenceData where the files came split"
        )
    _check_catalogue(name, found)
    assert _digest(_read(source, options)) == _digest(found), (
        f"{name}: gives other data when read again; keep the order of the files, and draw no random numbers"
    )
    _check_missing_file(name, source, options)


def _read(source: str | Callable[..., Any], options: dict[str, Any]) -> Any:
    """Call a source with the options, and its own where it is registered with some."""
    if not isinstance(source, str) and not _is_registered(source):
        return source(DataConfig(**options))
    name = source if isinstance(source, str) else SOURCES.name_of(source)
    config = DataConfig(**({"dataset": name} | options))
    return call_part(SOURCES, name, config, config)


def _is_registered(source: Callable[..., Any]) -> bool:
    return any(SOURCES.get(name) is source for name in SOURCES.names())


def _digest(data: Interactions | SequenceData) -> str:
    """A digest of all numbers and texts, the further columns as they are."""
    if isinstance(data, SequenceData):
        parts = (data.train, data.validation, data.test)
        return fingerprint(data.item_ids, data.titles, parts) + repr(dict(data.item_columns))
    whole = np.arange(len(data))
    columns = [
        Samples(np.append(array, 0), whole, whole + 1, whole) for array in (data.user, data.item, data.timestamp)
    ]
    return fingerprint(data.item_ids + data.user_ids, data.titles, columns) + repr(dict(data.item_columns))


def _check_interactions(name: str, found: Interactions) -> None:
    """N rows of numbers within their ranges, users by first appearance."""
    for column in ("user", "item", "timestamp"):
        array = getattr(found, column)
        kind = getattr(array, "dtype", type(array).__name__)
        assert kind == np.int64 or (kind == np.int32 and column != "timestamp"), (
            f"{name}: {column} is {kind}; make it int64 (seconds since 1970 do not fit a float32, and ties made by "
            "rounding would reorder a history)"
        )
        assert array.shape == (len(found.user),), (
            f"{name}: {column} has the shape {array.shape}; user, item and timestamp have one number an interaction"
        )
    assert len(found), f"{name}: gives no interaction; raise InputError, one line, where there is none"
    for column, ids in (("user", found.user_ids), ("item", found.item_ids)):
        number = getattr(found, column)
        assert bool(((number >= 0) & (number < len(ids))).all()), (
            f"{name}: {column} holds numbers outside 0 .. {len(ids) - 1}; they are positions in {column}_ids"
        )
    present, first = np.unique(found.user, return_index=True)
    assert len(present) == len(found.user_ids), (
        f"{name}: {len(found.user_ids) - len(present)} users have no interaction; leave them out of user_ids"
    )
    assert bool((np.diff(first) > 0).all()), (
        f"{name}: users are not numbered by first appearance, as pandas.factorize does; max_users keeps the first ones"
    )
    assert found.source.strip(), (
        f"{name}: source is blank; say where the interactions come from, messages begin with it"
    )


def _check_split_data(name: str, found: SequenceData) -> None:
    """Three parts of samples within the catalogue, with the fingerprint of their content."""
    assert found.num_items == len(found.titles), (
        f"{name}: num_items is {found.num_items}, and there are {len(found.titles)} titles; both are V"
    )
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    for part, samples in parts.items():
        assert len(samples), f"{name}: {part} has no sample; raise InputError, one line, where a part is empty"
        assert bool(((samples.items >= 0) & (samples.items < found.num_items)).all()), (
            f"{name}: {part} holds items outside 0 .. {found.num_items - 1}; V itself is the padding"
        )
        assert bool(((samples.user >= 0) & (samples.user < len(found.user_ids))).all()), (
            f"{name}: {part} holds users outside 0 .. {len(found.user_ids) - 1}; they are positions in user_ids"
        )
    assert found.fingerprint == fingerprint(found.item_ids, found.titles, tuple(parts.values())), (
        f"{name}: fingerprint is not that of the content; set it to "
        "data.fingerprint.fingerprint(item_ids, titles, (train, validation, test))"
    )
    blank = [field for field in ("name", "split") if not getattr(found, field).strip()]
    assert not blank, f"{name}: its {blank} is blank; name the data set, and say split='released' where it came split"


def _check_catalogue(name: str, found: Interactions | SequenceData) -> None:
    """Ids are text and differ; every item has a title, and a text in each further column."""
    for field in ("item_ids", "titles", "user_ids"):
        texts = getattr(found, field)
        wrong = [value for value in texts if not isinstance(value, str) or not value.strip()]
        assert not wrong, f"{name}: {field} holds {wrong[0]!r}; ids and titles are text and not blank"
        assert field == "titles" or len(set(texts)) == len(texts), (
            f"{name}: {field} holds an id twice; each user and item has an id of its own"
        )
    assert len(found.item_ids) == len(found.titles), (
        f"{name}: {len(found.item_ids)} items have {len(found.titles)} titles; give each one, its id where it has none"
    )
    for column, values in found.item_columns.items():
        kinds = {type(value) for value in values} | {str}
        assert (len(values), kinds) == (len(found.titles), {str}), (
            f"{name}: item_columns has no text of each item in {column!r}; give V texts, '' where there is none"
        )


def _check_missing_file(name: str, source: str | Callable[..., Any], options: dict[str, Any]) -> None:
    """``interactions=`` that names nothing is bad input, also for a source that reads no file."""
    given = f"{name}: interactions={NOWHERE}"
    try:
        _read(source, options | {"interactions": NOWHERE})
    except InputError as error:
        lines = str(error).splitlines()
    except Exception as error:
        raise AssertionError(
            f"{given} raises {type(error).__name__} ({error}); raise InputError, one line that says what to do"
        ) from error
    else:
        raise AssertionError(f"{given} changes nothing; read the file, or raise InputError where one is given")
    assert len(lines) == 1, f"{given}: the InputError has {len(lines)} lines; say what, where and what to do in one"
