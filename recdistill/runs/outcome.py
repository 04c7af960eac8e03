"""The line that a step which makes one run ends with: which run, whether it was there before, and how it ranks."""

from recdistill.evaluation.some_users import over_all
from recdistill.runs.run import StepRun

#: Metrics that are said, by their titles, where the run has them.
SAID = {
    "val NDCG@20": "val/ndcg_at_20",
    "test NDCG@20": "test/ndcg_at_20",
    "of new items": "test/new/ndcg_at_20",
    "new among new": "test/new_among_new/ndcg_at_20",
}


def outcome(step: str, run: StepRun) -> str:
    """Such as ``backbone: run 0123, val NDCG@20 0.1012, test NDCG@20 0.0987``."""
    metrics = run.metrics()
    of_some = over_all(metrics)
    users = [f"of {of_some['test/users']:,.0f} users"] if of_some else []
    metrics = metrics | of_some
    said = [f"{title} {metrics[name]:.4f}" for title, name in SAID.items() if name in metrics]
    found = f"found, run {run.run_id} of an earlier command" if run.reused else f"run {run.run_id}"
    return f"{step}: {', '.join([found, *users, *said])}"
