"""The report of a study in Markdown: what each row reached, and what may be said of the differences."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from recdistill.config import config_of
from recdistill.config.steps import STEPS
from recdistill.errors import InputError
from recdistill.evaluation import part_metrics
from recdistill.evaluation.paired_tests import p_value_text
from recdistill.study.cells import CellResult, read_cell, read_ranks
from recdistill.study.comparisons import CUT_OFF, METRIC, PARTS, SPARSE, Difference, corrected, difference, undecided
from recdistill.study.contents import AtHand
from recdistill.study.plan import NO_STUDENT, Cell, Comparison, Plan
from recdistill.study.terms import terms_of_rows

NAME = f"{METRIC.upper()}@{CUT_OFF}"
METRICS = {
    "all": f"test/{METRIC}_at_{CUT_OFF}",
    "warm": f"test/warm/{METRIC}_at_{CUT_OFF}",
    "new": f"test/new/{METRIC}_at_{CUT_OFF}",
    "new_among_new": f"test/new_among_new/{METRIC}_at_{CUT_OFF}",
}
#: What a row takes, by its title: of its machine, which may be another for each cell.
TIMES = (("training, s", "train_seconds"), ("1,000 recommendations, ms", "ms_per_1000_recommendations"))
CHANCE, RANKED_AMONG = f"test/{part_metrics.CHANCE}", f"test/{part_metrics.RANKED_AMONG}"
TITLES = {
    "all": "all targets",
    "warm": "trained targets",
    "sparse": f"targets trained at most {SPARSE} times",
    "new": "new targets, whole catalogue",
    "new_among_new": "new targets, among the new",
}


@dataclass(frozen=True)
class Found:
    """The finished cells of a study.

    Attributes:
        plan: of the study.
        results: of each finished cell, by its name.
    """

    plan: Plan
    results: Mapping[str, CellResult]

    @classmethod
    def read(cls, plan: Plan, folder: Path, at_hand: AtHand | None = None) -> "Found":
        """From the files of the cells; with ``at_hand`` without those of other data or files than today's."""
        read = {cell.name: read_cell(folder, cell, at_hand) for cell in plan.cells}
        return cls(plan, {name: result for name, result in read.items() if result is not None})

    def finished(self, row: str, data: str, student: str) -> list[Cell]:
        """The finished cells of a row, by seed; those of a row that is the same for all students count for each."""
        of = (student, NO_STUDENT)
        chosen = [c for c in self.plan.cells if c.row == row and c.data == data and c.student in of]
        return sorted((cell for cell in chosen if cell.name in self.results), key=lambda cell: cell.seed)

    def values(self, row: str, data: str, student: str, metric: str) -> list[float]:
        """A metric of each seed."""
        metrics = [self.results[cell.name].metrics for cell in self.finished(row, data, student)]
        return [found[metric] for found in metrics if metric in found]


@dataclass(frozen=True)
class Answer:
    """A comparison on one data set with one student."""

    comparison: Comparison
    data: str
    student: str
    difference: Difference


def answers(found: Found, folder: Path) -> list[Answer]:
    """Every comparison of the plan whose cells are finished, in every part, corrected over the study.

    Raises InputError where cells of one row, or of two that are compared, are of other data.
    """
    asked: list[Answer] = []
    for comparison in found.plan.comparisons:
        rows = [found.plan.rows[name] for name in (comparison.row, comparison.against)]
        # Two rows that are the same for all students are compared once.
        students = list(found.plan.students) if any(row.students for row in rows) else list(found.plan.students)[:1]
        for data in found.plan.data:
            for student in students:
                pairs = shared_seeds(found, comparison, data, student)
                check_data(found, pairs)
                ranks = [[read_ranks(folder, pair[side]) for pair in pairs] for side in (0, 1)]
                both = [planned_seeds(found, name, data) for name in (comparison.row, comparison.against)]
                planned = len(set.intersection(*both))
                for part in PARTS if pairs else ():
                    one = difference(ranks[0], ranks[1], part, found.plan.margin)
                    if one is not None:
                        asked.append(Answer(comparison, data, student, undecided(one, planned)))
    check_rows(found)
    adjusted = corrected([answer.difference for answer in asked])
    return [
        Answer(answer.comparison, answer.data, answer.student, one) for answer, one in zip(asked, adjusted, strict=True)
    ]


