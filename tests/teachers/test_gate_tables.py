"""The gate's weights of users and of clusters of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_teachers import small, small_backbone, tiny_teacher

from recdistill.teachers.gate_tables import CLUSTERS, gate_tables, last_histories

EXPERTS = [f"expert_{expert}" for expert in range(4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(data):
    return tiny_teacher(data, small_backbone(data))


def test_weights_are_the_gate_at_each_users_last_state(data, teacher):
    users, _ = gate_tables(teacher)
    users = users.set_index("user")
    assert sorted(users.index) == sorted(data.user_ids)
    assert list(users.columns) == ["cluster", *EXPERTS]
    np.testing.assert_allclose(users[EXPERTS].sum(axis=1), 1, atol=1e-5)
    for sample, user in enumerate(data.test.user.tolist()):
        history, length = data.test.windows_of([sample], teacher.window, data.padding_id)
        parts = (torch.from_numpy(history), torch.from_numpy(length), torch.zeros(1).long(), torch.tensor(length - 1))
        with torch.no_grad():
            weights = teacher.model.gate(teacher.backbone(*parts))[0]
        np.testing.assert_allclose(users.loc[data.user_ids[user], EXPERTS].astype(float), weights, atol=1e-5)
    assert users[EXPERTS].std().max() > 0


def test_clusters_are_means_of_their_users(data, teacher):
    users, clusters = gate_tables(teacher)
    assert list(clusters.columns) == ["cluster", "users", *EXPERTS, "titles"]
    assert clusters["cluster"].tolist() == list(range(len(clusters)))
    assert 1 < len(clusters) <= CLUSTERS
    assert clusters["users"].tolist() == sorted(users.groupby("cluster").size(), reverse=True)
    np.testing.assert_allclose(clusters[EXPERTS], users.groupby("cluster")[EXPERTS].mean(), atol=1e-6)
    for row in clusters["titles"]:
        assert set(row.split("; ")) <= set(data.titles)


def test_a_gate_for_each_layer_is_reported_as_their_mean(data):
    teacher = tiny_teacher(data, small_backbone(data), gate_per_layer=True)
    users, _ = gate_tables(teacher)
    gates = teacher.model.gate.gates
    assert len(gates) == 2
    _, history, length = last_histories(data, teacher.window)
    with torch.no_grad():
        states = teacher.backbone(history, length, torch.arange(len(history)), length - 1)
        expected = torch.stack([gate(states) for gate in gates]).mean(dim=0)
    np.testing.assert_allclose(users[EXPERTS], expected, atol=1e-5)


def test_a_teacher_without_a_gate_has_no_tables(data):
    assert gate_tables(SimpleNamespace(data=data, backbone=small_backbone(data), gate_weights=lambda _: None)) is None


@pytest.mark.parametrize("split", ["leave-one-out", "chronological"])
def test_every_user_has_one_history_the_longest(tmp_path, split):
    data = small(tmp_path, split=split)
    user, history, length = last_histories(data, 30)
    assert sorted(user.tolist()) == sorted({*data.train.user, *data.validation.user, *data.test.user})
    for place, one in enumerate(user.tolist()):
        parts = (data.train, data.validation, data.test)
        ends = [
            (part.items[part.start[i] : part.end[i]].tolist())
            for part in parts
            for i in np.flatnonzero(part.user == one)
        ]
        longest = max(ends, key=len)
        assert history[place, : length[place]].tolist() == longest[-30:]
        assert bool((history[place, length[place] :] == data.padding_id).all())
