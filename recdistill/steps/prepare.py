"""``prepare``: read and split the data, and say what it is."""

import torch

from recdistill.config import DataConfig
from recdistill.evaluation.evaluate import evaluate
from recdistill.evaluation.metrics import metrics_from_ranks
from recdistill.evaluation.popularity import popularity_scores
from recdistill.steps.student import CUTOFFS, data_of
from recdistill.tracking.runs import StepRun, step_run


def prepare(config: DataConfig) -> StepRun:
    """Log the data's size and what recommending the most popular items scores on it."""
    data = data_of(config)
    with step_run(
        "prepare",
        config,
        fingerprint=data.fingerprint,
        settings=[],
        code=["data", "evaluation", "steps/prepare.py"],
        dataset=data.name,
    ) as run:
        if run.reused:
            return run
        scores = popularity_scores(torch.as_tensor(data.item_count))
        parts = {"train": data.train, "val": data.validation, "test": data.test}
        sizes = {f"data/{part}_samples": float(len(samples)) for part, samples in parts.items()}
        run.log_metrics(sizes | {"data/items": data.num_items, "data/users": len(data.user_ids)})
        for part in ("val", "test"):
            ranks = evaluate(
                scores,
                parts[part],
                num_items=data.num_items,
                max_length=1,
            )
            run.log_metrics({f"{part}/{name}": value for name, value in metrics_from_ranks(ranks, CUTOFFS).items()})
        run.log_text("fingerprint.txt", data.fingerprint)
    return run
