"""A finished run measured by the user's metrics that it lacks, or has by other code, from the ranks that it kept.

Nothing is trained again for a metric. The run's own numbers by the package's metrics stay.
"""

import json

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from recdistill.config.lineage import metric_contents
from recdistill.evaluation.part_metrics import table_metrics
from recdistill.registry import METRICS
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.outbox import post
from recdistill.runs.run import MEASURED_WITH, STEP, StepRun
from recdistill.runs.writes import batch

#: Steps whose runs are measured on validation and test.
EVALUATED = ("backbone", "teacher", "distill", "map_items")


def measure_again(found: Run) -> None:
    """Log what a finished run has by the user's metrics as they are now, where it lacks that; a line says so.

    A run whose ranks are gone, or are of some users alone, stays as it is, and the line says how it is measured.
    """
    measured, own = json.loads(found.data.tags.get(MEASURED_WITH, "{}")), metric_contents()
    other = {name.removeprefix(f"{METRICS.kind} ") for name, one in own.items() if measured.get(name) != one}
    step, run_id = found.data.tags.get(STEP, ""), found.info.run_id
    if not other or step not in EVALUATED:
        return
    said = f"{step}: run {run_id} was measured without {', '.join(sorted(other))} as it is now"
    try:
        folder = local_artifact(f"{found.info.artifact_uri}/ranks")
        tables = {part: pd.read_parquet(folder / f"{part}.parquet") for part in ("val", "test")}
    except (MlflowException, OSError):
        tables = {}
    if not tables or "test/ndcg_at_20" not in found.data.metrics:
        print(f"{said}; `recdistill evaluate --run_id {run_id}` measures it again", flush=True)
        return
    run = StepRun(run_id, "", "", reused=True)
    for part, table in tables.items():
        run.log_metrics(table_metrics(part, table, other))
    post(batch(run_id, tags={MEASURED_WITH: json.dumps(own)}))
    print(f"{said}, and is measured again from its ranks", flush=True)