def planned_seeds(found: Found, row: str, data: str) -> set[int]:
    """Seeds that the plan has of a row on one data set."""
    return {cell.seed for cell in found.plan.cells if (cell.row, cell.data) == (row, data)}


def check_rows(found: Found) -> None:
    """Raise InputError where the seeds of a row, whose mean the report has, are of other data."""
    for row, data, student in product(found.plan.rows, found.plan.data, found.plan.students):
        known = [(cell, undrawn(found, cell)) for cell in found.finished(row, data, student)]
        known = [(cell, of) for cell, of in known if of]
        for other, of in known[1:]:
            check_same(known[0][0], other, known[0][1], of)


def undrawn(found: Found, cell: Cell) -> str:
    """Fingerprint of a cell's data before new items were drawn, alike for all seeds; empty where it was not kept."""
    result = found.results[cell.name]
    return result.undrawn or ("" if cell.options.get("new_items") else result.fingerprint)


def check_data(found: Found, pairs: Sequence[tuple[Cell, Cell]]) -> None:
    """Raise InputError where cells that are compared are of other data, as of a file that has grown since."""
    for one, other in pairs:
        check_same(one, other, found.results[one.name].fingerprint, found.results[other.name].fingerprint)


def check_same(one: Cell, other: Cell, data: str, other_data: str) -> None:
    """Raise InputError where the fingerprints of two cells' data differ."""
    if data != other_data:
        raise InputError(
            f"results: {one.name} and {other.name} are of other data; delete the .json of the one that is not of "
            "today's data, and make it again"
        )


def shared_seeds(found: Found, comparison: Comparison, data: str, student: str) -> list[tuple[Cell, Cell]]:
    """The finished cells of both rows, by seed, where both have it."""
    sides = [{c.seed: c for c in found.finished(row, data, student)} for row in (comparison.row, comparison.against)]
    return [(sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys())]


def write_report(found: Found, given: Sequence[Answer], figures: Sequence[str]) -> str:
    """The whole report.

    Args:
        found: the finished cells.
        given: their `answers`.
        figures: addresses of the pictures, beside the report.
    """
    lines = ["# Results", "", *heading(found), ""]
    lines += [f"![{NAME} of each row]({address})" for address in figures]
    for data in found.plan.data:
        for student in found.plan.students:
            rows = table_of_rows(found, data, student)
            if rows:
                lines += ["", f"## {data}, {student}", "", *rows]
            own = [answer for answer in given if (answer.data, answer.student) == (data, student)]
            if own:
                lines += ["", f"### {data}, {student}: compared", "", *table_of_answers(own)]
    return "\n".join([*lines, "", *footing(found)]) + "\n"


def heading(found: Found) -> list[str]:
    """What was measured and how to read it."""
    finished, planned = len(found.results), len(found.plan.cells)
    return [
        f"Written by `recdistill study --plan {found.plan.name}` from {finished} finished cells of {planned}. "
        f"All numbers are {NAME} on test samples, mean ± standard deviation over seeds (their number in brackets). "
        "*New* items took no part in training; *chance* is what a random order of the new items reaches. Ties are "
        "lost: a row that gives all new items one score, as those that know clicks alone (popularity, ItemKNN, EASE), "
        "is at 0 among them, not at chance.",
        "",
        "A difference has three 95 % intervals: over users, over items and over seeds. p is the larger one of users "
        "and items, after Holm's correction over all comparisons below; the seeds must agree, too (three or more by "
        "their own interval; a single one of several decides nothing). *unclear* means that chance explains a "
        f"difference; *not below* that a loss of more than {100 * found.plan.margin:g} % is ruled out (one-sided, 5 %, "
        "after the same correction), by the seeds, too (three or more by their own interval; of two neither loses "
        "more).",
    ]


def columns_of_rows() -> list[str]:
    """Titles of the table of rows."""
    return ["row", *(TITLES[part] for part in METRICS), *(title for title, _ in TIMES), ""]


