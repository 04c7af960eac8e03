"""Every registered metric of ranks: its names, and its means over samples."""

from collections.abc import Iterator

from torch import Tensor

from recdistill.errors import InputError
from recdistill.registry import METRICS


def gains(name: str, ranks: Tensor, k: int | None = None) -> Tensor:
    """Gain of each sample by a metric, float64 [N].

    Args:
        name: of the metric, as ``ndcg``.
        ranks: int64 [N], 1 the best.
        k: cut-off; None for a metric without one.

    Raises:
        InputError: the metric is unknown, or gives not one finite number a sample.
    """
    metric = METRICS.get(name)
    found: Tensor = metric(ranks) if k is None else metric(ranks, k)
    if found.shape != ranks.shape or not bool(found.isfinite().all()):
        raise InputError(
            f"metric {name!r}: gives {list(found.shape)} for ranks {list(ranks.shape)}; give a number each"
        )
    return found.double()


def metric_names() -> list[str]:
    """``hr_at_1``, ``ndcg_at_10``, ``mrr`` and so on, without importing the metrics."""
    return [name if k is None else f"{name}_at_{k}" for name, k in listed()]


def listed() -> Iterator[tuple[str, int | None]]:
    """Each metric with each of its cut-offs; None for a metric without."""
    # Metrics of lists read no ranks.
    for name in METRICS.names(of=None):
        cut_offs = METRICS.declaration(name).about.get("cut_offs", ())
        yield from ((name, k) for k in cut_offs or (None,))


def metrics_from_ranks(ranks: Tensor) -> dict[str, float]:
    """``{'hr_at_1': ..., 'ndcg_at_1': ..., ..., 'mrr': ...}``: the means of the gains.

    Args:
        ranks: int64 [N], N >= 1, each at least 1.

    Raises ValueError where there is no rank, or one below 1.
    """
    if not len(ranks):
        raise ValueError("no ranks: a mean over no sample is undefined")
    if ranks.min() < 1:
        raise ValueError(f"rank {ranks.min().item()}: ranks start at 1")
    return {name if k is None else f"{name}_at_{k}": gains(name, ranks, k).mean().item() for name, k in listed()}
