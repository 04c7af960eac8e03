"""A small data set that can be learnt: items follow each other in a ring, with some noise."""

import csv
import random
from pathlib import Path

USERS, ITEMS = 30, 40


def write_csv(folder: Path, users: int = USERS, items: int = ITEMS, seed: int = 0) -> dict[str, str]:
    """Write interactions.csv and items.csv; the options that read them."""
    drawn = random.Random(seed)
    rows = []
    for user in range(users):
        item = drawn.randrange(items)
        for time in range(drawn.randint(6, 16)):
            rows.append((f"u{user}", f"i{item}", 1000 * user + time))
            item = (item + 1) % items if drawn.random() < 0.8 else drawn.randrange(items)
    write_table(folder / "interactions.csv", [("user", "item", "timestamp"), *rows])
    titles = [f"Film {'of the day ' * (item % 3)}{item}" for item in range(items)]
    write_table(folder / "items.csv", [("item", "title"), *((f"i{item}", title) for item, title in enumerate(titles))])
    return options_of(folder)


def options_of(folder: Path) -> dict[str, str]:
    """The options that read a folder's files."""
    return {
        "dataset": "csv",
        "interactions": str(folder / "interactions.csv"),
        "items": str(folder / "items.csv"),
    }


def write_table(path: Path, rows: list[tuple]) -> None:
    """Rows as CSV, the header first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
