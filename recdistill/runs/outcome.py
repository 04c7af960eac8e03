"""The line that a step which makes one run ends with: which run, whether it was there before, and how it ranks."""

from recdistill.config.new_items import MapItemsConfig
from recdistill.evaluation.part_metrics import WARM_COST
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
    """Such as ``backbone: run 0123, val NDCG@20 0.1012, test NDCG@20 0.0987``.

    A second line says so where items without clicks cost those with clicks more than a map of new items may.
    """
    metrics = run.metrics()
    of_some = over_all(metrics)
    users = [f"of {of_some['test/users']:,.0f} users"] if of_some else []
    metrics = metrics | of_some
    said = [f"{title} {metrics[name]:.4f}" for title, name in SAID.items() if name in metrics]
    found = f"found, run {run.run_id} of an earlier command" if run.reused else f"run {run.run_id}"
    line = f"{step}: {', '.join([found, *users, *said])}"
    cost = metrics.get(WARM_COST, 0.0)
    if cost <= MapItemsConfig.warm_cost:
        return line
    return (
        f"{line}\n{step}: items without clicks take {cost:.1%} of their validation NDCG@20 from those with clicks; "
        f"map_items --student_run_id {run.run_id} sets them among the others"
    )
