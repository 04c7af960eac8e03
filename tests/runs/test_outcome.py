"""What a step says of the run that it made or found."""

import re
from dataclasses import replace

from recdistill.runs.outcome import outcome
from recdistill.runs.run import StepRun


def test_a_run_is_said_with_its_metrics_and_whether_it_was_there_before(client):
    run_id = client.create_run("0").info.run_id
    for name, value in {"test/ndcg_at_20": 0.09871, "test/new/ndcg_at_20": 0.0, "train_seconds": 3.0}.items():
        client.log_metric(run_id, name, value)
    run = StepRun(run_id, "key", "", reused=False)
    assert outcome("backbone", run) == f"backbone: run {run_id}, test NDCG@20 0.0987, of new items 0.0000"
    client.log_metric(run_id, "val/warm_cost", 0.0199)
    assert "\n" not in outcome("backbone", run)
    client.log_metric(run_id, "val/warm_cost", 0.0984)
    assert outcome("backbone", run).splitlines()[1] == (
        "backbone: items without clicks take 9.8% of their validation NDCG@20 from those with clicks; "
        f"map_items --student_run_id {run_id} sets them among the others"
    )
    found = outcome("backbone", replace(run, reused=True))
    assert re.match(rf"backbone: found, run {run_id} of an earlier command, test NDCG@20 0\.0987", found)
