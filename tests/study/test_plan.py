"""Plans of studies: their cells, their order, and each mistake in one line."""

from pathlib import Path

import pytest

from recdistill.errors import InputError
from recdistill.study.plan import cells_named, independent_parts, lineage, read_plan

PLAN = """\
shared: {epochs: 1, hidden_size: 8}
data:
  small: {dataset: ml-100k, max_users: 50}
  other: {dataset: ml-100k, max_users: 40}
students:
  sasrec: {student: sasrec, heads: 1}
  gru: {student: gru4rec}
seeds: [1, 2]
rows:
  popularity: {step: prepare, students: []}
  distilled: {step: distill, of: {teacher_run_id: teacher}, options: {lam: 2}, data: [small]}
  undistilled: {step: backbone}
  teacher: {step: teacher, students: [], options: {token_budget: 10}, seeds: [1, 2]}
comparisons:
  - {row: distilled, against: undistilled}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text)
    return path


def test_cells_are_rows_by_data_students_and_seeds(tmp_path):
    plan = read_plan(written(tmp_path, PLAN))
    names = [cell.name for cell in plan.cells]
    assert len(names) == len(set(names)) == 4 + 4 + 4 + 8
    assert {name for name in names if "/popularity/" in name} == {
        f"{data}/popularity/any-{seed}" for data in ("small", "other") for seed in (1, 2)
    }
    found = {cell.name: cell for cell in plan.cells}
    cell = found["small/distilled/gru-2"]
    assert cell.of["teacher_run_id"] is found["small/teacher/any-2"]
    assert names.index("small/teacher/any-2") < names.index("small/distilled/gru-2")
    assert cell.options == {
        "epochs": 1, "hidden_size": 8, "seed": 2, "new_items_seed": 2, "dataset": "ml-100k", "max_users": 50,
        "student": "gru4rec", "lam": 2.0,
    }  # fmt: skip
    # A step has only the options that it knows.
    assert found["small/popularity/any-1"].options == {"new_items_seed": 1, "dataset": "ml-100k", "max_users": 50}


def test_seeds_may_differ_by_data_set(tmp_path):
    plan = read_plan(written(tmp_path, PLAN.replace("seeds: [1, 2]\nrows", "seeds: {small: [1, 2], other: [4]}\nrows")))
    seeds = {(cell.row, cell.data, cell.seed) for cell in plan.cells}
    assert {(data, seed) for row, data, seed in seeds if row == "undistilled"} == {
        ("small", 1), ("small", 2), ("other", 4)
    }  # fmt: skip
    # A row's own seeds are those on all its data sets.
    assert {(data, seed) for row, data, seed in seeds if row == "teacher"} == {
        (data, seed) for data in ("small", "other") for seed in (1, 2)
    }


def test_parts_start_from_no_cell_of_each_other(tmp_path):
    cells = [cell for cell in read_plan(written(tmp_path, PLAN)).cells if "/teacher/" not in cell.name]
    parts = independent_parts(cells)
    assert [cell for part in parts for cell in sorted(part, key=cells.index)] == sorted(
        cells, key=lambda cell: next(number for number, part in enumerate(parts) if cell in part)
    )
    assert all(part == sorted(part, key=cells.index) for part in parts)
    names = [{one.name for cell in part for one in lineage(cell)} for part in parts]
    assert not any(first & second for place, first in enumerate(names) for second in names[:place])
    # What joins both students is a teacher, which is none of these cells.
    together = [{cell.name for cell in part} for part in parts if len(part) > 1]
    assert together == [{f"small/distilled/{student}-{seed}" for student in ("sasrec", "gru")} for seed in (1, 2)]
    assert len(parts) == len(cells) - 2


def test_cells_are_chosen_by_their_names_with_what_they_start_from(tmp_path):
    plan = read_plan(written(tmp_path, PLAN))
    assert cells_named(plan, "") == list(plan.cells)
    assert [cell.name for cell in cells_named(plan, "small/distilled/gru-2, other/*/any-1")] == [
        "small/teacher/any-2", "small/distilled/gru-2", "other/popularity/any-1", "other/teacher/any-1",
    ]  # fmt: skip
    parts = [cells_named(plan, f"*-{seed}") for seed in (1, 2)]
    assert sorted(cell.name for part in parts for cell in part) == sorted(cell.name for cell in plan.cells)
    for wrong in ("small/ids/*", "small/distilled/gru-2,,other/*", "gru-2"):
        with pytest.raises(InputError, match=r"^cells=[^,]*: fits no cell of plan.yaml; they are named .*, as other/"):
            cells_named(plan, wrong)


def test_all_rows_of_a_seed_come_before_the_next_seed(tmp_path):
    cells = read_plan(written(tmp_path, PLAN)).cells
    assert [(cell.data, cell.seed) for cell in cells] == sorted(
        ((cell.data, cell.seed) for cell in cells), key=lambda one: (["small", "other"].index(one[0]), one[1])
    )


def test_a_row_of_one_student_is_what_rows_of_all_start_from(tmp_path):
    own = "{step: teacher, students: [sasrec], of: {backbone_run_id: undistilled},"
    text = PLAN.replace("{step: teacher, students: [],", own)
    found = {cell.name: cell for cell in read_plan(written(tmp_path, text)).cells}
    teacher = found["small/teacher/sasrec-1"]
    assert teacher.of["backbone_run_id"] is found["small/undistilled/sasrec-1"]
    assert "small/teacher/gru-1" not in found
    for student in ("sasrec", "gru"):
        assert found[f"small/distilled/{student}-1"].of["teacher_run_id"] is teacher


def test_a_cells_key_is_of_all_it_depends_on(tmp_path):
    def keys(text: str) -> dict[str, str]:
        return {cell.name: cell.key for cell in read_plan(written(tmp_path, text)).cells}

    before = keys(PLAN)
    assert len(set(before.values())) == len(before)
    after = keys(PLAN.replace("token_budget: 10", "token_budget: 11"))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "/teacher/" in name or "/distilled/" in name}
    assert keys(PLAN + "margin: 0.02\n") == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lam: 2", "lamm: 2", "plan.yaml:11: lamm: row distilled: options has no such name; the nearest is lam"),
        ("lam: 2", "lam: -1", "plan.yaml:11: lam=-1.0: must be at least 0"),
        ("against: undistilled", "against: undestilled", "plan.yaml:15: against: undestilled: there is no such row"),
        ("teacher_run_id: teacher}", "teacher_run_id: techer}", "plan.yaml:11: of: techer: must be another row"),
        ("seeds: [1, 2]\nrows", "seeds: [1, 1]\nrows", "plan.yaml:8: seeds: list each seed once"),
        ("seeds: [1, 2]\nrows", "seeds: {small: [1]}\nrows", "plan.yaml:8: seeds: other has none; give one list"),
        ("seeds: [1, 2]\nrows", "seeds: {smal: [1]}\nrows", "smal: seeds has no such name; the nearest is small"),
        ("step: prepare", "step: sweep", "plan.yaml:10: step: sweep: must be one of prepare"),
        ("data: [small]", "data: []", "plan.yaml:11: data: row distilled lists none; list at least one"),
        ("  gru: {", "  any: {", "students: any: is what a row without a student is called; give another name"),
        ("data: [small]", "data: [smal]", "plan.yaml:11: data: smal: must be of small, other"),
        ("  popularity:", "  ../popularity:", "must be usable as the name of a folder"),
        ("options: {token_budget: 10}, seeds: [1, 2]", "seeds: [1]", "starts from small/teacher/sasrec-2, which"),
        ("step: backbone", "step: backbone, of: {teacher_run_id: teacher}", "teacher_run_id: of has no such name"),
        ("students: []}\n", "students: [], of: {run_id: x}}\n", "run_id: of has no such name"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path, old, new, said):
    assert old in PLAN
    with pytest.raises(InputError) as caught:
        read_plan(written(tmp_path, PLAN.replace(old, new, 1)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", ["data", "students", "rows"])
def test_a_plan_without_data_students_or_rows_is_refused(tmp_path, empty):
    parts = {"data": "{d: {}}", "students": "{s: {}}", "seeds": "[1]", "rows": "{r: {step: prepare}}"} | {empty: "{}"}
    with pytest.raises(InputError, match=f"{empty}: names none; give at least one"):
        read_plan(written(tmp_path, "".join(f"{name}: {value}\n" for name, value in parts.items())))


def test_rows_that_start_from_each_other_are_refused(tmp_path):
    text = PLAN.replace(
        "undistilled: {step: backbone}", "undistilled: {step: distill, of: {teacher_run_id: distilled}}"
    )
    text = text.replace("teacher_run_id: teacher", "teacher_run_id: undistilled")
    with pytest.raises(InputError, match="starts from itself"):
        read_plan(written(tmp_path, text))
