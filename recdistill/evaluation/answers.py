"""Metrics of a generative recommender's answers: ValidRatio and HitRatio@1 of iLoRA (NeurIPS 2024), as released.

An answer is *valid* when exactly one candidate title occurs in its first line. HitRatio@1 is over the valid answers
alone; its product with ValidRatio, by which the release selects models, is the share of all sequences answered right.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from recdistill.evaluation.intervals import share_interval

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


def answer_metrics(named: ArrayLike, target: ArrayLike, user: ArrayLike) -> dict[str, float]:
    """ValidRatio, HitRatio@1 and their product, each with the bounds of its interval as ``_low`` and ``_high``.

    Args:
        named: int64 [N], N >= 1, the candidate that each answer names, -1 where it is not valid.
        target: int64 [N], the right candidate's position.
        user: N labels, whose sequence each is: those of one user go together in the intervals.

    Returns ``valid_ratio``, ``hit_ratio_at_1`` (over the valid answers; 0 where none is), their product
    ``valid_ratio_times_hit_ratio_at_1`` and ``hit_ratio_at_1_of_all`` (over all sequences: the same number, by
    counting), each in [0, 1].

    Raises ValueError where there is no answer.
    """
    named, target, user = np.asarray(named), np.asarray(target), np.asarray(user)
    if not len(named):
        raise ValueError("no answers: a share of none is undefined")
    valid = named != NONE
    correct = (named == target) & valid
    shares = {"valid_ratio": (valid, user), "hit_ratio_at_1": (correct[valid], user[valid])}
    # valid / total · correct / valid.
    shares |= dict.fromkeys(("valid_ratio_times_hit_ratio_at_1", "hit_ratio_at_1_of_all"), (correct, user))
    return {name: value for share, hits in shares.items() for name, value in share_metrics(share, *hits).items()}


def share_metrics(name: str, hits: ArrayLike, user: ArrayLike) -> dict[str, float]:
    """The share of hits under ``name``, its 95 % interval (`share_interval`) under ``name_low`` and ``name_high``.

    Args:
        name: of the share.
        hits: N truth values; the share of none is 0, of which nothing is known.
        user: N labels, whose each is.
    """
    share, low, high = share_interval(hits, user) if np.size(hits) else (0.0, 0.0, 1.0)
    return {name: share, f"{name}_low": low, f"{name}_high": high}
