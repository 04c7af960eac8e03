import json
from dataclasses import dataclass

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from synthetic_runs import Samples, add_run

from recdistill.config.lineage import digest
from recdistill.errors import InputError
from recdistill.report.compared import groups_of
from recdistill.runs import compared_runs as module
from recdistill.runs.compared_runs import compared_runs
from recdistill.runs.run import StepRun

SAMPLES = Samples(users=30)


@dataclass
class Store:
    """Ids of two distilled students of two seeds, their twins, popularity, and a teacher with its backbone."""

    distilled: list[str]
    twins: list[str]
    popularity: str
    teacher: str
    backbone: str


@pytest.fixture(scope="module")
def store(client: MlflowClient) -> Store:
    def add(step: str, seed: int = 0, **more: object) -> str:
        return add_run(client, SAMPLES, step, SAMPLES.ranks(seed), seed=seed, **more)

    twins = [add("backbone", seed) for seed in (1, 2)]
    backbone = add("backbone", 3, epochs=9)
    teacher = add("teacher", 1, tags={"recdistill.backbone_run_id": backbone}, experts=2)
    distilled = [
        add(
            "distill",
            seed,
            lam=0.7,
            tags={"recdistill.twin_run_id": twin, "recdistill.teacher_run_id": teacher},
        )
        for seed, twin in zip((1, 2), twins, strict=True)
    ]
    return Store(distilled, twins, add("prepare"), teacher, backbone)


def ids(compared):
    return [run.run_id for run in compared.runs]


def test_auto_brings_each_students_twin(store):
    compared = compared_runs(store.distilled, "", "auto", "test")
    assert ids(compared)[:2] == store.distilled
    assert set(ids(compared)) == {*store.distilled, *store.twins}
    assert compared.samples.ranks[store.twins[0]].tolist() == SAMPLES.ranks(1).tolist()
    assert compared.samples.user.max() == 29
    assert compared.samples.item_count.tolist() == SAMPLES.table["item_count"].tolist()


def test_a_teachers_baseline_is_its_backbone(store):
    assert ids(compared_runs([store.teacher], "", "auto", "test")) == [store.teacher, store.backbone]


def test_settings_are_those_of_the_teacher_and_backbone_it_started_from(store):
    run = compared_runs(store.distilled, "", "auto", "test").runs[0]
    assert run.settings["lam"] == 0.7
    assert run.settings["teacher.experts"] == 2
    assert run.settings["teacher.backbone.epochs"] == 9
    assert run.seed == 1


def test_mapped_students_of_other_teachers_are_no_seeds_of_one(client, store):
    other_teacher = add_run(client, SAMPLES, "teacher", SAMPLES.ranks(1), seed=1, experts=8)
    other = add_run(
        client, SAMPLES, "distill", SAMPLES.ranks(1), lam=0.7, tags={"recdistill.teacher_run_id": other_teacher}
    )
    mapped = [
        add_run(client, SAMPLES, "map_items", SAMPLES.ranks(1), tags={"recdistill.mapped_run_id": student})
        for student in (store.distilled[0], store.distilled[0], other)
    ]
    first, again, apart = compared_runs(mapped, "", store.twins[0], "test").runs[:3]
    assert first.settings == again.settings
    assert (first.settings["distill.teacher.experts"], apart.settings["distill.teacher.experts"]) == (2, 8)
    for run_id in (*mapped, other, other_teacher):
        client.delete_run(run_id)


def test_settings_are_what_was_used_not_what_was_typed(client, store):
    """`mlflow run -P lam=0.70` logs 0.70, the run kept 0.7 in its config.json."""
    typed = add_run(client, SAMPLES, "distill", SAMPLES.ranks(5), seed=3, lam=0.7, spelt={"lam": "0.70"})
    linked = {"recdistill.teacher_run_id": store.teacher, "recdistill.twin_run_id": store.twins[0]}
    for name, value in linked.items():
        client.set_tag(typed, name, value)
    runs = {run.run_id: run for run in compared_runs([typed, *store.distilled], "", "auto", "test").runs}
    assert runs[typed].settings == runs[store.distilled[0]].settings
    client.delete_run(typed)


