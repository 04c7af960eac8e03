"""Students and teachers as logged models, their metrics linked to them and to the data they were measured on."""

import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus
from mlflow.tracking import MlflowClient
from mlflow_server import mlflow_server
from small_data import write_csv

from recdistill.config import BaselineConfig, DataConfig
from recdistill.data.load import load_data
from recdistill.runs import logged_models, writes
from recdistill.runs.datasets import measured_on
from recdistill.runs.finished_runs import find_finished
from recdistill.runs.logged_models import ID, MARK, log_teacher, model_id_of_run, model_name, new_mark
from recdistill.runs.outbox import outbox, post
from recdistill.runs.run import KEY, StepRun
from recdistill.runs.step_runs import step_run
from recdistill.runs.writes import Write, batch, perform

SETS = {"val": ("films val", "d" * 32), "test": ("films test", "d" * 32)}


def run_of(client: MlflowClient, experiment: str = "0", *, name: str | None = None, **params: float) -> StepRun:
    run_id = client.create_run(experiment, run_name=name).info.run_id
    for name, value in params.items():
        client.log_param(run_id, name, value)
    return StepRun(run_id, "", "", reused=False)


def modelled(run: StepRun, **metrics: float) -> str:
    """A run's teacher, with metrics of test; its mark."""
    mark = new_mark()
    log_teacher(run.run_id, mark)
    run.log_metrics({f"test/{name}": value for name, value in metrics.items()}, model=mark, datasets=SETS)
    return mark


def best_of(client: MlflowClient, data: str, experiment: str = "0", digest: str = "d" * 32) -> list[str]:
    """Runs of the models measured on a data set, the best first.

    A server of MLflow 3.17 takes a digest that is left out for one that must be absent, and finds nothing.
    """
    order = {"field_name": "metrics.test/ndcg_at_20", "ascending": False, "dataset_name": data}
    measured = {"dataset_name": data, "dataset_digest": digest}
    found = client.search_logged_models([experiment], datasets=[measured], order_by=[order])
    return [one.source_run_id for one in found]


