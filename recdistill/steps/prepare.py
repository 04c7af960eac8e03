"""``prepare``: read and split the data, and say what it is."""

import torch

from recdistill.config import DataConfig
from recdistill.evaluation.evaluate import rank_samples
from recdistill.evaluation.popularity import popularity_scores
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.inputs import data_of
from recdistill.steps.results import log_results
from recdistill.students.measure import KEPT


def prepare(config: DataConfig) -> StepRun:
    """Log the data's size, and what recommending the most popular items scores on it."""
    data = data_of(config)
    with step_run("prepare", config, data=data) as run:
        if run.reused:
            return run
        scores = popularity_scores(torch.as_tensor(data.item_count))
        parts = {"train": data.train, "val": data.validation, "test": data.test}
        sizes = {f"data/{part}_samples": float(len(samples)) for part, samples in parts.items()}
        share = data.seen_target_share()
        sizes |= {"data/items": data.num_items, "data/users": len(data.user_ids), "data/seen_target_share": share}
        run.log_metrics(sizes)
        validation, test = (
            rank_samples(
                scores, part, num_items=data.num_items, max_length=1, keep=KEPT, exclude_seen=config.exclude_seen
            )
            for part in (data.validation, data.test)
        )
        log_results(run, data, validation, test)
        run.log_text("fingerprint.txt", data.fingerprint)
        run.describe(
            f"{data.name}, {data.split}: {len(data.user_ids):,} users, {data.num_items:,} items, "
            f"{len(data.train):,} training samples. The metrics are those of recommending the most popular items."
        )
    return run
