"""Items that come again: a target that rankings leave out is a miss, teaches nothing, and is said to be there."""

import csv
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from kinds_data import QUICK, histories_of, write_data
from small_data import write_csv
from workplace import Workplace, run_step

from recdistill.config import AddItemsConfig, BaselineConfig, DataConfig, MapItemsConfig
from recdistill.data import notices
from recdistill.data.load import load_data
from recdistill.runs.served_model import load_model
from recdistill.steps.add_items import add_items
from recdistill.steps.backbone import backbone
from recdistill.steps.inputs import data_of
from recdistill.steps.map_items import Source, made_from, map_items
from recdistill.steps.student_start import LEARNT
from recdistill.students.build import load_recommender
from recdistill.students.item_map import fit_item_map
from recdistill.students.mapped import MappedStudent
from recdistill.teachers.outputs import TeacherOutputs
from recdistill.views.item_vectors import ItemVectors

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


def targets_of_repeats_alone(folder: Path) -> dict[str, object]:
    """Options of data with six items, the first of the file, each of which one user has had twice and nobody else."""
    options = QUICK | write_data(folder) | {"epochs": 3, "item_init": "views"}
    log, items = folder / "log.csv", folder / "items.csv"
    head, *rows = log.read_text(encoding="utf-8").splitlines()
    later = [(*row.split(",")[:2], int(row.split(",")[2]) * 10 + 20) for row in rows]
    later += [(f"u{one}", f"z{one}", time) for one in range(6) for time in (0, 25)]
    log.write_text("\n".join([head, *(",".join(map(str, row)) for row in later)]) + "\n", encoding="utf-8")
    head, *rows = items.read_text(encoding="utf-8").splitlines()
    rows = [*(f"z{one},Zed {one},{'Jazz' if one % 2 else 'War'}" for one in range(6)), *rows]
    items.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return options


@pytest.mark.parametrize("new_items", [0.25, 0.0])
@pytest.mark.parametrize("item_map", ["own", "ridge"])
def test_an_item_that_nothing_is_learnt_of_is_new_to_a_map(
    place: Workplace, tmp_path: Path, item_map: str, new_items: float
) -> None:
    options = targets_of_repeats_alone(tmp_path) | {"new_items": new_items}
    student = backbone(BaselineConfig(**options))
    config = MapItemsConfig(**options, item_map=item_map)
    run = map_items(MapItemsConfig(student_run_id=student.run_id, item_map=item_map, views="tfidf", device="cpu"))
    data = data_of(config)
    learnt = data.learnt(exclude_seen=True)
    assert (data.trained & ~learnt).sum() >= 3
    found = load_recommender(run.artifact("student"))
    assert isinstance(found, MappedStudent)
    assert found.new_items.tolist() == np.flatnonzero(~learnt).tolist()
    metrics = run.metrics()
    assert metrics["map/val_warm_cost"] <= 0.02
    if new_items:
        (tried,) = json.loads((run.artifact("new_items") / "curve.json").read_text())["views"]
        assert tried["value"] == pytest.approx(metrics["val/new_among_new/ndcg_at_20"])
    if item_map == "ridge":
        # Nothing is fitted to rows that nothing was learnt of.
        table = torch.from_numpy(ItemVectors.load(run.artifact("student") / "item_vectors", device="cpu").table)
        rows = load_student_table(student)
        expected, _ = fit_item_map(table[learnt], rows[learnt], torch.as_tensor(data.item_count)[learnt])
        torch.testing.assert_close(found.new_item_map.map.weight, expected.weight)
    # Maps of before are not found; those of data without such items are.
    assert made_from(config, data, Source(student, "backbone", {}), None, ())[1].items() >= LEARNT.items()
    path = tmp_path / "new.csv"
    path.write_text("item,title,kind\nn1,Number 101,Jazz\n")
    more = load_recommender(
        add_items(AddItemsConfig(model=run.run_id, items=str(path), device="cpu")).artifact("student")
    )
    history, length = histories_of(data, np.flatnonzero(learnt))
    with torch.no_grad():
        assert torch.equal(more.scores(history, length)[:, : data.num_items], found.scores(history, length))


def load_student_table(run: object) -> torch.Tensor:
    """The item table of a student's run, that within a map."""
    found = load_recommender(run.artifact("student"))
    return (found.student if isinstance(found, MappedStudent) else found).item_table().detach()
