"""What it gives to start a student's item embeddings from the items' texts, on items that few have clicked on.

``python benchmarks/item_init.py`` trains a student on MovieLens-latest-small with drawn embeddings and with
``item_init=views`` for each choice of views (or finds their runs in the tracking store), and prints NDCG@20 of the test
targets: of all, and of those that are a training target never, 1 to 5 times, 6 to 20 times and more often.

Further options are those of ``backbone``, as ``--student gru4rec --epochs 10 --seed 2 --dataset ml-100k``.
"""

import argparse

import pandas as pd
import torch

from recdistill.config import BaselineConfig, changed
from recdistill.config.command_line import parse
from recdistill.evaluation.rank_metrics import gains
from recdistill.runs.run import StepRun
from recdistill.steps.backbone import backbone

VIEWS = ("tfidf", "sentence+tfidf")
#: Bounds of the counts that targets are told apart by: never, 1 to 5, 6 to 20, more.
COUNTS = (-1, 0, 5, 20, 1 << 40)
COLUMNS = ("item_init", "all", "never", "1-5", "6-20", "more", "val", "epoch", "seconds")


def row_of(run: StepRun, name: str) -> tuple[str, ...]:
    """A line of the table."""
    metrics = run.metrics()
    ranks = pd.read_parquet(run.artifact("ranks") / "test.parquet")
    gain = pd.Series(gains("ndcg", torch.tensor(ranks["rank"].tolist()), 20).numpy())
    means = gain.groupby(pd.cut(ranks["item_count"], COUNTS).cat.codes).mean()
    apart = [f"{means[part]:.4f}" if part in means.index else "" for part in range(len(COUNTS) - 1)]
    rest = (f"{metrics['val/ndcg_at_20']:.4f}", f"{metrics['best_epoch'] + 1:.0f}", f"{metrics['train_seconds']:.0f}")
    return (name, f"{gain.mean():.4f}", *apart, *rest)


def print_row(cells: tuple[str, ...]) -> None:
    """Print a line of the table at once: the next may take minutes."""
    print(" | ".join(cell.ljust(width) for cell, width in zip(cells, (22, *[8] * 8), strict=True)), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all_views", nargs="*", default=list(VIEWS))
    arguments, rest = parser.parse_known_args()
    given = {one.partition("=")[0].removeprefix("--") for one in rest}
    rest += [] if "dataset" in given else ["--dataset=ml-latest-small"]
    config = parse(BaselineConfig, "backbone", rest)
    torch.set_num_threads(1)
    print_row(COLUMNS)
    print_row(row_of(backbone(config), "random"))
    for views in arguments.all_views:
        print_row(row_of(backbone(changed(config, item_init="views", views=views)), f"views: {views}"))


if __name__ == "__main__":
    main()
