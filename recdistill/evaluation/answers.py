"""Metrics of a generative recommender's answers: ValidRatio and HitRatio@1 of iLoRA (NeurIPS 2024), as released.

An answer is *valid* when exactly one candidate title occurs in its first line. HitRatio@1 is over the valid answers
alone; its product with ValidRatio, by which the release selects models, is the share of all sequences answered right.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from recdistill.evaluation.intervals import wilson_interval

NONE = -1


def candidate_named(answer: str, candidates: Sequence[str]) -> int:
    """Position of the one candidate title that occurs in the answer's first line, case folded; -1 for none or several.

    Where one title is part of another, an answer with the longer one names two, as in the release.

    >>> candidate_named("I recommend Low.", ["Air", "Low"])
    1
    """
    line = answer.strip().partition("\n")[0].casefold()
    found = [place for place, title in enumerate(candidates) if title.strip().casefold() in line]
    return found[0] if len(found) == 1 else NONE


def answer_metrics(named: ArrayLike, target: ArrayLike) -> dict[str, float]:
    """ValidRatio, HitRatio@1 and their product, each with the bounds of its interval as ``_low`` and ``_high``.

    Args:
        named: int64 [N], N >= 1, the candidate that each answer names, -1 where it is not valid.
        target: int64 [N], the right candidate's position.

    Returns ``valid_ratio``, ``hit_ratio_at_1`` (over the valid answers; 0 where none is), their product
    ``valid_ratio_times_hit_ratio_at_1`` and ``hit_ratio_at_1_of_all`` (over all sequences: the same number, by
    counting), each in [0, 1].

    Raises ValueError where there is no answer.
    """
    named, target = np.asarray(named), np.asarray(target)
    total = len(named)
    if not total:
        raise ValueError("no answers: a share of none is undefined")
    valid = int((named != NONE).sum())
    correct = int(((named == target) & (named != NONE)).sum())
    shares = {"valid_ratio": (valid, total), "hit_ratio_at_1": (correct, valid)}
    # valid / total · correct / valid.
    shares |= dict.fromkeys(("valid_ratio_times_hit_ratio_at_1", "hit_ratio_at_1_of_all"), (correct, total))
    return {name: value for share, counts in shares.items() for name, value in share_metrics(share, *counts).items()}


def share_metrics(name: str, hits: int, trials: int) -> dict[str, float]:
    """A share under ``name`` and its 95 % interval (Wilson, 1927) under ``name_low`` and ``name_high``."""
    if not trials:
        return {name: 0.0, f"{name}_low": 0.0, f"{name}_high": 1.0}
    low, high = wilson_interval(hits / trials, trials)
    return {name: hits / trials, f"{name}_low": low, f"{name}_high": high}
