"""Rankings of others beside runs of the store, and what lists are like beyond hits."""

import numpy as np
import pandas as pd
import pytest
from workplace import Workplace, run_step

from recdistill.config import CompareConfig, DataConfig
from recdistill.errors import InputError
from recdistill.evaluation.recommended_lists import meanings
from recdistill.runs.step_runs import entry_run
from recdistill.steps.compare import compare
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
