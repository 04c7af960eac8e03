import re
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from synthetic_runs import Samples, add_run
from workplace import new_store

from recdistill.config import CompareConfig
from recdistill.errors import InputError
from recdistill.runs.step_runs import entry_run
from recdistill.steps.compare import compare

SAMPLES = Samples(users=200)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.setenv("RECDISTILL_CACHE", str(folder / "cache"))
    patch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(new_store(folder))
    yield MlflowClient()
    mlflow.set_tracking_uri(before)
    patch.undo()


@pytest.fixture(scope="module")
def runs(client):
    """A distilled student, its twin, and a twin of another seed."""
    twin, other = (add_run(client, SAMPLES, "backbone", SAMPLES.ranks(seed), seed=seed) for seed in (1, 2))
    distilled = add_run(
        client, SAMPLES, "distill", SAMPLES.ranks(3, gain=1.0), tags={"recdistill.twin_run_id": twin}, lam=0.7
    )
    return {"distilled": distilled, "twin": twin, "other": other}


def compared(**options):
    with entry_run("compare"):
        entry = mlflow.active_run().info.run_id
        return entry, compare(CompareConfig(resamples=500, **options))


def test_a_name_that_a_person_has_given_since_is_in_the_page(client, runs):
    _, before = compared(runs=f"{runs['twin']},{runs['other']}")
    _, found = compared(runs=f"{runs['twin']},{runs['other']}")
    assert found.run_id == before.run_id
    tags = client.get_run(runs["twin"]).data.tags
    client.set_tag(runs["twin"], "recdistill.name", "sasrec")
    client.set_tag(runs["twin"], "mlflow.runName", "our SASRec")
    _, named = compared(runs=f"{runs['twin']},{runs['other']}")
    assert named.run_id != before.run_id
    assert "our SASRec" in named.artifact("comparison/comparison.html").read_text()
    client.set_tag(runs["twin"], "mlflow.runName", tags["mlflow.runName"])
    client.delete_tag(runs["twin"], "recdistill.name")


def test_the_report_is_in_a_run_linked_to_those_it_compares(client, runs, capsys):
    entry, run = compared(runs=runs["distilled"])
    assert run.run_id == entry
    printed = capsys.readouterr().out
    assert re.search(r"distill.* \(1 seed\) .*NDCG@10 .*better", printed)
    assert "which is not luck" in printed
    tags = client.get_run(entry).data.tags
    assert set(tags["recdistill.compared_run_ids"].split()) == {runs["distilled"], runs["twin"]}
    assert tags["recdistill.fingerprint"] == "f" * 64
    assert "not luck" in tags["mlflow.note.content"]
    table = pd.read_csv(run.artifact("comparison/comparison.csv"))
    page = run.artifact("comparison/comparison.html").read_text()
    gain = table[(table["metric"] == "NDCG@10") & (table["subgroup"] == "all")]["difference"].dropna().item()
    assert f"{gain:+.4f}" in page
    assert f"{gain:+.4f}" in run.artifact("comparison/comparison.md").read_text()
    assert client.get_run(entry).data.metrics["compare/gain"] == gain
    assert str(run.artifact("comparison").name) == "comparison"


def test_the_page_that_is_named_exists(runs, capsys):
    compared(runs=runs["distilled"])
    named = re.search(r"the page: (.+)", capsys.readouterr().out)[1]
    assert Path(named).read_text().startswith("<!doctype html>")


def test_the_same_question_is_answered_from_the_run_before(runs, capsys):
    first = compared(runs=runs["distilled"])[1]
    again = compared(filter=f"attributes.run_id = '{runs['distilled']}'")[1]
    assert (again.run_id, again.reused) == (first.run_id, True)
    printed = capsys.readouterr().out
    assert printed.count("which is not luck") == 2
    assert compared(runs=runs["distilled"], metric="val/hr_at_20")[1].run_id != first.run_id


def test_two_seeds_of_one_configuration_are_no_different(runs, capsys):
    compared(runs=f"{runs['twin']}, {runs['other']}")
    printed = capsys.readouterr().out
    assert "backbone seed=2" in printed
    assert "unclear" in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runs": "{twin}"}, "stands alone"),
        ({"runs": "{twin}", "filter": "params.lam = '0.7'"}, "give one of them"),
        ({"runs": "{twin},{other}", "metric": "test/auc"}, "must be like test/ndcg_at_10"),
        ({"runs": "{twin},{other}", "baseline": "nonsense"}, "baseline=nonsense: no such run"),
    ],
)
def test_bad_options_are_one_line_and_the_reason_of_the_failed_run(client, runs, options, said):
    filled = {name: text.format(**runs) for name, text in options.items()}
    with pytest.raises(InputError, match=said) as caught:
        compared(**filled)
    assert "\n" not in str(caught.value)
    newest = client.search_runs(["0"], order_by=["start_time DESC"], max_results=1)[0]
    assert (newest.info.status, newest.data.tags["recdistill.failure"]) == ("FAILED", str(caught.value))
