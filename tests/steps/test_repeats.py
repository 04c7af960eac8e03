"""Items that come again: a target that rankings leave out is a miss, teaches nothing, and is said to be there."""

import csv
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from small_data import write_csv
from workplace import Workplace, run_step

from recdistill.config import DataConfig
from recdistill.data import notices
from recdistill.data.load import load_data
from recdistill.runs.served_model import load_model
from recdistill.teachers.outputs import TeacherOutputs

SMALL = {"epochs": 1, "hidden_size": 8, "blocks": 1}


def shopping(folder: Path) -> dict[str, str]:
    """Twenty shoppers who buy few things again and again, and sometimes a new one."""
    items = 30
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = []
        for user in range(20):
            bought = [user + time % 3 if time % 4 else user * 7 + time for time in range(11)]
            # Half of them end with a new thing.
            bought.append(bought[0] if user % 2 else next(item for item in range(items) if item not in bought))
            rows += [(f"u{user}", f"i{item % items}", 100 * user + time) for time, item in enumerate(bought)]
        csv.writer(file).writerows([("user", "item", "timestamp"), *rows])
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("item", "title"), *((f"i{item}", f"Thing {item}") for item in range(items))])
    return {
        "dataset": "csv",
        "interactions": str(folder / "interactions.csv"),
        "items": str(folder / "items.csv"),
    }


def test_rows_that_stand_twice_are_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = write_csv(tmp_path)
    once = load_data(DataConfig(**options))
    path = tmp_path / "interactions.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *(row for row in rows for _ in range(2))]) + "\n", encoding="utf-8")
    capsys.readouterr()
    twice = load_data(DataConfig(**options))
    assert twice.fingerprint == once.fingerprint
    assert f"data: {len(rows):,} of {2 * len(rows):,} interactions of {path} stand twice" in capsys.readouterr().out


def test_evaluation_hits_what_the_served_model_recommends_and_nothing_else(place: Workplace, tmp_path: Path) -> None:
    options = shopping(tmp_path)
    assert run_step("backbone", **options, **SMALL) == 0
    run = place.newest("backbone")
    ranks = pd.read_parquet(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/ranks/test.parquet"))
    data = load_data(DataConfig(**options))
    histories = [
        [data.item_ids[item] for item in data.test.items[start:end]]
        for start, end in zip(data.test.start, data.test.end, strict=True)
    ]
    served = load_model(run.info.run_id).predict(pd.DataFrame({"history": histories, "k": 10}))
    hit = [target in items for target, items in zip(ranks["item"], served["items"], strict=True)]
    assert (ranks["rank"] <= 10).tolist() == hit
    seen = data.test.target_seen
    assert 0 < seen.mean() < 1
    assert (ranks["rank"][seen] == data.num_items + 1).all()
    assert run.data.metrics["test/hr_at_10"] == pytest.approx(sum(hit) / len(hit))
    assert run.data.metrics["data/seen_target_share"] == data.seen_target_share() > 0


def test_a_share_of_seen_targets_is_a_metric_and_a_warning(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_said", set())
    options = shopping(tmp_path)
    assert run_step("prepare", **options) == 0
    share = place.newest("prepare").data.metrics["data/seen_target_share"]
    assert share == load_data(DataConfig(**options)).seen_target_share() > 0.01
    said = capsys.readouterr().out
    assert f"data: {share:.1%} of all targets of csv" in said
    assert "exclude_seen=false is for data in which items come again" in said
    monkeypatch.setattr(notices, "_said", set())
    assert run_step("prepare", **options, exclude_seen=False) == 0
    assert "of all targets" not in capsys.readouterr().out


def test_seen_targets_are_no_training_samples(tmp_path: Path) -> None:
    data = load_data(DataConfig(**shopping(tmp_path)))
    index = data.trainable(exclude_seen=True)
    assert index is not None
    assert not data.train.subset(index).target_seen.any()
    assert len(index) == data.num_trainable(True) == (~data.train.target_seen).sum()
    assert data.trainable(exclude_seen=False) is None
    assert data.num_trainable(False) == len(data.train)


@pytest.mark.slow
def test_a_student_and_a_teacher_of_such_data_are_trained(
    place: Workplace, tmp_path: Path, tiny_llm_folder: Path
) -> None:
    options = {**shopping(tmp_path), "llm": tiny_llm_folder, "teacher_window": 8, "teacher_history": 3, "top_n": 10}
    options |= {"token_budget": 600, "tokens_per_batch": 200}
    assert run_step("distill", **options, **SMALL) == 0
    data = load_data(DataConfig(**shopping(tmp_path)))
    covered = place.newest("teacher").data.metrics["covered_share"]
    # All that can be learnt from is scored, and nothing else.
    assert covered == pytest.approx(data.num_trainable(True) / len(data.train))


@pytest.mark.slow
def test_a_user_who_has_seen_the_whole_catalogue_costs_nobody_the_teacher(
    place: Workplace, tmp_path: Path, tiny_llm_folder: Path
) -> None:
    options = write_csv(tmp_path, items=12)
    with (tmp_path / "interactions.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"all,i{item % 12},{item}\n" for item in range(16))
    options |= {"llm": tiny_llm_folder, "teacher_window": 8, "teacher_history": 3, "candidate_topk": 5}
    assert run_step("distill", **options, **SMALL, token_budget=600, tokens_per_batch=200) == 0
    data = load_data(DataConfig(**{name: options[name] for name in ("dataset", "interactions", "items")}))
    run_id = place.newest("teacher").info.run_id
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="teacher_outputs")
    scored = TeacherOutputs.load(folder, data.fingerprint).sample.numpy()
    # Who has seen all of it gets no ranking.
    seen_all = data.train.end - data.train.start >= 12
    assert (seen_all & (data.train.user == data.user_ids.index("all"))).any()
    assert not seen_all[scored][data.train.user[scored] == data.user_ids.index("all")].any()
