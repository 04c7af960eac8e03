"""Interactions and items as two tables of text: the checks that CSV files and frames share."""

import numpy as np
import pandas as pd

from recdistill.data.interactions import Interactions
from recdistill.data.timestamps import parse_timestamps
from recdistill.errors import InputError

INTERACTION_COLUMNS = ("user", "item", "timestamp")
ITEM_COLUMNS = ("item", "title")


def interactions_of_tables(table: pd.DataFrame, place: str, items: pd.DataFrame, place_of_items: str) -> Interactions:
    """Number the users by first appearance and the items in the order of their table.

    Fields are text without white space around it; an empty one is blank. Interactions that are in the table twice
    stay twice.

    Args:
        table: N rows with columns user, item and timestamp (whole numbers or ISO dates).
        place: where ``table`` comes from, for messages.
        items: V rows with columns item and title.
        place_of_items: where ``items`` comes from, for messages.

    Raises:
        InputError: a field is blank, an item stands twice or is unknown, or a timestamp cannot be read; with the row,
            counted from 1.
    """
    check_items(items, place_of_items)
    refuse_blank(table, "user", place)
    refuse_blank(table, "item", place)
    item = pd.Index(items["item"]).get_indexer(pd.Index(table["item"])).astype(np.int64)
    unknown = np.flatnonzero(item < 0)
    if len(unknown):
        raise InputError(
            f"{place}: row {unknown[0] + 1}: unknown item {table['item'].iloc[unknown[0]]!r} "
            f"(in {len(unknown)} rows); add it to {place_of_items} or leave the rows out"
        )
    user, user_ids = pd.factorize(table["user"])
    return Interactions(
        user=user.astype(np.int64),
        item=item,
        timestamp=parse_timestamps(place, table["timestamp"]),
        user_ids=tuple(user_ids),
        item_ids=tuple(items["item"]),
        titles=tuple(items["title"]),
        source=place,
    )


def check_items(items: pd.DataFrame, place: str) -> None:
    """Raise InputError for a blank id or title, and for an id that stands twice."""
    refuse_blank(items, "item", place)
    refuse_blank(items, "title", place)
    repeated = np.flatnonzero(items["item"].duplicated())
    if len(repeated):
        raise InputError(
            f"{place}: row {repeated[0] + 1}: item {items['item'].iloc[repeated[0]]!r} stands twice; "
            "keep one row an item"
        )


def refuse_blank(table: pd.DataFrame, column: str, place: str) -> None:
    """Raise InputError at the first blank field of ``column``."""
    blank = np.flatnonzero(table[column] == "")
    if len(blank):
        raise InputError(
            f"{place}: row {blank[0] + 1}: {column} is blank (in {len(blank)} rows); fill it in or leave the row out"
        )