def test_a_trial_of_a_sweep_is_no_further_seed_beside_the_whole_run(client, store):
    same = {"seed": 1, "lam": 0.3, "fingerprint": "6" * 64}
    whole, trial = (add_run(client, SAMPLES, "distill", SAMPLES.ranks(1), **same) for _ in range(2))
    parts = json.loads(StepRun(whole, "", "", reused=True).artifact("key.json").read_text())
    # As `step_run` writes what keeps its results alone.
    kept = parts | {"kept": "results"}
    client.log_text(trial, json.dumps(kept), "key.json")
    client.set_tag(whole, "recdistill.key", digest(parts))
    for name, value in {"recdistill.key": digest(kept), "recdistill.kept": "results"}.items():
        client.set_tag(trial, name, value)
    other = add_run(client, SAMPLES, "distill", SAMPLES.ranks(2), **(same | {"lam": 0.7}))
    found = compared_runs([whole, trial, other], "", "auto", "test")
    assert [[run.run_id for run in group.runs] for group in groups_of(found.runs)] == [[whole], [other]]
    for run_id in (whole, trial, other):
        client.delete_run(run_id)


def test_runs_of_other_contents_of_a_file_are_told_apart(client, tmp_path):
    made = []
    for text in ("one", "two", "two"):
        (tmp_path / "released.pt").write_text(text)
        options = {"released": str(tmp_path / "released.pt"), "fingerprint": "8" * 64, "seed": len(made)}
        made.append(add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0), **options))
    one, two, again = compared_runs(made, "", "auto", "test").runs
    assert one.settings != two.settings
    assert two.settings == again.settings
    for run_id in made:
        client.delete_run(run_id)


def test_runs_of_0_1_are_compared_with_those_of_today(client):
    made = [
        add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0), old=old, fingerprint="7" * 64, seed=seed, **options)
        for old, seed, options in ((True, 1, {}), (False, 2, {}), (True, 3, {"released": "some.pt"}))
    ]
    old, new, imported = compared_runs(made, "", "auto", "test").runs
    # Their results are of the first revision, and are told from those of another.
    assert old.settings == {name: value for name, value in new.settings.items() if name != "revision"}
    assert imported.settings["released content"] == "some.pt"
    assert old.settings.keys() < imported.settings.keys()
    for run_id in made:
        client.delete_run(run_id)


def test_a_run_without_options_is_left_out_of_a_search_and_refused_by_name(client, store):
    bare = client.create_run("0", tags={"recdistill.step": "backbone", "recdistill.fingerprint": "f" * 64}).info.run_id
    client.set_terminated(bare)
    with pytest.raises(InputError, match=f"{bare} .*keeps no config.json"):
        compared_runs([bare, store.twins[0]], "", "auto", "test")
    found = compared_runs([], "", "auto", "test")
    assert found.left_out == 1
    assert bare not in ids(found)
    client.delete_run(bare)


def test_a_damaged_file_of_options_is_named(client, store):
    damaged = add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0))
    client.log_text(damaged, "[1", "key.json")
    with pytest.raises(InputError, match=rf"{damaged}: its key\.json is damaged"):
        compared_runs([damaged, store.twins[0]], "", "auto", "test")
    client.delete_run(damaged)


def test_a_condition_finds_runs_and_none_takes_all(store):
    assert set(ids(compared_runs([], "params.lam = '0.7'", "auto", "val"))) == {*store.distilled, *store.twins}
    everything = {*store.distilled, *store.twins, store.popularity, store.teacher, store.backbone}
    assert set(ids(compared_runs([], "", "auto", "test"))) == everything


def test_a_given_baseline_joins_and_is_resolved(client, store):
    entry = client.create_run("0", tags={"recdistill.step": "prepare", "recdistill.reused_run_id": store.popularity})
    client.set_terminated(entry.info.run_id)
    compared = compared_runs([store.twins[0]], "", entry.info.run_id, "test")
    assert compared.baseline == store.popularity
    assert ids(compared) == [store.twins[0], store.popularity]
    # And the run that only found it is no second one.
    assert ids(compared_runs([], "", "auto", "test")).count(store.popularity) == 1


