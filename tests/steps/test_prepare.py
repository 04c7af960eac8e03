"""What ``prepare`` says of the data, and the popularity baseline by hand."""

import random

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from small_data import options_of, write_table
from workplace import run_step

from recdistill.config import DataConfig
from recdistill.evaluation.part_metrics import chance_ndcg
from recdistill.steps.inputs import data_of
from recdistill.steps.prepare import prepare


def test_popularity_is_that_of_a_loop(small_files, place):
    config = DataConfig(**small_files)
    run, data = prepare(config), data_of(config)
    counts = [0] * data.num_items
    for target in data.train.targets.tolist():
        counts[target] += 1
    for part, samples in (("val", data.validation), ("test", data.test)):
        ranks = pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")["rank"].tolist()
        for sample, target in enumerate(samples.targets.tolist()):
            seen = set(samples.items[samples.start[sample] : samples.end[sample]].tolist())
            better = [item for item in range(data.num_items) if item not in seen and counts[item] >= counts[target]]
            # The target itself is one of them; where the history has it, it is never recommended.
            assert ranks[sample] == (data.num_items + 1 if target in seen else len(better))


def test_it_logs_sizes_and_fingerprint(small_files, place):
    assert run_step("prepare", **small_files) == 0
    run, data = place.newest("prepare"), data_of(DataConfig(**small_files))
    metrics = run.data.metrics
    assert metrics["data/users"] == len(data.user_ids) == 30
    assert metrics["data/items"] == data.num_items == 40
    for part, samples in (("train", data.train), ("val", data.validation), ("test", data.test)):
        assert metrics[f"data/{part}_samples"] == len(samples)
    assert MlflowClient().download_artifacts(run.info.run_id, "fingerprint.txt")
    assert run.data.tags["recdistill.fingerprint"] == data.fingerprint
    assert "0.0000" not in run.data.tags["mlflow.note.content"]


def test_movielens_has_8233_test_samples(place, capsys):
    assert run_step("prepare", dataset="ml-100k") == 0
    lines = capsys.readouterr().out.splitlines()
    sizes = "82,591 training samples, 8,233 validation samples, 8,233 test samples"
    assert f"ml-100k, user-holdout: 943 users, 1,682 items, {sizes}" in lines
    metrics = place.newest("prepare").data.metrics
    assert (metrics["data/val_samples"], metrics["data/test_samples"]) == (8_233, 8_233)


def test_new_items_are_said_logged_and_ranked_among_themselves(small_files, place, capsys):
    config = DataConfig(**small_files, new_items=0.3)
    run, data = prepare(config), data_of(config)
    of_test, of_validation = data.test.targets, data.validation.targets
    new, new_in_validation = np.isin(of_test, data.new_test), np.isin(of_validation, data.new_validation)
    assert 0 < new.sum() < len(new)
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"new items: {len(data.new_test)} in test, targets of {new.sum()} test samples; {len(data.new_validation)} in "
        f"validation, targets of {new_in_validation.sum()} validation samples"
    )
    metrics = run.metrics()
    assert metrics["data/test_new_items"] == len(data.new_test)
    assert metrics["data/test_new_samples"] == metrics["test/new_samples"] == new.sum()
    assert metrics["data/val_new_samples"] == metrics["val/new_samples"] == new_in_validation.sum()
    table = pd.read_parquet(run.artifact("ranks") / "test.parquet")
    assert table["new"].tolist() == new.tolist()
    # To popularity all new items are the same: ties are lost, and each is the last of those that are not seen.
    assert set(table["rank_among_new"][new]) == {len(data.new_test)}
    assert not table["rank_among_new"][~new].any()
    assert metrics["test/new_among_new/mrr"] == pytest.approx(1 / len(data.new_test))
    assert metrics["test/warm/mrr"] == pytest.approx((1 / table["rank"][table["item_count"] > 0]).mean())


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_chance_counts_the_new_items_that_histories_leave(tmp_path, place, exclude_seen):
    drawn = random.Random(0)
    rows = [
        (f"u{user}", f"i{drawn.randrange(time, time + 12)}", 100 * time + user)
        for time in range(40)
        for user in range(20)
    ]
    write_table(tmp_path / "interactions.csv", [("user", "item", "timestamp"), *rows])
    write_table(tmp_path / "items.csv", [("item", "title"), *((f"i{item}", f"Film {item}") for item in range(51))])
    config = DataConfig(**options_of(tmp_path), split="chronological", exclude_seen=exclude_seen)
    metrics, data = prepare(config).metrics(), data_of(config)
    new, levels, left = set(data.new_test), [], []
    for start, end, target in zip(data.test.start, data.test.end, data.test.targets, strict=True):
        if target in new:
            seen = set(data.test.items[start:end]) if exclude_seen else set()
            left.append(len(new - seen))
            levels.append(0.0 if target in seen else chance_ndcg(left[-1], 20))
    assert metrics["test/new_among_new/chance_ndcg_at_20"] == pytest.approx(np.mean(levels))
    assert metrics.get("test/new_among_new/items") == (pytest.approx(np.mean(left)) if exclude_seen else None)
    assert (0.0 in levels) == exclude_seen


def test_a_reused_run_that_other_code_made_says_so_in_one_line(small_files, place, capsys):
    assert run_step("prepare", **small_files) == 0
    made = place.newest("prepare")
    assert "other code" not in capsys.readouterr().out
    assert run_step("prepare", **small_files) == 0
    assert "other code" not in capsys.readouterr().out
    MlflowClient().set_tag(made.info.run_id, "recdistill.git_commit", "0123456789abcdef")
    assert run_step("prepare", **small_files) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "other code" in line)
    assert line.startswith(f"prepare: run {made.info.run_id} was made by other code (commit 0123456789, here ")
    assert line.endswith("; force=true makes it again")
    newest = place.newest("prepare")
    assert newest.data.tags["recdistill.reused_run_id"] == made.info.run_id
    assert newest.data.metrics == made.data.metrics
