"""Rankings of others beside runs of the store, and what lists are like beyond hits."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from workplace import Workplace, run_step

from recdistill.config import CompareConfig, DataConfig
from recdistill.data.ranking_files import read_ranking
from recdistill.errors import InputError
from recdistill.evaluation.rank_table import sample_table
from recdistill.evaluation.recommended_lists import meanings
from recdistill.runs.compared_runs import ComparedRuns
from recdistill.runs.step_runs import entry_run
from recdistill.steps.compare import compare
from recdistill.steps.compared_lists import with_others
from recdistill.steps.inputs import data_of

SMALL = {"hidden_size": 8, "heads": 1, "blocks": 1, "epochs": 2}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, downloads, small_files):
    """A place with two undistilled students; this process is in it."""
    place = Workplace(tmp_path_factory.mktemp("compared"), downloads)
    with place.entered():
        for seed in (1, 2):
            assert run_step("backbone", **small_files, **SMALL, seed=seed) == 0
        data = data_of(DataConfig(**small_files))
        yield place, data, place.newest("backbone").info.run_id


def compared(**options):
    with entry_run("compare"):
        return compare(CompareConfig(resamples=300, **options))


def perfect(data, path, depth=5):
    """A file whose list of each user begins with the targets of test."""
    rows = []
    for user, name in enumerate(data.user_ids):
        targets = dict.fromkeys(data.item_ids[item] for item in data.test.targets[data.test.user == user])
        others = [item for item in data.item_ids if item not in targets]
        rows += [(name, item, rank) for rank, item in enumerate([*targets, *others][:depth], 1)]
    pd.DataFrame(rows, columns=["user", "item", "rank"]).to_csv(path, index=False)


def test_a_ranking_of_others_is_named_and_tested_beside_ours(evaluated, tmp_path, capsys):
    _, data, run_id = evaluated
    perfect(data, tmp_path / "oracle.csv")
    run = compared(runs=run_id, rankings=str(tmp_path / "oracle.csv"))
    table = pd.read_csv(run.artifact("comparison") / "comparison.csv")
    ours = table[(table.subgroup == "all") & (table.metric == "HR@10")].set_index("recommender")["value"]
    assert set(ours.index) == {"oracle", "backbone"}
    reachable = 1 - np.mean([seen for seen in data.test.target_seen])
    assert ours["oracle"] == pytest.approx(reachable)
    said = capsys.readouterr().out
    assert "oracle: lists of 5 items" in said
    assert "is a miss" in said


def test_another_content_is_another_comparison_and_the_same_is_found(evaluated, tmp_path):
    _, data, run_id = evaluated
    perfect(data, tmp_path / "mine.csv")
    first = compared(runs=run_id, rankings=f"theirs={tmp_path}/mine.csv")
    assert compared(runs=run_id, rankings=f"theirs={tmp_path}/mine.csv").run_id == first.run_id
    perfect(data, tmp_path / "mine.csv", depth=1)
    assert compared(runs=run_id, rankings=f"theirs={tmp_path}/mine.csv").run_id != first.run_id


def test_lists_are_told_beyond_hits_with_what_each_means(evaluated, tmp_path):
    _, data, _ = evaluated
    perfect(data, tmp_path / "oracle.csv")
    run = compared(filter="", rankings=f"{tmp_path}/oracle.csv", baseline="auto")
    folder = run.artifact("comparison")
    lists = pd.read_csv(folder / "lists.csv", index_col="recommender")
    assert set(lists.columns) == set(meanings())
    assert "oracle" in lists.index
    assert lists.notna().all(axis=None)
    for name in ("comparison.md", "comparison.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert all(said.partition(":")[0].partition("(")[0].strip() in text for said in meanings().values())


@pytest.mark.parametrize(
    ("given", "said"),
    [("/no/such.csv", "there is no file"), ("{one},{one}", "two files are called one")],
)
def test_files_that_cannot_be_are_refused(evaluated, tmp_path, given, said):
    _, data, run_id = evaluated
    perfect(data, tmp_path / "one.csv")
    with pytest.raises(InputError, match=said):
        compared(runs=run_id, rankings=given.format(one=tmp_path / "one.csv"))


def test_lists_for_nobody_who_is_compared_are_refused_in_a_line(evaluated, tmp_path):
    _, data, run_id = evaluated
    (tmp_path / "none.csv").write_text("user,item,rank\nnobody,i0,1\n")
    with pytest.raises(InputError, match="none of its users is in the data"):
        compared(runs=run_id, rankings=f"{tmp_path}/none.csv")
    first, second = data.test.user[0], next(user for user in data.test.user if user != data.test.user[0])
    (tmp_path / "other.csv").write_text(f"user,item,rank\n{data.user_ids[second]},i0,1\n")
    ranking = read_ranking("other", tmp_path / "other.csv", data)
    own = data.test.subset(np.flatnonzero(data.test.user == first))
    shared = pa.Table.from_pandas(sample_table(own, data))
    stored = ComparedRuns((SimpleNamespace(run_id="r", exclude_seen=True),), None, "auto", 0, shared)
    with pytest.raises(InputError, match=r"^rankings=other: has no list for any of the 1 users who are compared"):
        with_others(stored, [ranking], data, "test")


@pytest.mark.parametrize("renamed", [slice(None), slice(0, 1)])
def test_runs_whose_users_are_called_otherwise_in_the_data_now_are_refused_in_a_line(evaluated, tmp_path, renamed):
    """The fingerprint of the data does not tell: it is of items and samples."""
    _, data, _ = evaluated
    perfect(data, tmp_path / "mine.csv")
    ranking = read_ranking("mine", tmp_path / "mine.csv", data)
    table = sample_table(data.test, data)
    users = table["user"].unique()[renamed]
    shared = pa.Table.from_pandas(
        table.assign(user=table["user"].where(~table["user"].isin(users), "x" + table["user"]))
    )
    stored = ComparedRuns((SimpleNamespace(run_id="r", exclude_seen=True),), None, "auto", 0, shared)
    with pytest.raises(InputError, match=r"^run r: .* of its .* samples are not in its data any more") as caught:
        with_others(stored, [ranking], data, "test")
    assert "\n" not in str(caught.value)
