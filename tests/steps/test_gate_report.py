"""What a teacher's run keeps of its gate."""

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from recdistill.config import TeacherConfig
from recdistill.steps.gate_report import CLUSTERS, gate_tables, last_histories
from recdistill.steps.inputs import data_of, frozen_student
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.steps.teacher import find_backbone, scorer_of, tables_of, teacher
from recdistill.teachers.ranking.model import load_ranking_model
from recdistill.runs.step_runs import finished_run


def config_of(taught, **changes):
    return TeacherConfig(**{name: str(v) if name == "llm" else v for name, v in (taught.options | changes).items()})


def scorer_over(run, config):
    data = data_of(config)
    student = frozen_student(find_backbone(config, data), torch.device("cpu"))
    llm = load_llm(config.llm, torch.device("cpu"))
    model = load_ranking_model(run.artifact("teacher"), llm, data.titles, tables_of(student))
    return scorer_of(config, model, student, data)


def test_weights_are_the_gate_at_each_users_last_state(taught):
    run, config = finished_run(taught.run_id, "teacher"), config_of(taught)
    scorer, data = scorer_over(run, config), data_of(config)
    users = pd.read_parquet(run.artifact("gate/weights.parquet")).set_index("user")
    assert sorted(users.index) == sorted(data.user_ids)
    experts = [f"expert_{expert}" for expert in range(config.experts)]
    assert list(users.columns) == ["cluster", *experts]
    np.testing.assert_allclose(users[experts].sum(axis=1), 1, atol=1e-5)
    for sample, user in enumerate(data.test.user.tolist()):
        history, length = data.test.windows_of([sample], scorer.window, data.padding_id)
        parts = (torch.from_numpy(history), torch.from_numpy(length), torch.zeros(1).long(), torch.tensor(length - 1))
        with torch.no_grad():
            weights = scorer.teacher.gate(scorer.backbone(*parts))[0]
        np.testing.assert_allclose(users.loc[data.user_ids[user], experts].astype(float), weights, atol=1e-5)


def test_clusters_are_means_of_their_users(taught):
    run, config = finished_run(taught.run_id, "teacher"), config_of(taught)
    users = pd.read_parquet(run.artifact("gate/weights.parquet"))
    clusters = pd.read_csv(run.artifact("gate/weights.csv"), keep_default_na=False)
    experts = [f"expert_{expert}" for expert in range(config.experts)]
    assert list(clusters.columns) == ["cluster", "users", *experts, "titles"]
    assert clusters["cluster"].tolist() == list(range(len(clusters)))
    assert 1 < len(clusters) <= CLUSTERS
    assert clusters["users"].tolist() == sorted(users.groupby("cluster").size(), reverse=True)
    np.testing.assert_allclose(clusters[experts], users.groupby("cluster")[experts].mean(), atol=1e-6)
    titles = set(data_of(config).titles)
    for row in clusters["titles"]:
        assert set(row.split("; ")) <= titles
    assert run.artifact("figures/gate_weights.png").read_bytes()[:4] == b"\x89PNG"


def test_the_curve_of_the_gate_is_logged(taught):
    client, experts = MlflowClient(), TeacherConfig().experts
    curves = [
        [point.value for point in client.get_metric_history(taught.run_id, name)]
        for name in ("train/gate_entropy", *(f"train/expert_usage_{expert}" for expert in range(experts)))
    ]
    assert len(curves[0]) == len(client.get_metric_history(taught.run_id, "train/total")) > 1
    assert all(0 < entropy <= np.log(experts) + 1e-6 for entropy in curves[0])
    np.testing.assert_allclose(np.sum(curves[1:], axis=0), 1, atol=1e-5)


def test_a_gate_for_each_layer_is_reported_as_their_mean(taught):
    config = config_of(taught, gate_per_layer=True, token_budget=600, outputs_token_budget=300)
    run = teacher(config)
    scorer = scorer_over(run, config)
    assert len(scorer.teacher.gate.gates) == 2
    users, _ = gate_tables(scorer)
    kept = pd.read_parquet(run.artifact("gate/weights.parquet"))
    pd.testing.assert_frame_equal(kept, users, check_dtype=False, atol=1e-5)
    np.testing.assert_allclose(users.filter(like="expert_").sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("split", ["leave-one-out", "chronological"])
def test_every_user_has_one_history_the_longest(taught, split):
    data = data_of(config_of(taught, split=split))
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
