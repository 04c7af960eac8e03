"""Which columns of a table hold the users, items, times and titles: the option ``columns``."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from recdistill.errors import InputError, one_line

INTERACTION_COLUMNS = ("user", "item", "timestamp")
ITEM_COLUMNS = ("item", "title")
COLUMNS = ("user", "item", "timestamp", "title")
EXAMPLE = "columns=user:customer_id,item:sku,timestamp:bought_at,title:name"

#: Headers in a person's files, by the column that they stand for.
Headers = Mapping[str, tuple[str, ...]]


def headers_of(columns: str) -> Headers:
    """The headers that ``columns=`` names, by the column that they stand for.

    A column may have two headers, one for each file. Raises InputError unless it is written as in `EXAMPLE`.

    >>> headers_of("user:customer_id, item:sku, item:product")
    {'user': ('customer_id',), 'item': ('sku', 'product')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for pair in columns.split(",") if columns.strip() else ():
        column, colon, header = (part.strip() for part in pair.partition(":"))
        if not colon or not header:
            raise InputError(f"columns={columns}: {pair.strip()!r} is no column:header; write {EXAMPLE}")
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.5)
            hint = f" (nearest: {near[0]})" if near else ""
            raise InputError(f"columns={columns}: {column!r} is none of {', '.join(COLUMNS)}{hint}; write {EXAMPLE}")
        found[column] = (*found.get(column, ()), header)
    return found


def pick(names: Sequence[str], columns: Iterable[str], headers: Headers, place: str) -> dict[str, str]:
    """The header of each column in one table.

    ``item`` stands in two files, so that each may have the header ``item`` in place of the one named for the other.

    Args:
        names: headers of the table.
        columns: those that it must have.
        headers: of `headers_of`.
        place: where the table comes from, for messages.

    Raises:
        InputError: one is missing, or two headers of one column are in the table.
    """
    used: dict[str, str] = {}
    for column in columns:
        named = headers.get(column, ())
        found = [name for name in named if name in names]
        if len(found) > 1:
            raise InputError(f"{place}: has columns {found[0]!r} and {found[1]!r}; columns= must name one for {column}")
        if not found and (not named or column == "item") and column in names:
            found = [column]
        if not found:
            raise InputError(missing(place, (named or (column,))[0], names))
        used[column] = found[0]
    return used


def missing(place: str, header: str, names: Sequence[str]) -> str:
    """What a message says of a column that is not there."""
    near = difflib.get_close_matches(header.lower(), [name.lower() for name in names], n=1, cutoff=0.6)
    hint = f" (nearest: {next(name for name in names if name.lower() == near[0])})" if near else ""
    return (
        f"{place}: has no column {header!r}, found {one_line(', '.join(names)) or 'none'}{hint}; "
        f"name it so, or say which it is: {EXAMPLE}"
    )


def refuse_unused(columns: str, headers: Headers, *used: Mapping[str, str]) -> None:
    """Raise InputError for a header of ``columns=`` that no table has."""
    taken = {(column, header) for one in used for column, header in one.items()}
    for column, named in headers.items():
        for header in named:
            if (column, header) not in taken:
                raise InputError(f"columns={columns}: no file has a column {header!r} for {column}; leave it out")
