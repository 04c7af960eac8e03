"""What files and frames must hold, and what becomes of items without titles."""

import pandas as pd
import pytest

from recdistill.data.interactions import Interactions
from recdistill.data.tables import interactions_of_tables
from recdistill.errors import InputError

ITEMS = [("a", "A"), ("b", ""), ("c", "C")]


def read(rows: list[tuple[str, str]], items: list[tuple[str, str]], missing_titles="id") -> Interactions:
    log = pd.DataFrame([(user, item, str(time)) for time, (user, item) in enumerate(rows)], dtype=str)
    titles = pd.DataFrame(items, columns=["item", "title"], dtype=str)
    log.columns = ["user", "item", "timestamp"]
    return interactions_of_tables(log, "log.csv", titles, "items.csv", missing_titles)


def test_titles_that_are_missing_are_the_ids_and_are_counted(said):
    found = read([("u", "a"), ("u", "x"), ("v", "y"), ("u", "x")], ITEMS)
    assert found.item_ids == ("a", "b", "c", "x", "y")
    assert found.titles == ("A", "b", "C", "x", "y")
    assert found.item.tolist() == [0, 3, 4, 3]
    assert said() == [
        "items.csv: warning: 3 of 5 items have no title (2 of them no row), as 'b'; their ids are their titles "
        "(missing_titles=refuse refuses them)"
    ]


def test_nothing_is_said_where_none_is_missing(said):
    assert read([("u", "a"), ("u", "c")], [ITEMS[0], ITEMS[2]]).titles == ("A", "C")
    assert said() == []


@pytest.mark.parametrize(
    ("rows", "items", "missing_titles", "told"),
    [
        ([("u", "a")], ITEMS, "refuse", "items.csv: row 2: title is blank .in 1 rows."),
        (
            [("u", "a"), ("u", "x")],
            ITEMS[:1],
            "refuse",
            "log.csv: row 2: unknown item 'x' .in 1 rows.; add it to items",
        ),
        (
            [("u", "x"), ("u", "y")],
            ITEMS,
            "id",
            "log.csv: none of its items is in items.csv: row 1 has 'x', .* has 'a'",
        ),
        ([("u", "a"), ("", "a")], ITEMS, "id", "log.csv: row 2: user is blank"),
        ([("u", "a"), ("u", "")], ITEMS, "id", "log.csv: row 2: item is blank"),
        ([("u", "a")], [*ITEMS, ("", "D")], "id", "items.csv: row 4: item is blank"),
        ([("u", "a")], [*ITEMS, ("a", "D")], "id", "items.csv: row 4: item 'a' stands twice"),
    ],
)
def test_what_is_refused(rows, items, missing_titles, told):
    with pytest.raises(InputError, match=told) as caught:
        read(rows, items, missing_titles)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "items", "told"),
    [
        (
            [("7", "a"), ("7.0", "a"), ("8", "a"), ("8.00", "a"), ("9.0", "a")],
            ITEMS,
            ["log.csv: warning: user '7' and '7.0' are two users, as ids are text (and 1 more pairs); write"],
        ),
        (
            [("u", "7.0"), ("u", "a")],
            [("7", "Seven"), ("a", "A")],
            [
                "log.csv: warning: item '7' and '7.0' are two items, as ids are text; write them one way",
                "items.csv: warning: 1 of 3 items have no title",
            ],
        ),
        ([("7", "a"), ("7.5", "a"), ("x7.0", "a"), ("08", "a"), ("x08", "a")], [("a", "A")], []),
        (
            [("7", "a"), ("007", "a"), ("08", "a"), ("008.0", "a"), ("0", "a"), ("00", "a"), ("10", "a")],
            [("a", "A")],
            ["log.csv: warning: user '7' and '007' are two users, as ids are text (and 2 more pairs); write"],
        ),
        (
            [("u", "026"), ("u", "27"), ("u", "26")],
            [("26", "Blue"), ("026", "Blue"), ("27", "Red")],
            ["log.csv: warning: item '26' and '026' are two items, as ids are text; write them one way"],
        ),
    ],
)
def test_numbers_written_in_two_ways_are_said_to_be_two(said, rows, items, told):
    read(rows, [(item, title or "B") for item, title in items])
    lines = said()
    assert len(lines) == len(told)
    assert all(line.startswith(begin) for line, begin in zip(lines, told, strict=True))


def test_line_breaks_are_said(said):
    read([("u", "a"), ("v\nu", "a"), ("u", "c")], [("a", "A"), ("c", "C\r\nD")])
    assert said() == [
        "log.csv: warning: 1 user ids hold a line break, as 'v\\nu'; was a file read past an open quote?",
        "items.csv: warning: 1 titles hold a line break, as 'C\\r\\nD'; was a file read past an open quote?",
    ]