def lines_of_rows(found: Found, data: str, student: str) -> list[list[str]]:
    """Each row's metrics, cells as text, and chance among new items; empty where no cell is finished."""
    lines = []
    for row in found.plan.rows.values():
        if found.finished(row.name, data, student):
            cells = [summary(found.values(row.name, data, student, metric)) for metric in METRICS.values()]
            times = [found.values(row.name, data, student, metric) for _, metric in TIMES]
            cells += [f"{statistics.fmean(values):,.0f}" if values else "" for values in times]
            lines.append([row.name, *cells, row.says])
    chance = found_chance(found, data)
    if lines and chance is not None:
        lines.append(["*chance*", "", "", "", f"{chance:.4f}", *[""] * len(TIMES), ""])
    return lines


def table_of_rows(found: Found, data: str, student: str) -> list[str]:
    """The same as a Markdown table."""
    made = [list(map(in_table, cells)) for cells in lines_of_rows(found, data, student)]
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in made]
    head = f"| {' | '.join(columns_of_rows())} |"
    return [head, f"|---|{'---:|' * (len(METRICS) + len(TIMES))}---|", *lines] if lines else []


def in_table(text: str) -> str:
    """A text as a cell of a Markdown table: neither a line break nor a bar within it begins another cell.

    >>> print(in_table("a | b"))
    a \\| b
    """
    return " ".join(text.split()).replace("|", "\\|")


def found_chance(found: Found, data: str) -> float | None:
    """Chance among new items, mean over the draws.

    Where histories hold new items, which is so where none were drawn, cells of earlier versions have a chance that is
    too low (`evaluation.part_metrics`): they do not count beside one that has the right one.
    """
    cells = [result.metrics for name, result in found.results.items() if name.startswith(f"{data}/")]
    values = [metrics for metrics in cells if CHANCE in metrics]
    marked = [metrics for metrics in values if RANKED_AMONG in metrics]
    return statistics.fmean(metrics[CHANCE] for metrics in marked or values) if values else None


def summary(values: Sequence[float]) -> str:
    """``0.1553 ± 0.0021 (5)``; no deviation of a single value; nothing of none."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread} ({len(values)})"


def table_of_answers(given: Iterable[Answer]) -> list[str]:
    """Comparisons as a Markdown table."""
    head = "| row | against | on | difference | by users | by items | by seeds | p (Holm) | |"
    lines = [head, "|---|---|---|---:|---|---|---|---:|---|"]
    for answer in given:
        one = answer.difference
        relative = "" if math.isnan(one.relative) else f" ({one.relative:+.1%})"
        intervals = [
            "" if math.isnan(by.deviation) else f"{by.low:+.4f} to {by.high:+.4f}"
            for by in (one.by_user, one.by_item, one.by_seed)
        ]
        named = (answer.comparison.row, answer.comparison.against, TITLES[one.part])
        told = (f"{one.difference:+.4f}{relative}", *intervals, p_value_text(one.adjusted), one.verdict)
        lines.append(f"| {' | '.join(map(in_table, (*named, *told)))} |")
    return lines


#: Where the store was lost, or is of another machine, what cells start from is made again, and comes out otherwise.
ELSEWHERE = (
    "Started from another making of what they start from than the kept one, so that beside others from there they also "
    "differ by a training:"
)


def starts_elsewhere(found: Found, cell: Cell) -> bool:
    """Whether a cell started from another run than the one that is kept of a cell that it starts from."""
    started = found.results[cell.name].upstream
    kept = {option: found.results.get(other.name) for option, other in cell.of.items()}
    return any(one is not None and started.get(option, one.run_id) != one.run_id for option, one in kept.items())


def footing(found: Found) -> list[str]:
    """Terms of the language models, store, versions and machines."""
    results = list(found.results.values())
    if not results:
        return ["No cell is finished yet."]

    def listed(values: Iterable[str]) -> str:
        return "; ".join(sorted(set(values)))

    versions = listed(", ".join(f"{name} {v}" for name, v in sorted(result.versions.items())) for result in results)
    made = [cell for cell in found.plan.cells if cell.name in found.results]
    terms = terms_of_rows(config_of(STEPS[cell.step], cell.options) for cell in made)
    apart = [cell.name for cell in made if starts_elsewhere(found, cell)]
    return [
        *([f"Made with language models: {terms}", ""] if terms else []),
        *([f"{ELSEWHERE} {', '.join(apart)}.", ""] if apart else []),
        f"Commits: {listed(result.commit[:12] for result in results)}. Machines: "
        f"{listed(result.machine for result in results)}.",
        "",
        f"Stores: {listed(result.store for result in results)}.",
        "",
        f"Versions: {versions}.",
    ]
