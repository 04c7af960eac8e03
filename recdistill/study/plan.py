"""The plan of a study, read from its YAML file, and its cells in the order in which they can be made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode

from recdistill.config.base import option_table
from recdistill.config.steps import STEPS, revision
from recdistill.config.yaml_file import Entries, FileNode, read_yaml, setting
from recdistill.errors import InputError

KEYS = ("shared", "data", "students", "seeds", "rows", "comparisons", "margin")
ROW_KEYS = ("step", "options", "of", "students", "data", "seeds", "says")
COMPARISON_KEYS = ("row", "against", "says")
#: The steps whose runs rank samples.
STEPS_OF_ROWS = ("prepare", "backbone", "teacher", "distill", "map_items")
NO_STUDENT = "any"
NAME_LENGTH = 16
Options = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A recommender of the study.

    Attributes:
        name: in tables.
        step: that makes it.
        options: of that step, beside those of the plan, the data set and the student.
        of: the rows whose runs it starts from, by the option that takes the run's id.
        students: the students it is made for; none where it is the same for all.
        seeds: its seeds on each data set that it is made on.
        says: what it is, in words.
    """

    name: str
    step: str
    options: Options
    of: Mapping[str, str]
    students: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    says: str


@dataclass(frozen=True)
class Comparison:
    """Two rows that are compared: is ``row`` better than ``against``."""

    row: str
    against: str
    says: str = ""


@dataclass(frozen=True)
class Cell:
    """One row for one data set, student and seed.

    Attributes:
        row, data, student, seed: which; ``student`` is `NO_STUDENT` where the row is the same for all students.
        step: that makes it.
        options: all options that the plan gives the step.
        of: the cells it starts from, by the option that takes the run's id.
    """

    row: str
    data: str
    student: str
    seed: int
    step: str
    options: Options = field(hash=False)
    of: "Mapping[str, Cell]" = field(hash=False)

    @property
    def name(self) -> str:
        """Such as ``ml-100k/undistilled/sasrec-1``."""
        return f"{self.data}/{self.row}/{self.student}-{self.seed}"

    @property
    def key(self) -> str:
        """A digest of all that the plan says of it, and of the revision of its step."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()[:NAME_LENGTH]

    @property
    def described(self) -> dict[str, Any]:
        """Step, revision, options, and the same of the cells that it starts from."""
        return {
            "step": self.step,
            "revision": revision(self.step),
            "options": self.options,
            "of": {name: cell.described for name, cell in self.of.items()},
        }


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        path: of its file.
        name: as a command names it.
        data, students: options of each data set and student, by name.
        rows: by name.
        comparisons: what is asked.
        margin: how much worse, as a share, still counts as *not below*.
        cells: in an order in which each comes after those that it starts from.
    """

    path: Path
    name: str
    data: Mapping[str, Options]
    students: Mapping[str, Options]
    rows: Mapping[str, Row]
    comparisons: tuple[Comparison, ...]
    margin: float
    cells: tuple[Cell, ...]


def read_plan(path: Path, called: str = "") -> Plan:
    """The plan of a file, by its name where it is ``called`` nothing else.

    Raises InputError, one line with file and line, for the first mistake.
    """
    root = read_yaml(path, "plan", "docs/STUDY.md")
    top = root.entries("a plan", KEYS)
    for name in ("data", "students", "seeds", "rows"):
        if name not in top:
            root.fail(f"{name}: missing; docs/STUDY.md shows a plan")
    shared = options_of(top["shared"][1], "shared") if "shared" in top else {}
    data = named_options(top["data"][1], "data")
    students = named_options(top["students"][1], "students")
    if NO_STUDENT in students:
        top["students"][1].fail(f"students: {NO_STUDENT}: is what a row without a student is called; give another name")
    seeds = seeds_by_data(top["seeds"][1], data)
    rows = read_rows(top["rows"][1], data, students, seeds)
    comparisons = read_comparisons(top["comparisons"][1], rows) if "comparisons" in top else ()
    margin = top["margin"][1].value(setting("margin", float, least=0)) if "margin" in top else 0.01
    found: dict[str, Cell] = {}
    ordered = in_order(rows)
    # By seed before row: a study that was stopped has all rows of its first seeds, which can be compared.
    every = sorted({seed for row in ordered for listed in row.seeds.values() for seed in listed})
    for dataset, seed in product(data, every):
        for row in ordered:
            if seed not in row.seeds.get(dataset, ()):
                continue
            for student in row.students or (NO_STUDENT,):
                cell = cell_of(row, dataset, student, seed, shared, data, students, found)
                found[cell.name] = cell
    return Plan(path, called or path.name, data, students, rows, comparisons, margin, tuple(found.values()))


