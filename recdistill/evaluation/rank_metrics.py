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
        InputError: the metric is unknown, raises, or gives not one number from 0 to 1 a sample.
    """
    metric = METRICS.get(name)
    # A copy: others read the same ranks.
    given = ranks if METRICS.is_ours(name) else ranks.clone()
    with METRICS.calling(name):
        found = metric(given) if k is None else metric(given, k)
    if not isinstance(found, Tensor) or found.shape != ranks.shape:
        said = list(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise InputError(f"metric {name!r}: gives {said} for ranks {list(ranks.shape)}; give a tensor, a number each")
    if not bool(((found >= 0) & (found <= 1)).all()):
        # NaN is neither.
        low, high = found.double().min().item(), found.double().max().item()
        raise InputError(f"metric {name!r}: gives gains from {low:g} to {high:g}; bring them into [0, 1]")
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