def test_a_thousand_runs_take_few_searches(store, monkeypatch):
    searches = []
    search = module.search
    monkeypatch.setattr(module, "search", lambda condition: searches.append(condition) or search(condition))
    compared_runs([], "", "auto", "test")
    assert len(searches) <= 5


@pytest.mark.parametrize(
    ("runs", "condition", "said"),
    [
        (["0" * 32], "", "runs=0{32}: no such run"),
        (["' OR 1=1"], "", "no such run"),
        ([], "params.lam > ", "filter=params.lam > : is no MLflow search condition"),
        ([], "params.lam = '77'", "filter=params.lam = '77': no finished"),
    ],
)
def test_bad_requests_are_one_line(store, runs, condition, said):
    with pytest.raises(InputError, match=said) as caught:
        compared_runs(runs, condition, "auto", "test")
    assert "\n" not in str(caught.value)


def test_unfinished_foreign_and_unevaluated_runs_are_refused(client, store):
    running = add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0), status="FAILED")
    with pytest.raises(InputError, match=f"{running}: is FAILED, not FINISHED"):
        compared_runs([running], "", "auto", "test")
    foreign = client.create_run("0").info.run_id
    client.set_terminated(foreign)
    with pytest.raises(InputError, match=f"{foreign}: is a foreign run"):
        compared_runs([foreign], "", "auto", "test")
    bare = add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0), parts=(), epochs=77)
    with pytest.raises(InputError, match=f"{bare} .* keeps no ranks/test.parquet"):
        compared_runs([bare], "", "auto", "test")
    compared = compared_runs([], "params.student = 'sasrec'", "auto", "test")
    assert compared.left_out == 1
    assert bare not in ids(compared)
    for run_id in (running, foreign, bare):
        client.delete_run(run_id)


def test_runs_of_other_data_are_refused_and_named(client, store):
    other = add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0), fingerprint="e" * 64, split="chronological")
    with pytest.raises(InputError, match=f"{store.twins[0]} .*user-holdout .*{other} .*chronological"):
        compared_runs([store.twins[0], other], "", "auto", "test")
    client.delete_run(other)


def test_the_same_data_with_other_samples_is_refused(client, store):
    fewer = Samples(users=20)
    other = add_run(client, fewer, "teacher", fewer.ranks(0))
    with pytest.raises(InputError, match=f"{store.twins[0]} .*30 samples.*{other} .*20 samples"):
        compared_runs([store.twins[0], other], "", "auto", "test")
    client.delete_run(other)


def test_a_damaged_file_of_ranks_is_named(client, store, tmp_path):
    damaged = add_run(client, SAMPLES, "backbone", SAMPLES.ranks(0), parts=())
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no parquet")
    client.log_artifact(damaged, str(tmp_path / "test.parquet"), "ranks")
    with pytest.raises(InputError, match=f"{damaged}: cannot read test.parquet"):
        compared_runs([damaged, store.twins[0]], "", "auto", "test")
    client.delete_run(damaged)


def test_ranks_are_read_as_written(client):
    ranks = np.arange(1, 31)
    run_id = add_run(client, SAMPLES, "backbone", ranks, fingerprint="9" * 64)
    compared = compared_runs([run_id], "", "auto", "val")
    assert compared.samples.ranks[run_id].tolist() == ranks.tolist()
    assert compared.samples.history_length.tolist() == SAMPLES.table["history_length"].tolist()
    mlflow.delete_run(run_id)


def test_ranks_with_columns_of_new_items_are_compared_with_ranks_of_before(client):
    wide = Samples(users=30)
    wide.table = SAMPLES.table.assign(new=False, rank_among_new=0)
    added = [
        add_run(client, one, "backbone", SAMPLES.ranks(seed), fingerprint="8" * 64)
        for seed, one in enumerate((SAMPLES, wide))
    ]
    compared = compared_runs(added, "", "auto", "test")
    assert sorted(compared.samples.ranks) == sorted(added)
    for run_id in added:
        mlflow.delete_run(run_id)
