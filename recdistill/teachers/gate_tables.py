"""The gate's mixing weights of users, and their means by cluster of users."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recdistill.data.samples import Int64Array
from recdistill.data.sequences import SequenceData
from recdistill.evaluation.clusters import k_means, typical_items
from recdistill.students.student import Student
from recdistill.teachers.protocol import Teacher

CLUSTERS = 8
TYPICAL_TITLES = 5
USERS_AT_ONCE = 512


@torch.no_grad()
def gate_tables(teacher: Teacher, data: SequenceData | None = None) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The gate at each user's last state, and by cluster of these states; None for a teacher without a gate.

    Where each transformer layer has a gate of its own, weights are means over the layers. ``data`` has the users'
    histories where the teacher knows a part of these.

    Returns:
        A row a user: ``user`` (as the source writes it), ``cluster``, ``expert_0`` …; and a row a cluster, the largest
        first: ``cluster``, ``users``, means ``expert_0`` …, ``titles`` that stand out in it, separated by semicolons.
    """
    data = teacher.data if data is None else data
    user, history, length = last_histories(data, teacher.backbone.max_length)
    states = states_of(teacher.backbone, history, length)
    weights = teacher.gate_weights(states)
    if weights is None:
        return None
    weights = weights.float().cpu()
    weights = weights.reshape(len(weights), -1, weights.shape[-1]).mean(dim=1)
    cluster = k_means(states, CLUSTERS)
    names = [f"expert_{expert}" for expert in range(weights.shape[1])]
    users = pd.DataFrame({"user": np.asarray(data.user_ids, dtype=object)[user], "cluster": cluster.numpy()})
    users = pd.concat([users, pd.DataFrame(weights.numpy(), columns=names)], axis=1)
    clusters = users.groupby("cluster").agg(users=("user", "size"), **{name: (name, "mean") for name in names})
    typical = typical_items(cluster, history, data.num_items, TYPICAL_TITLES)
    clusters["titles"] = ["; ".join(data.titles[item] for item in items) for items in typical]
    return users, clusters.reset_index()


def last_histories(data: SequenceData, length: int) -> tuple[Int64Array, Tensor, Tensor]:
    """The longest history of every user: indices [U] of users, item ids [U, length], real lengths [U]."""
    users, histories, lengths = [], [], []
    known = np.zeros(len(data.user_ids), dtype=bool)
    # A user's test history holds the earlier ones, where there is one.
    for samples in (data.test, data.validation, data.train):
        latest_first = np.lexsort((samples.end, samples.user))[::-1]
        user, first = np.unique(samples.user[latest_first], return_index=True)
        chosen = latest_first[first][~known[user]]
        known[user] = True
        history, real = samples.windows_of(chosen, length, data.padding_id)
        users.append(samples.user[chosen])
        histories.append(torch.from_numpy(history))
        lengths.append(torch.from_numpy(real))
    return np.concatenate(users), torch.cat(histories), torch.cat(lengths)


def states_of(backbone: Student, history: Tensor, length: Tensor) -> Tensor:
    """The backbone's states [U, D] after whole histories [U, L], on its device."""
    device = next(backbone.parameters()).device
    found = []
    for rows, real in zip(history.split(USERS_AT_ONCE), length.split(USERS_AT_ONCE), strict=True):
        parts = (rows, real, torch.arange(len(rows)), real - 1)
        found.append(backbone(*(part.to(device) for part in parts)))
    return torch.cat(found)
