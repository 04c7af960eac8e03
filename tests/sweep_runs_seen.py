"""The runs of a sweep as the tracking store has them."""

import mlflow
from mlflow.entities import Run


def runs(condition: str = "") -> list[Run]:
    found = mlflow.search_runs(filter_string=condition, search_all_experiments=True, output_format="list")
    return [run for run in found if isinstance(run, Run)]


def children(parent: str) -> list[Run]:
    return runs(f"tags.`mlflow.parentRunId` = '{parent}'")


def trials_of(parent: str) -> dict[int, Run]:
    return {int(r.data.tags["recdistill.trial"]): r for r in children(parent) if "recdistill.trial" in r.data.tags}
