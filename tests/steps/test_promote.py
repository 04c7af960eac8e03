"""The alias ``champion``: moved where a paired test allows it, or by override."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from synthetic_runs import Samples, add_run
from workplace import new_store

from recdistill.config import CompareConfig, MainConfig, PromoteConfig, WorthConfig
from recdistill.errors import InputError
from recdistill.runs.champion import CHAMPION, champion_of
from recdistill.runs.step_runs import entry_run
from recdistill.steps import compare as compare_module
from recdistill.steps.promote import promote

SAMPLES = Samples(users=200)


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(new_store(tmp_path))
    yield MlflowClient()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def registered(client):
    """Three versions: undistilled, much better, and like the first; the last two with other seeds."""
    client.create_registered_model("films")
    found = []
    for number, (gain, val) in enumerate(((0.0, 0.10), (1.0, 0.14), (0.0, 0.11)), start=1):
        run = add_run(client, SAMPLES, "distill", SAMPLES.ranks(number, gain=gain), lam=float(number))
        client.log_metric(run, "val/ndcg_at_20", val)
        client.create_model_version("films", source=f"runs:/{run}/model", run_id=run)
        found.append(run)
    return found


def promoted(**options):
    with entry_run("promote"):
        return promote(PromoteConfig(name="films", resamples=500, **options))


def test_the_first_champion_is_the_best_on_validation(registered, capsys):
    promoted()
    assert champion_of("films").number == "2"
    assert "the first one" in capsys.readouterr().out


def test_a_better_one_replaces_it_and_a_worse_one_does_not(client, registered, capsys):
    promoted(version="1")
    run = promoted(version="2")
    assert champion_of("films").number == "2"
    assert client.get_model_version("films", "2").tags["recdistill.replaced"] == "1"
    assert client.get_run(run.run_id).data.metrics["promote/moved"] == 1
    run = promoted()
    assert champion_of("films").number == "2"
    said = capsys.readouterr().out
    assert "models:/films/2 stays the champion of films: the interval must lie above" in said
    assert client.get_run(run.run_id).data.metrics["promote/difference"] < 0


def test_versions_of_other_data_are_not_chosen(client, registered):
    promoted(version="1")
    other = add_run(client, SAMPLES, "distill", SAMPLES.ranks(4), fingerprint="e" * 64)
    client.log_metric(other, "val/ndcg_at_20", 0.9)
    client.create_model_version("films", source=f"runs:/{other}/model", run_id=other)
    promoted()
    assert champion_of("films").number == "2"
    client.set_registered_model_alias("films", CHAMPION, "4")
    said = r"^version=: no other version of films is of the data of its champion, models:/films/4; give a version"
    with pytest.raises(InputError, match=said):
        promoted()


def test_each_promotion_is_a_run_of_its_own(client, registered):
    """Also back to a version that was the champion before, by the same command."""
    first, _, again = (promoted(version=version, override=True) for version in ("3", "2", "3"))
    assert first.run_id != again.run_id
    assert champion_of("films").number == "3"
    assert "replaces" not in client.get_run(first.run_id).data.tags["mlflow.note.content"]
    for run in (first, again):
        assert client.get_run(run.run_id).data.metrics["promote/moved"] == 1
        assert run.artifact("promotion.md").is_file()


def test_a_margin_must_be_exceeded(registered):
    promoted(version="1")
    promoted(version="2", margin=50.0)
    assert champion_of("films").number == "1"


def test_an_override_moves_it_and_is_recorded(client, registered, capsys):
    promoted(version="2")
    promoted(version="3", override=True)
    assert champion_of("films").number == "3"
    assert client.get_model_version("films", "3").tags["recdistill.override"] == "true"
    assert "by override" in capsys.readouterr().out


def test_a_version_that_was_not_measured_is_moved_by_override_alone(client, registered, capsys):
    bare = client.create_run("0", tags={"recdistill.step": "add_items"}).info.run_id
    client.set_terminated(bare)
    client.create_model_version("films", source=f"runs:/{bare}/model", run_id=bare)
    promoted(version="2")
    told = f"^version=4: models:/films/4 cannot be tested: its run {bare} is a add_items run; give .* override=true"
    with pytest.raises(InputError, match=told):
        promoted(version="4")
    assert champion_of("films").number == "2"
    run = promoted(version="4", override=True)
    assert champion_of("films").number == "4"
    assert client.get_model_version("films", "4").tags["recdistill.override"] == "true"
    assert client.get_run(run.run_id).data.metrics["promote/moved"] == 1
    said = capsys.readouterr().out
    assert "models:/films/4 is the champion of films now, by override, untested: " in said
    assert "is a add_items run.\n" in said
    # Nor is a measured one tested against it.
    with pytest.raises(InputError, match=f"^the champion models:/films/4 cannot be tested: its run {bare} is"):
        promoted(version="2")
    promoted(version="2", override=True)
    assert champion_of("films").number == "2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "name=: give the name"),
        ({"name": "nobody"}, "name=nobody: no student is registered so"),
        ({"version": "9"}, "version=9: films has 3, 2, 1"),
        ({"version": "2"}, "version=2: is the champion already"),
        ({"metric": "ndcg"}, "metric=ndcg: must be like"),
    ],
)
def test_what_cannot_be_is_one_line(registered, options, said):
    MlflowClient().set_registered_model_alias("films", CHAMPION, "2")
    with pytest.raises(InputError, match=said), entry_run("promote"):
        promote(PromoteConfig(**({"name": "films", "resamples": 500} | options)))


def test_a_comparison_promotes_its_best_recommender_by_the_seed_best_on_validation(client, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(compare_module, "promote_run", lambda *given: said.append(given))
    runs = []
    for seed, val in ((1, 0.11), (2, 0.13)):
        run = add_run(client, SAMPLES, "distill", SAMPLES.ranks(seed, gain=1.0), lam=0.7, seed=seed)
        client.log_metric(run, "val/ndcg_at_20", val)
        runs.append(run)
    runs.append(add_run(client, SAMPLES, "distill", SAMPLES.ranks(3), lam=0.1, seed=1))
    options = {"runs": ",".join(runs), "metric": "test/ndcg_at_20", "resamples": 300, "promote": "films"}
    with entry_run("compare"):
        compare_module.compare(CompareConfig(**options))
    assert said == [(runs[1], "films", "test/ndcg_at_20", 1)]


def test_a_comparison_promotes_what_is_best_on_validation_not_on_test(client, monkeypatch):
    said = []
    monkeypatch.setattr(compare_module, "promote_run", lambda *given: said.append(given))
    runs = {}
    # The first is best on test; a seed of the third is best on validation, but not its mean.
    for name, gain, lam, seed, val in (
        ("lucky", 1.0, 0.1, 1, 0.10),
        ("best", 0.5, 0.7, 1, 0.12),
        ("high", 0.0, 0.9, 1, 0.14),
        ("low", 0.0, 0.9, 2, 0.06),
    ):
        runs[name] = add_run(client, SAMPLES, "distill", SAMPLES.ranks(seed, gain=gain), lam=lam, seed=seed)
        client.log_metric(runs[name], "val/ndcg_at_20", val)
    options = {"runs": ",".join(runs.values()), "resamples": 300, "promote": "films"}
    with entry_run("compare"):
        compare_module.compare(CompareConfig(**options, metric="test/ndcg_at_20"))
    assert [given[0] for given in said] == [runs["best"]]
    with pytest.raises(InputError, match="promote=films: no compared run has val/ndcg_at_7"), entry_run("compare"):
        compare_module.compare(CompareConfig(**options, metric="test/ndcg_at_7"))


def test_main_promotes_only_what_is_registered():
    with pytest.raises(InputError, match="promote=true: give register"):
        MainConfig(promote=True)
    with pytest.raises(InputError, match="promote=true: is of main"):
        WorthConfig(promote=True, register="films")
