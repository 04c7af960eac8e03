"""Interactions as a source gives them, before any split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from recdistill.data.samples import Int64Array
from recdistill.data.stable_order import WholeNumbers
from recdistill.errors import InputError, one_line


@dataclass(frozen=True, eq=False)
class Interactions:
    """N interactions in file order, over U users and V items.

    Attributes:
        user: int64 [N], 0 .. U-1 by first appearance; int32 where they are read from files, which halves their memory.
        item: int64 [N], 0 .. V-1 in the catalogue's order; or int32 likewise.
        timestamp: int64 [N]; only its order matters. Never a float32: seconds since 1970 do not fit, and ties
            made by rounding would move items between splits.
        user_ids, item_ids: ids as the source writes them.
        titles: V titles.
        source: where they come from, for messages.
        item_columns: further columns of the items file, by name, V texts each; an empty text where there is none.
    """

    user: WholeNumbers
    item: WholeNumbers
    timestamp: Int64Array
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    source: str
    item_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)


def checked_interactions(found: object, source: str) -> Interactions:
    """What a user's source gave, its numbers as int64.

    Args:
        found: of the source.
        source: its name.

    Raises:
        InputError: it is no `Interactions`, a number leaves its range or is no whole one, or an id or title is no text
            or stands twice.
    """
    said, more = f"data source {source!r}:", "recdistill.testing.check_source tells more"
    if not isinstance(found, Interactions):
        raise InputError(f"{said} gives a {type(found).__name__}; give recdistill.Interactions; {more}")
    columns = {name: _whole_numbers(getattr(found, name), f"{said} {name}") for name in ("user", "item", "timestamp")}
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(str(len(column)) for column in columns.values())
        raise InputError(f"{said} user, item, timestamp have {sizes} numbers; give one of each an interaction")
    texts = {name: _texts(getattr(found, name), f"{said} {name}") for name in ("user_ids", "item_ids", "titles")}
    for name, of in (("user", "user_ids"), ("item", "item_ids")):
        numbers, ids = columns[name], texts[of]
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InputError(f"{said} {of} holds {one_line(repr(twice), 60)} twice; give each an id of its own; {more}")
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(ids):
            raise InputError(f"{said} {name} holds numbers outside 0 .. {len(ids) - 1}, the places in {of}; {more}")
    if len(texts["titles"]) != len(texts["item_ids"]):
        sizes = f"{len(texts['item_ids'])} items have {len(texts['titles'])} titles"
        raise InputError(f"{said} {sizes}; give each item one, its id where it has none; {more}")
    if not isinstance(found.source, str) or not isinstance(found.item_columns, Mapping):
        raise InputError(f"{said} source is no text, or item_columns no mapping; {more}")
    more_texts = {str(name): _texts(one, f"{said} item_columns {name}") for name, one in found.item_columns.items()}
    for name, values in more_texts.items():
        if len(values) != len(texts["titles"]):
            raise InputError(
                f"{said} item_columns {name} has {len(values)} texts of {len(texts['titles'])} items; {more}"
            )
    return replace(found, **columns, **texts, item_columns=more_texts)  # type: ignore[arg-type]


def _whole_numbers(values: object, said: str) -> Int64Array:
    """A column as int64. Raises InputError where it is no array of one dimension, or of other than whole numbers."""
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
        kind = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(f"{said} is {kind}; give a NumPy array of int64, one number an interaction")
    return values.astype(np.int64, copy=False)


def _texts(values: object, said: str) -> tuple[str, ...]:
    """Ids or titles as a tuple. Raises InputError where one is no text."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"{said} is a {type(values).__name__}; give a tuple of texts")
    wrong = next((one for one in values if not isinstance(one, str)), None)
    if wrong is not None:
        raise InputError(f"{said} holds {one_line(repr(wrong), 60)}, a {type(wrong).__name__}; give text, by str()")
    return tuple(values)