def named_options(node: FileNode, what: str) -> dict[str, Options]:
    """Options by name: ``{ml-100k: {dataset: ml-100k}}``. Names are the file's own."""
    return {name: options_of(value, f"{what}: {name}") for name, value in any_entries(node, what).items()}


def any_entries(node: FileNode, what: str) -> dict[str, FileNode]:
    """Values by name, one at least, whatever the names; each must be usable as a folder's name."""
    pairs = node.content.value if isinstance(node.content, MappingNode) else []
    keys = [FileNode(node.path, key).text(f"a name in {what}") for key, _ in pairs]
    found = {name: value for name, (_, value) in node.entries(what, keys).items()}
    if not found:
        node.fail(f"{what}: names none; give at least one")
    for name in found:
        if not name or name in (".", "..") or any(sign in name for sign in '/\\:*?"<>|'):
            node.fail(f"{what}: {name!r} must be usable as the name of a folder")
    return found


def options_of(node: FileNode, what: str, step: str = "") -> Options:
    """Options of a step, of any without one, read by their types."""
    kinds = [STEPS[step]] if step else list(STEPS.values())
    table = {name: one for kind in kinds for name, one in option_table(kind).items()}
    if not step:
        # It takes every recommender, where steps that distil take those that are trained by gradient.
        table |= option_table(STEPS["backbone"])
    return {name: value.value(table[name]) for name, (_, value) in node.entries(what, table).items()}


def seeds_by_data(node: FileNode, data: Mapping[str, Options]) -> dict[str, tuple[int, ...]]:
    """The seeds of each data set: one list for all, or ``{ml-100k: [1, 2, 3], other: [1]}``, which names each."""
    if not isinstance(node.content, MappingNode):
        return dict.fromkeys(data, seeds_of(node))
    given = node.entries("seeds", data)
    for name in data:
        if name not in given:
            node.fail(f"seeds: {name} has none; give one list for all data sets, or one for each")
    return {name: seeds_of(given[name][1]) for name in data}


def seeds_of(node: FileNode) -> tuple[int, ...]:
    """``[1, 2, 3]``."""
    found = tuple(seed.value(setting("seeds", int, least=0)) for seed in node.items("seeds"))
    if not found or len(set(found)) < len(found):
        node.fail("seeds: list each seed once, and at least one")
    return found


def read_rows(
    node: FileNode,
    data: Mapping[str, Options],
    students: Mapping[str, Options],
    seeds: Mapping[str, tuple[int, ...]],
) -> dict[str, Row]:
    """The rows by name."""
    nodes = any_entries(node, "rows")
    found = {}
    for name, value in nodes.items():
        given = value.entries(f"row {name}", ROW_KEYS)
        if "step" not in given:
            value.fail(f"row {name}: step is missing; one of {', '.join(STEPS_OF_ROWS)}")
        step = given["step"][1].text("step")
        if step not in STEPS_OF_ROWS:
            given["step"][0].fail(f"step: {step}: must be one of {', '.join(STEPS_OF_ROWS)}")
        options = options_of(given["options"][1], f"row {name}: options", step) if "options" in given else {}
        of: dict[str, str] = {}
        if "of" in given:
            for option, (key, other) in given["of"][1].entries("of", option_table(STEPS[step])).items():
                of[option] = other.text("of")
                if of[option] not in nodes or of[option] == name:
                    key.fail(f"of: {of[option]}: must be another row")
        own = dict.fromkeys(data, seeds_of(given["seeds"][1])) if "seeds" in given else seeds
        datasets = chosen(given, "data", data)
        if not datasets:
            given["data"][0].fail(f"data: row {name} lists none; list at least one, or leave it out")
        found[name] = Row(
            name=name,
            step=step,
            options=options,
            of=of,
            students=chosen(given, "students", students),
            seeds={dataset: own[dataset] for dataset in datasets},
            says=given["says"][1].text("says") if "says" in given else "",
        )
    return found


