"""Measurements of a fitted recommender: its ranks on validation and test samples, and its speed."""

import statistics
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.evaluate import Ranked, ScoreFunction, places_at_once, rank_samples
from recdistill.evaluation.part_metrics import part_metrics
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.students.recommender import ClosedForm, Recommender
from recdistill.students.shape import StudentShape
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.fit import Metrics, Progress

# Items kept of each test sample's ranking.
KEPT = 10
# Histories answered one at a time, to time an answer.
LATENCY_HISTORIES = 50


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted recommender and its measurements.

    Attributes:
        model: on its device, in evaluation mode.
        shape: to save it with; see `build.save_recommender`.
        progress: of its training; None where it was not trained by gradient.
        validation: ranks of the validation samples.
        test: ranks of the test samples, and the items recommended for them.
        measured: ``ms_per_1000_recommendations``, ``latency_ms`` and, of a training, ``train_seconds`` and
            ``best_epoch``.
        metrics: ``val/hr_at_10``, ``test/ndcg_at_10`` and the like; see `evaluation.part_metrics`.
    """

    model: Recommender
    shape: StudentShape
    progress: Progress | None
    validation: Ranked
    test: Ranked
    measured: Metrics = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)


def measure(
    model: Recommender,
    shape: StudentShape,
    data: SequenceData,
    device: torch.device,
    *,
    exclude_seen: bool,
    keep: int = KEPT,
    progress: Progress | None = None,
    measured: Metrics | None = None,
) -> Fitted:
    """Measure a finished recommender, on test once.

    Args:
        model: on its device.
        shape: its shape.
        data: what it is measured on.
        device: of the model.
        exclude_seen: leave the items of a history out of its ranking.
        keep: recommended items kept of each test sample.
        progress: of its training.
        measured: what else was measured.
    """
    test = ranked(model, data.test, exclude_seen, device, keep, among=data.new_test)
    started = time.perf_counter()
    validation = ranked(model, data.validation, exclude_seen, device, keep=0, among=data.new_validation)
    per_thousand = (time.perf_counter() - started) * 1e6 / len(data.validation)
    speed = {"ms_per_1000_recommendations": per_thousand, "latency_ms": latency_of(model, data.test, device)}
    metrics = part_metrics("val", validation, data, exclude_seen=exclude_seen)
    metrics |= part_metrics("test", test, data, exclude_seen=exclude_seen)
    return Fitted(model, shape, progress, validation, test, dict(measured or {}) | speed, metrics)


def metrics_of(part: str, ranks: Tensor) -> Metrics:
    """``part/hr_at_10`` and the like."""
    return {f"{part}/{name}": value for name, value in metrics_from_ranks(ranks).items()}


def scorer(model: Recommender, device: torch.device) -> ScoreFunction:
    """Scores [S, V] of windows, one sample a window and in their order, for `evaluation.evaluate`."""

    def score(history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return model.scores(history.to(device), length.to(device))

    return score


def ranked(
    model: Recommender,
    samples: Samples,
    exclude_seen: bool,
    device: torch.device,
    keep: int,
    among: Int64Array | None = None,
) -> Ranked:
    """Rank of each sample's target among the whole catalogue and ``among`` items, and the ``keep`` best items."""
    model.eval()
    return rank_samples(
        scorer(model, device),
        samples,
        num_items=model.num_items,
        max_length=model.max_length,
        keep=keep,
        places=None if isinstance(model, ClosedForm) else places_at_once(device),
        exclude_seen=exclude_seen,
        among=among,
    )


def ranks_of(
    model: Recommender, samples: Samples, exclude_seen: bool, device: torch.device, processes: Processes = ALONE
) -> Tensor:
    """Rank of each sample's target among the whole catalogue, int64 [N]; processes rank a part of the samples each."""
    if processes.count == 1:
        return ranked(model, samples, exclude_seen, device, keep=0).ranks
    own = samples.subset(np.arange(processes.index, len(samples), processes.count))
    parts = processes.gathered(ranked(model, own, exclude_seen, device, keep=0).ranks)
    ranks = torch.empty(len(samples), dtype=torch.int64)
    for index, part in enumerate(parts):
        ranks[index :: processes.count] = part
    return ranks


@torch.no_grad()
def latency_of(model: Recommender, samples: Samples, device: torch.device) -> float:
    """Median milliseconds of an answer to one history alone: scores of the catalogue, and the ten best of them."""
    model.eval()
    seconds = []
    for index in np.linspace(0, len(samples) - 1, LATENCY_HISTORIES).astype(np.int64):
        windows = samples.windows_of([index], model.max_length, model.num_items)
        history, length = (torch.from_numpy(part) for part in windows)
        started = time.perf_counter()
        scores = model.scores(history[:, : int(length)].to(device), length.to(device))
        # Copying the answer waits for the device.
        scores.topk(min(10, model.num_items)).indices.cpu()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)
