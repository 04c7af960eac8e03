"""Interactions and items as two tables of text: the checks that files and frames share."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd

from recdistill.data.coded_column import CodedColumn, coded
from recdistill.data.interactions import Interactions
from recdistill.data.item_columns import item_columns
from recdistill.data.notices import notice
from recdistill.data.samples import Int64Array
from recdistill.data.timestamps import parse_timestamps
from recdistill.errors import InputError

#: What becomes of an item without title.
MissingTitles = Literal["id", "refuse"]


def interactions_of_tables(
    table: pd.DataFrame, place: str, items: pd.DataFrame, place_of_items: str, missing_titles: MissingTitles = "id"
) -> Interactions:
    """Number the users by first appearance, and the items in the order of their table, then by first appearance.

    Fields are text without white space around it; an empty one is blank. Interactions that are in the table twice
    stay twice.

    Args:
        table: N rows with columns user, item and timestamp (numbers or ISO dates).
        place: where ``table`` comes from, for messages.
        items: rows with columns item and title; further columns are texts that become `Interactions.item_columns`.
        place_of_items: where ``items`` comes from, for messages.
        missing_titles: an item that has no title, or no row in ``items``, has its id for title, and a line says how
            many; or is refused.

    Raises:
        InputError: a field is blank, an item stands twice, no item of ``table`` is in ``items``, or a timestamp cannot
            be read; with the row, counted from 1.
    """
    user, item = coded(table["user"]), coded(table["item"])
    return interactions_of_columns(
        user, item, lambda: parse_timestamps(place, table["timestamp"]), place, items, place_of_items, missing_titles
    )


def interactions_of_columns(
    user: CodedColumn,
    item: CodedColumn,
    timestamps: Callable[[], Int64Array],
    place: str,
    items: pd.DataFrame,
    place_of_items: str,
    missing_titles: MissingTitles = "id",
) -> Interactions:
    """The same of columns whose texts are numbered by first appearance.

    Args:
        user, item: N rows each.
        timestamps: makes int64 [N]; called when users and items are checked.
        place, items, place_of_items, missing_titles: of `interactions_of_tables`, as what is raised is.
    """
    check_items(items, place_of_items)
    for name, column in (("user", user), ("item", item)):
        refuse_blank_rows(column.rows_of(""), name, place)
    known = pd.Index(items["item"])
    number = known.get_indexer(item.texts)
    is_unknown = number < 0
    if is_unknown.any() and missing_titles == "refuse":
        rows = np.flatnonzero(is_unknown[item.codes])
        raise InputError(
            f"{place}: row {rows[0] + 1}: unknown item {item.text(rows[0])!r} "
            f"(in {len(rows)} rows); add it to {place_of_items} or leave the rows out"
        )
    if is_unknown.all():
        raise InputError(
            f"{place}: none of its items is in {place_of_items}: row 1 has {item.text(0)!r}, "
            f"and there row 1 has {items['item'].iloc[0]!r}; give the file that names these items"
        )
    added = item.texts[is_unknown]
    number[is_unknown] = len(items) + np.arange(len(added))
    items = pd.concat([items, pd.DataFrame({"item": added, "title": ""})], ignore_index=True)
    say_ids_that_look_alike("user", user.texts, place)
    say_ids_that_look_alike("item", pd.Index(items["item"]), place)
    say_line_breaks("user ids", pd.Series(user.texts), place)
    say_line_breaks("item ids", items["item"], place_of_items)
    say_line_breaks("titles", items["title"], place_of_items)
    return Interactions(
        user=user.codes,
        item=number.astype(np.int32)[item.codes],
        timestamp=timestamps(),
        user_ids=tuple(user.texts),
        item_ids=tuple(items["item"]),
        titles=titles_of(items, place_of_items, len(added), missing_titles),
        source=place,
        item_columns=item_columns(items),
    )


def titles_of(items: pd.DataFrame, place: str, without_row: int, missing_titles: MissingTitles) -> tuple[str, ...]:
    """V titles; the id where a title is blank.

    Args:
        items: V rows with columns item and title, the last of them items that have no row in the file.
        place: where the others come from, for messages.
        without_row: how many have no row.
        missing_titles: what becomes of blank ones.
    """
    blank = (items["title"] == "").to_numpy(dtype=bool)
    if missing_titles == "refuse":
        refuse_blank(items, "title", place)
    elif blank.any():
        example = items["item"].iloc[int(blank.argmax())]
        notice(
            f"{place}: warning: {int(blank.sum()):,} of {len(items):,} items have no title ({without_row:,} of them no "
            f"row), as {example!r}; their ids are their titles (missing_titles=refuse refuses them)"
        )
    return tuple(items["title"].where(~blank, items["item"]))


def check_items(items: pd.DataFrame, place: str) -> None:
    """Raise InputError for a blank id, and for an id that stands twice."""
    refuse_blank(items, "item", place)
    repeated = np.flatnonzero(items["item"].duplicated())
    if len(repeated):
        raise InputError(
            f"{place}: row {repeated[0] + 1}: item {items['item'].iloc[repeated[0]]!r} stands twice; "
            "keep one row an item"
        )


def say_ids_that_look_alike(column: str, ids: pd.Index, place: str) -> None:
    """Say where two ids are one whole number, as '7', '7.0' and '007' are: as text they are different ids."""
    texts = pd.Series(ids, dtype=str)
    other = texts[texts.str.fullmatch(r"[+-]?0+\d+(?:\.0*)?|[+-]?\d+\.0*")]
    if not len(other):
        return
    plain = other.str.partition(".")[0].str.replace(r"^([+-]?)0+(?=\d)", r"\1", regex=True)
    has_plain = plain.isin(texts)
    alike = other[has_plain | plain.duplicated()]
    if len(alike):
        written, number = alike.iloc[0], plain[alike.index[0]]
        partner = number if has_plain[alike.index[0]] else other[plain == number].iloc[0]
        more = f" (and {len(alike) - 1:,} more pairs)" if len(alike) > 1 else ""
        notice(
            f"{place}: warning: {column} {partner!r} and {written!r} are two {column}s, as ids are "
            f"text{more}; write them one way if they are one"
        )


def say_line_breaks(what: str, texts: "pd.Series[str]", place: str) -> None:
    """Say where ids or titles hold a line break, as they do where a file was read past an open quote."""
    broken = texts[texts.str.contains(r"[\r\n]").to_numpy(dtype=bool)]
    if len(broken):
        shown = broken.iloc[0][:40]
        notice(
            f"{place}: warning: {len(broken):,} {what} hold a line break, as {shown!r}; was a file read past an open "
            "quote?"
        )


def refuse_blank(table: pd.DataFrame, column: str, place: str) -> None:
    """Raise InputError at the first blank field of ``column``."""
    refuse_blank_rows(np.flatnonzero(table[column] == ""), column, place)


def refuse_blank_rows(blank: Int64Array, column: str, place: str) -> None:
    """Raise InputError where there is a row in which ``column`` is blank."""
    if len(blank):
        raise InputError(
            f"{place}: row {blank[0] + 1}: {column} is blank (in {len(blank)} rows); fill it in or leave the row out"
        )
