"""``prepare``: read and split the data, and say what it is."""

from collections.abc import Mapping

import numpy as np
import torch

from recdistill.config import DataConfig
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import rank_samples
from recdistill.evaluation.popularity import popularity_scores
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.inputs import data_of
from recdistill.steps.results import log_results
from recdistill.students.measure import KEPT


def prepare(config: DataConfig) -> StepRun:
    """Print and log the data's size, and log what recommending the most popular items scores on it."""
    data = data_of(config)
    new = new_counts(data)
    print("\n".join(summary(data, new)), flush=True)
    with step_run("prepare", config, data=data) as run:
        if run.reused:
            return run
        scores = popularity_scores(torch.as_tensor(data.item_count))
        parts = {"train": data.train, "val": data.validation, "test": data.test}
        sizes = {f"data/{part}_samples": float(len(samples)) for part, samples in parts.items()}
        share = data.seen_target_share()
        sizes |= {"data/items": data.num_items, "data/users": len(data.user_ids), "data/seen_target_share": share}
        run.log_metrics(sizes | new)
        validation, test = (
            rank_samples(
                scores,
                samples,
                num_items=data.num_items,
                max_length=1,
                keep=KEPT,
                exclude_seen=config.exclude_seen,
                among=among,
            )
            for samples, among in ((data.validation, data.new_validation), (data.test, data.new_test))
        )
        log_results(run, data, validation, test, exclude_seen=config.exclude_seen)
        run.log_text("fingerprint.txt", data.fingerprint)
        said = " ".join(f"{line}." for line in summary(data, new))
        run.describe(f"{said} The metrics are those of recommending the most popular items.")
    return run


def new_counts(data: SequenceData) -> dict[str, float]:
    """How many new items each part has, and how many of its samples are of one; nothing where no sample is."""
    parts = {"val": (data.validation, data.new_validation), "test": (data.test, data.new_test)}
    found = {}
    for part, (samples, new) in parts.items():
        found[f"data/{part}_new_items"] = float(len(new))
        found[f"data/{part}_new_samples"] = float(np.isin(samples.targets, new).sum())
    return found if any(found[f"data/{part}_new_samples"] for part in parts) else {}


def summary(data: SequenceData, new: Mapping[str, float]) -> list[str]:
    """What the data are, in a line, and in another which items are new, where there are any."""
    lines = [
        f"{data.name}, {data.split}: {len(data.user_ids):,} users, {data.num_items:,} items, {len(data.train):,} "
        f"training samples, {len(data.validation):,} validation samples, {len(data.test):,} test samples"
    ]
    if new:
        items, samples = (
            [int(new[f"data/{part}_new_{name}"]) for part in ("val", "test")] for name in ("items", "samples")
        )
        lines.append(
            f"new items: {items[1]:,} in test, targets of {samples[1]:,} test samples; {items[0]:,} in validation, "
            f"targets of {samples[0]:,} validation samples"
        )
    return lines