def test_a_model_has_the_parameters_of_its_run_and_its_metrics_name_the_data(client: MlflowClient) -> None:
    run = run_of(client, name="teacher qwen2.5-0.5b · 80k tokens", lam=0.5)
    modelled(run, ndcg_at_20=0.25)
    (output,) = client.get_run(run.run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    # That of its run, but for what MLflow refuses.
    assert model.name == "teacher qwen2_5-0_5b · 80k tokens"
    assert (model.model_type, model.status) == ("teacher", LoggedModelStatus.READY)
    assert model.params == {"lam": "0.5"}
    assert {(one.key, one.value, one.dataset_name, one.dataset_digest) for one in model.metrics} == {
        ("test/ndcg_at_20", 0.25, "films test", "d" * 32)
    }
    assert client.get_run(run.run_id).data.metrics == {"test/ndcg_at_20": 0.25}


def test_the_best_of_a_data_set_is_found(client: MlflowClient) -> None:
    place = client.create_experiment("best of a data set")
    runs = [run_of(client, place) for _ in range(3)]
    for run, value in zip(runs, (0.1, 0.3, 0.2), strict=True):
        modelled(run, ndcg_at_20=value)
    other = run_of(client, place)
    mark = new_mark()
    log_teacher(other.run_id, mark)
    other.log_metrics({"test/ndcg_at_20": 0.9}, model=mark, datasets={"test": ("books test", "e" * 32)})
    assert best_of(client, "films test", place) == [runs[1].run_id, runs[2].run_id, runs[0].run_id]
    assert best_of(client, "books test", place, "e" * 32) == [other.run_id]


def test_what_mlflow_refuses_in_a_name_is_in_no_models_name(client: MlflowClient) -> None:
    run = run_of(client, name="""a/b:c.d%e"f'g""")
    assert model_name(client.get_run(run.run_id)) == "a_b_c_d_e_f_g"
    modelled(run, mrr=0.5)
    assert model_id_of_run(run.run_id).startswith(ID)
    assert model_id_of_run(run_of(client).run_id) == ""


def test_metrics_of_a_later_run_are_those_of_the_model_too(client: MlflowClient) -> None:
    run, later = run_of(client), run_of(client)
    modelled(run, mrr=0.5)
    later.log_metrics({"test/mrr": 0.5, "test/ndcg_at_20": 0.25}, model=model_id_of_run(run.run_id), datasets=SETS)
    model = client.get_logged_model(model_id_of_run(run.run_id))
    assert {(one.key, one.run_id, one.dataset_name) for one in model.metrics} == {
        ("test/mrr", run.run_id, "films test"),
        ("test/mrr", later.run_id, "films test"),
        ("test/ndcg_at_20", later.run_id, "films test"),
    }


def test_a_write_that_is_repeated_makes_no_second_model(client: MlflowClient, tmp_path: Path) -> None:
    run = run_of(client)
    values = {"type": "teacher", "mark": new_mark()}
    for _ in range(2):
        perform(Write("external_model", run.run_id, values), tmp_path)
    assert len(client.search_logged_models(["0"], filter_string=f"source_run_id = '{run.run_id}'")) == 1
    assert len(client.get_run(run.run_id).outputs.model_outputs) == 1


def test_metrics_that_waited_are_linked_by_whoever_sends_them(client: MlflowClient, tmp_path, monkeypatch) -> None:
    run, mark = run_of(client), new_mark()
    waiting = [
        Write("external_model", run.run_id, {"type": "teacher", "mark": mark}),
        batch(run.run_id, metrics=[("test/mrr", 0.5, 1, 0), ("latency_ms", 2.0, 1, 0)], model=mark, datasets=SETS),
    ]
    texts = [write.text() for write in waiting]
    perform(Write.of(texts[0]), tmp_path)
    # Another process has no memory of the model.
    monkeypatch.setattr(logged_models, "_ids", {})
    perform(Write.of(texts[1]), tmp_path)
    (model,) = client.search_logged_models(["0"], filter_string=f"source_run_id = '{run.run_id}'")
    assert model.tags[MARK] == mark
    assert {(one.key, one.dataset_name) for one in model.metrics} == {("test/mrr", "films test"), ("latency_ms", None)}


def test_a_lost_store_keeps_model_and_metrics(client: MlflowClient, monkeypatch) -> None:
    run = run_of(client)
    working = writes.KINDS["external_model"]

    def silent(*given: object) -> None:
        raise ConnectionError("connection refused")

    monkeypatch.setitem(writes.KINDS, "external_model", silent)
    modelled(run, ndcg_at_20=0.25)
    assert outbox().waits_for(run.run_id)
    monkeypatch.setitem(writes.KINDS, "external_model", working)
    assert outbox().drain(60)
    (model,) = client.search_logged_models(["0"], filter_string=f"source_run_id = '{run.run_id}'")
    assert [(one.key, one.value) for one in model.metrics] == [("test/ndcg_at_20", 0.25)]


def test_metrics_of_a_model_that_the_store_lacks_are_those_of_the_run(client: MlflowClient) -> None:
    run = run_of(client)
    post(batch(run.run_id, metrics=[("test/mrr", 0.5, 1, 0)], model="a mark of nobody", datasets=SETS))
    assert client.get_run(run.run_id).data.metrics == {"test/mrr": 0.5}


def test_data_sets_of_parts_are_inputs_under_the_names_that_metrics_carry(client: MlflowClient, tmp_path) -> None:
    data = load_data(DataConfig(**write_csv(tmp_path)))
    with step_run("backbone", BaselineConfig(), data=data) as run:
        pass
    inputs = {(one.dataset.name, one.dataset.digest) for one in client.get_run(run.run_id).inputs.dataset_inputs}
    assert inputs == set(measured_on(data).values())


@pytest.mark.slow
def test_three_hundred_runs_in_an_experiment_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path / "cache"))
    with mlflow_server(tmp_path / "server") as server:
        mlflow.set_tracking_uri(server.uri)
        try:
            client = MlflowClient()
            place = client.create_experiment("many")
            runs = [run_of(client, place) for _ in range(310)]
            for number, run in enumerate(runs):
                modelled(run, ndcg_at_20=number / 1000)
            for run in (runs[7], runs[-1]):
                client.set_tag(run.run_id, KEY, "a key")
                client.log_text(run.run_id, "kept", "note.txt")
                client.set_terminated(run.run_id)
            began = time.perf_counter()
            assert find_finished("a key") is not None
            assert best_of(client, "films test", place)[:2] == [runs[-1].run_id, runs[-2].run_id]
            assert time.perf_counter() - began < 20
        finally:
            mlflow.set_tracking_uri(before)
