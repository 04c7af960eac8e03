"""What every evaluated run keeps: metrics, ranks, recommendations, and how both depend on history and popularity."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch import Tensor

from recdistill.report.slice_figure import FEWEST, slice_figure
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.evaluation.rank_table import rank_table
from recdistill.evaluation.recommendation_table import recommendation_table
from recdistill.evaluation.slice_table import slice_table
from recdistill.runs.step_runs import StepRun
from recdistill.training.fit import Metrics

# Items kept of each test sample's ranking.
KEPT = 10


def named(part: str, ranks: Tensor) -> Metrics:
    """``part/hr_at_10`` and its like."""
    return {f"{part}/{name}": value for name, value in metrics_from_ranks(ranks).items()}


def log_results(
    run: StepRun, data: SequenceData, validation: Ranked, test: Ranked, epoch: int = 0, *, in_full: bool = True
) -> None:
    """Log the metrics of the final ranks of both parts, and each sample's rank.

    ``in_full`` also logs what is recommended for the test samples (``test.best``), and `log_slices`.
    """
    run.log_metrics(named("val", validation.ranks), epoch)
    # At no epoch, as all that is one number a run: the UI then draws bars side by side.
    run.log_metrics(named("test", test.ranks))
    tested = rank_table(test.ranks, data.test, data)
    run.log_ranks({"val": rank_table(validation.ranks, data.validation, data), "test": tested})
    if not in_full:
        return
    recommended = recommendation_table(test.best, data.test, data)

    def write(folder: Path) -> None:
        folder.mkdir()
        recommended.to_parquet(folder / "test.parquet", index=False)

    run.log_folder("recommendations", write)
    log_slices(run, data, {"": tested})


def log_slices(run: StepRun, data: SequenceData, ranks: Mapping[str, pd.DataFrame]) -> None:
    """Log HR@10 by length of the history and by popularity of the next item, as a picture and as a table.

    ``ranks`` are those of the test samples, by recommender, at most four; the name of a single one is not shown.
    """
    tables = {name: slice_table(table) for name, table in ranks.items()}
    whole = pd.concat(tables, names=["recommender"]).reset_index("recommender")

    def write(folder: Path) -> None:
        folder.mkdir()
        title = f"HR@10 on {data.name} ({data.split}), test; 95 % intervals from {FEWEST} samples on"
        (folder / "slices.png").write_bytes(slice_figure(tables, title))
        whole[whole.columns[len(tables) == 1 :]].to_csv(folder / "slices.csv", index=False)

    run.log_folder("figures", write)
