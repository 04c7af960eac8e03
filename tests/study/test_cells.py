"""Results of cells on disk, and the report that is made of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

from recdistill.errors import InputError
from recdistill.study.cells import CellResult, read_cell, read_ranks, write_cell
from recdistill.study.plan import Cell, read_plan
from recdistill.study.report import Found, answers, found_chance, starts_elsewhere, write_report

PLAN = """\
data:
  small: {dataset: ml-100k}
students:
  sasrec: {student: sasrec}
seeds: [1, 2, 3]
rows:
  undistilled: {step: backbone, says: without a teacher}
  distilled: {step: distill}
  unmade: {step: distill, options: {lam: 3}}
comparisons:
  - {row: distilled, against: undistilled}
  - {row: unmade, against: undistilled}
"""


def result(cell: Cell, value: float) -> CellResult:
    metrics = {"test/ndcg_at_20": value, "test/new_among_new/chance_ndcg_at_20": 0.03, "train_seconds": 2.0}
    metrics |= {"ms_per_1000_recommendations": 20_333.7}
    return CellResult(
        cell.key, "abc", "sqlite mlflow.db", metrics, 2.0, cell.options, "f" * 64, {"torch": "2"}, "c" * 40, "cpu"
    )


def ranks(seed: int, divisor: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    rank = drawn.integers(1, 60, size=300)
    columns = {"user": [f"u{n % 60}" for n in range(300)], "item": [f"i{n % 50}" for n in range(300)]}
    columns |= {"rank": (rank + divisor - 1) // divisor, "rank_among_new": np.where(np.arange(300) % 3, 0, rank)}
    columns |= {"item_count": np.arange(300) % 3 * 100}
    return pd.DataFrame(columns | {"history_length": 5})


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Found]:
    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = read_plan(tmp_path / "plan.yaml")
    for cell in plan.cells:
        if cell.row != "unmade":
            better = cell.row == "distilled"
            write_cell(tmp_path, cell, result(cell, 0.1 + 0.05 * better), ranks(cell.seed, 1 + better))
    return tmp_path, Found.read(plan, tmp_path)


def test_what_is_written_is_read(study):
    folder, found = study
    cell = found.plan.cells[0]
    assert read_cell(folder, cell) == result(cell, 0.1)
    assert list(read_ranks(folder, cell).columns) == ["user", "item", "rank", "rank_among_new", "item_count"]
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("killed_at", [".parquet", ".json"])
def test_a_cell_that_is_killed_while_it_is_written_again_is_not_finished(study, monkeypatch, killed_at):
    folder, found = study
    cell = found.plan.cells[0]
    rename = Path.replace

    def killed(place: Path, target: Path) -> Path:
        if target.suffix == killed_at:
            raise KeyboardInterrupt
        return rename(place, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_cell(folder, cell, result(cell, 0.9), ranks(7, 3))
    assert read_cell(folder, cell) is None
    monkeypatch.undo()
    write_cell(folder, cell, result(cell, 0.9), ranks(7, 3))
    assert read_cell(folder, cell) == result(cell, 0.9)
    assert read_ranks(folder, cell)["rank"].equals(ranks(7, 3)["rank"])


def test_a_cell_whose_new_files_cannot_be_written_stays_as_it_was(study):
    folder, found = study
    cell = found.plan.cells[0]
    before = read_ranks(folder, cell)
    with pytest.raises(TypeError):
        write_cell(folder, cell, dataclasses.replace(result(cell, 0.9), versions={"torch": object()}), ranks(7, 3))
    with pytest.raises(pyarrow.ArrowException):
        write_cell(folder, cell, result(cell, 0.9), ranks(7, 3).assign(user=[object()] * 300))
    assert read_cell(folder, cell) == result(cell, 0.1)
    assert read_ranks(folder, cell).equals(before)
    assert not list(folder.rglob("*.partial"))


def test_cells_of_before_with_too_low_a_chance_do_not_count_beside_others(study):
    _, found = study
    assert found_chance(found, "small") == pytest.approx(0.03)
    marked = {"test/new_among_new/chance_ndcg_at_20": 0.05, "test/new_among_new/items": 7.5}
    (first, *_) = found.results
    metrics = {**found.results[first].metrics, **marked}
    mixed = {**found.results, first: dataclasses.replace(found.results[first], metrics=metrics)}
    assert found_chance(dataclasses.replace(found, results=mixed), "small") == 0.05


def test_a_cell_of_another_plan_is_not_taken(study):
    folder, found = study
    cell = found.plan.cells[0]
    assert read_cell(folder, dataclasses.replace(cell, options=cell.options | {"epochs": 3})) is None
    (folder / f"{cell.name}.json").write_text("{}")
    with pytest.raises(InputError, match="is no result of a study"):
        read_cell(folder, cell)


def test_the_report_says_what_is_better_and_what_is_missing(study):
    folder, found = study
    given = answers(found, folder)
    assert {answer.comparison.row for answer in given} == {"distilled"}
    verdicts = {answer.difference.part: answer.difference.verdict for answer in given}
    assert verdicts == {"all": "better", "warm": "better", "new": "better", "new_among_new": "not below"}
    text = write_report(found, given, ["report_all.svg"])
    assert "6 finished cells of 9" in text
    assert "| undistilled | 0.1000 ± 0.0000 (3) |" in text
    assert "without a teacher" in text
    assert "unmade |" not in text
    assert "| *chance* | | | | 0.0300 | | | |" in text
    assert "a row that gives all new items one score" in text
    assert " | 2 | 20,334 | " in text
    assert "![NDCG@20 of each row](report_all.svg)" in text


def test_seeds_of_other_data_are_not_joined(study):
    """Where no items are drawn, all seeds are of the same data: a file that has grown between two seeds is seen."""
    folder, found = study
    grown = {
        cell.name: dataclasses.replace(found.results[cell.name], fingerprint="0" * 64)
        for cell in found.plan.cells
        if cell.seed == 3 and cell.row != "unmade"
    }
    other = dataclasses.replace(found, results={**found.results, **grown})
    with pytest.raises(InputError, match=r"undistilled/sasrec-1 and small/undistilled/sasrec-3 are of other data; del"):
        answers(other, folder)


def test_seeds_that_draw_new_items_are_of_the_same_data_before_the_draw(study):
    folder, found = study
    cells = [dataclasses.replace(cell, options=cell.options | {"new_items": 0.1}) for cell in found.plan.cells]
    plan = dataclasses.replace(found.plan, cells=tuple(cells), comparisons=())

    def of_data(undrawn):
        results = {
            cell.name: dataclasses.replace(result(cell, 0.1), fingerprint=str(cell.seed), undrawn=undrawn[cell.seed])
            for cell in cells
            if cell.row != "unmade"
        }
        return Found(plan, results)

    assert answers(of_data({1: "a", 2: "a", 3: "a"}), folder) == []
    # Cells of before kept none.
    assert answers(of_data({1: "", 2: "a", 3: "a"}), folder) == []
    with pytest.raises(InputError, match="undistilled/sasrec-2 and small/undistilled/sasrec-3 are of other data"):
        answers(of_data({1: "", 2: "a", 3: "b"}), folder)


def test_a_bar_or_a_line_break_in_words_makes_no_other_cell(study):
    _, found = study
    rows = {name: dataclasses.replace(row, says="a | b\nc") for name, row in found.plan.rows.items()}
    text = write_report(dataclasses.replace(found, plan=dataclasses.replace(found.plan, rows=rows)), [], [])
    assert text.count(r"| a \| b c |") == 2


def test_cells_of_other_data_are_not_compared(study):
    folder, found = study
    cell = found.plan.cells[0]
    grown = dataclasses.replace(found.results[cell.name], fingerprint="0" * 64)
    other = dataclasses.replace(found, results={**found.results, cell.name: grown})
    with pytest.raises(InputError, match=rf"distilled/sasrec-1 and {cell.name} are of other data; delete"):
        answers(other, folder)


def test_rows_that_are_the_same_for_all_students_are_compared_once(tmp_path):
    text = PLAN.replace("sasrec: {student: sasrec}", "sasrec: {student: sasrec}\n  gru: {student: gru4rec}")
    text = text.replace("{step: backbone, says", "{step: prepare, students: [], says")
    text = text.replace("{step: distill}", "{step: prepare, students: [], options: {max_users: 9}}")
    (tmp_path / "plan.yaml").write_text(text)
    plan = read_plan(tmp_path / "plan.yaml")
    for cell in plan.cells:
        if cell.row != "unmade":
            write_cell(tmp_path, cell, result(cell, 0.1), ranks(cell.seed, 1 + (cell.row == "distilled")))
    given = answers(Found.read(plan, tmp_path), tmp_path)
    assert len({answer.difference.part for answer in given}) == len(given) == 4


def test_a_study_without_a_finished_cell_says_so(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = read_plan(tmp_path / "plan.yaml")
    assert "No cell is finished yet." in write_report(Found.read(plan, tmp_path), [], [])


@pytest.mark.parametrize("order", ["against one seed", "of one seed"])
def test_a_row_that_is_planned_with_one_seed_is_judged_by_it_in_either_order(tmp_path: Path, order: str):
    pair = "{row: distilled, against: once}" if order == "against one seed" else "{row: once, against: distilled}"
    plan_text = (
        PLAN[: PLAN.index("comparisons:")] + f"  once: {{step: backbone, seeds: [1]}}\ncomparisons:\n  - {pair}\n"
    )
    (tmp_path / "plan.yaml").write_text(plan_text)
    plan = read_plan(tmp_path / "plan.yaml")
    for cell in plan.cells:
        if cell.row in ("once", "distilled"):
            better = cell.row == "distilled"
            write_cell(tmp_path, cell, result(cell, 0.1), ranks(cell.seed, 1 + 4 * better))
    given = {one.difference.part: one.difference for one in answers(Found.read(plan, tmp_path), tmp_path)}
    assert given["all"].seeds == 1
    assert given["all"].verdict == ("better" if order == "against one seed" else "worse")


@pytest.mark.parametrize(("margin", "said"), [("0.01", "1 %"), ("0.005", "0.5 %"), ("0.025", "2.5 %")])
def test_the_margin_is_said_as_it_is(tmp_path: Path, margin: str, said: str):
    (tmp_path / "plan.yaml").write_text(f"margin: {margin}\n{PLAN}")
    plan = read_plan(tmp_path / "plan.yaml")
    assert f"more than {said} is ruled out" in write_report(Found.read(plan, tmp_path), [], [])


def test_cells_that_started_from_another_making_are_named(study):
    _, found = study
    (first,) = (one for one in found.plan.cells if one.name.endswith("undistilled/sasrec-1"))
    (cell,) = (one for one in found.plan.cells if one.name.endswith("small/distilled/sasrec-1"))
    after = dataclasses.replace(cell, of={"student_run_id": first})

    def with_upstream(**upstream):
        known = dataclasses.replace(found.results[cell.name], upstream=upstream)
        return dataclasses.replace(found, results={**found.results, cell.name: known})

    # Cells of before tell nothing of it.
    assert not starts_elsewhere(with_upstream(), after)
    assert not starts_elsewhere(with_upstream(student_run_id=found.results[first.name].run_id), after)
    assert starts_elsewhere(with_upstream(student_run_id="another"), after)
    plan = dataclasses.replace(found.plan, cells=tuple(after if one is cell else one for one in found.plan.cells))
    other = dataclasses.replace(with_upstream(student_run_id="another"), plan=plan)
    assert f"differ by a training: {cell.name}." in write_report(other, [], [])
    assert "differ by a training" not in write_report(found, [], [])