def chosen(given: Entries, name: str, known: Mapping[str, Options]) -> tuple[str, ...]:
    """The names that a row lists, all where it lists none."""
    if name not in given:
        return tuple(known)
    listed = tuple(node.text(name) for node in given[name][1].items(name))
    for one in listed:
        if one not in known:
            given[name][0].fail(f"{name}: {one}: must be of {', '.join(known)}")
    return listed


def read_comparisons(node: FileNode, rows: Mapping[str, Row]) -> tuple[Comparison, ...]:
    """``[{row: distilled, against: undistilled}]``."""
    found = []
    for entry in node.items("comparisons"):
        given = entry.entries("a comparison", COMPARISON_KEYS)
        names = {}
        for side in ("row", "against"):
            if side not in given:
                entry.fail(f"comparisons: {side} is missing")
            names[side] = given[side][1].text(side)
            if names[side] not in rows:
                given[side][0].fail(f"{side}: {names[side]}: there is no such row")
        found.append(Comparison(**names, says=given["says"][1].text("says") if "says" in given else ""))
    return tuple(found)


def in_order(rows: Mapping[str, Row]) -> list[Row]:
    """Each row after those that it starts from. Raises InputError where rows start from each other."""
    ordered: dict[str, Row] = {}
    while len(ordered) < len(rows):
        ready = [row for row in rows.values() if row.name not in ordered and set(row.of.values()) <= ordered.keys()]
        if not ready:
            name = next(name for name in rows if name not in ordered)
            raise InputError(f"row {name}: starts from itself; see `of`")
        ordered |= {row.name: row for row in ready}
    return list(ordered.values())


def cell_of(
    row: Row,
    dataset: str,
    student: str,
    seed: int,
    shared: Options,
    data: Mapping[str, Options],
    students: Mapping[str, Options],
    made: Mapping[str, Cell],
) -> Cell:
    """One cell; the draw of new items changes with the seed.

    Raises InputError where the plan does not make what it starts from.
    """
    known = option_table(STEPS[row.step])
    drawn = {"seed": seed, "new_items_seed": seed}
    given = shared | drawn | data[dataset] | students.get(student, {})
    # Options that a step does not have are those of the steps it starts from; a row's own are meant for it.
    options = {name: value for name, value in given.items() if name in known} | row.options
    of = {}
    for option, other in row.of.items():
        found = [one for one in made.values() if (one.data, one.row, one.seed) == (dataset, other, seed)]
        # A row that is made for one student, or for none, is the same for all.
        own = found if len(found) == 1 else [one for one in found if one.student == student]
        if not own:
            name = f"{dataset}/{other}/{student}-{seed}"
            raise InputError(f"row {row.name}: starts from {name}, which the plan does not make")
        of[option] = own[0]
    return Cell(row.name, dataset, student, seed, row.step, options, of)


def cells_named(plan: Plan, patterns: str) -> list[Cell]:
    """The cells whose names fit a pattern, and those that they start from, in the plan's order.

    Args:
        plan: the study.
        patterns: joined by commas, as ``ml-100k/*/sasrec-1,*/ids/*``; empty for all cells.

    Raises:
        InputError: no cell fits a pattern.
    """
    if not patterns:
        return list(plan.cells)
    named: set[str] = set()
    for pattern in (one.strip() for one in patterns.split(",")):
        fitting = [cell for cell in plan.cells if fnmatchcase(cell.name, pattern)]
        if not fitting:
            raise InputError(
                f"cells={pattern}: fits no cell of {plan.name}; they are named data set/row/student-seed, "
                f"as {plan.cells[-1].name}"
            )
        named |= {one.name for cell in fitting for one in lineage(cell)}
    return [cell for cell in plan.cells if cell.name in named]


def independent_parts(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells in parts that start from no cell of each other, each part and its cells in the order given."""
    part_of: dict[str, int] = {}
    parts: dict[int, list[Cell]] = {}
    for number, cell in enumerate(cells):
        joined = [cell]
        for other in {part_of[one.name] for one in lineage(cell) if one.name in part_of}:
            joined = [*parts.pop(other), *joined]
        parts[number] = joined
        part_of |= {one.name: number for member in joined for one in lineage(member)}
    order = {cell.name: place for place, cell in enumerate(cells)}
    sorted_parts = [sorted(part, key=lambda cell: order[cell.name]) for part in parts.values()]
    return sorted(sorted_parts, key=lambda part: order[part[0].name])


def lineage(cell: Cell) -> list[Cell]:
    """A cell and all that it starts from."""
    return [cell, *(one for other in cell.of.values() for one in lineage(other))]
