"""A small data set in which everyone keeps to a kind of items, and the kind stands in the items' texts alone."""

import csv
import random
from pathlib import Path

import torch

KINDS = ("Crime", "Love", "War", "Jazz")
QUICK = {"student": "gru4rec", "hidden_size": 16, "max_length": 10, "epochs": 20, "dropout": 0.1, "views": "tfidf"}
QUICK |= {"device": "cpu", "new_items": 0.25, "batch_size": 64, "learning_rate": 0.01, "patience": 0}


def write_data(folder: Path, seed=0) -> dict[str, object]:
    """Sixty items of four kinds, named in a column; everyone keeps to a kind."""
    drawn = random.Random(seed)
    rows = []
    for user in range(50):
        kind = drawn.randrange(4)
        liked = [item for item in range(60) if item % 4 == kind or drawn.random() < 0.1]
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(drawn.sample(liked, 12))]
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "timestamp"), *rows])
    with (folder / "items.csv").open("w", newline="") as file:
        lines = [(f"i{item}", f"Number {item}", KINDS[item % 4]) for item in range(60)]
        csv.writer(file).writerows([("item", "title", "kind"), *lines])
    return {"dataset": "csv", "interactions": str(folder / "log.csv"), "items": str(folder / "items.csv")}


def histories_of(data, items, count=8):
    generator = torch.Generator().manual_seed(0)
    items = torch.as_tensor(items)
    return items[torch.randint(len(items), (count, 10), generator=generator)], torch.full((count,), 10)
