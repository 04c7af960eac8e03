"""Names of metrics over the samples of some users, which are no metrics over all samples.

``test/ndcg_at_10`` is then ``test/some_users/ndcg_at_10``: neither stands for the other in a table of runs.
"""

import re
from collections.abc import Mapping

SOME_USERS = "some_users"
PART = re.compile("^(val|test)/")


def apart(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of ``val`` and ``test`` by their names over the samples of some users; others as they are.

    >>> apart({"test/new/mrr": 0.5, "seconds": 2.0})
    {'test/some_users/new/mrr': 0.5, 'seconds': 2.0}
    """
    return {PART.sub(rf"\1/{SOME_USERS}/", name): value for name, value in metrics.items()}


def over_all(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of `apart`, by the names that they have over all samples; no others.

    >>> over_all({"test/some_users/new/mrr": 0.5, "seconds": 2.0})
    {'test/new/mrr': 0.5}
    """
    return {name.replace(f"/{SOME_USERS}/", "/"): value for name, value in metrics.items() if f"/{SOME_USERS}/" in name}
