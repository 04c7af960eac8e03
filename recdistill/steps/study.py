"""``study``: make the cells of a plan that are missing, each an ordinary run, and write the report."""

import importlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from recdistill.config import StudyConfig
from recdistill.config.base import changed, config_of
from recdistill.config.paths import place_to_write
from recdistill.config.steps import STEPS
from recdistill.errors import InputError
from recdistill.plugins import load_plugins
from recdistill.report.finding import Finding
from recdistill.report.study_figure import Panels, study_figure
from recdistill.report.study_page import StudyPicture, StudyReport, study_page
from recdistill.runs.provenance import code_at_hand
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.runs.store_name import store_name
from recdistill.runs.sweep_runs import tracking_place
from recdistill.steps.estimate import announce
from recdistill.steps.inputs import data_of, texts_in_key
from recdistill.steps.main_report import finding_of
from recdistill.steps.path_bar import PathBar
from recdistill.students.training import check_student
from recdistill.study.cells import CellResult, cells_to_make, read_cell, write_cell
from recdistill.study.contents import AtHand, Contents
from recdistill.study.plan import Cell, Plan, cells_named, independent_parts, read_plan
from recdistill.study.report import (
    METRICS,
    NAME,
    TITLES,
    Answer,
    Found,
    answers,
    columns_of_rows,
    footing,
    found_chance,
    heading,
    lines_of_rows,
    write_report,
)
from recdistill.sweep.shipped import plan_path
from recdistill.sweep.trainings import Preparation
from recdistill.sweep.workers import map_tasks
from recdistill.teachers.checks import check_teacher
from recdistill.whole_files import write_text

STUDENT_STEPS = ("backbone", "distill")
FIGURES = ("new_among_new", "all")
OUTDATED = "kept for other data, files or plugins than today's, and not counted:"


def study(config: StudyConfig) -> StepRun:
    """Make what is missing, and write the report; see docs/STUDY.md."""
    load_plugins(config.plugin)
    plan = read_plan(plan_path(config.plan), config.plan)
    folder = place_to_write(config, "results")
    target = place_to_write(config, "report") if config.report else folder / "report.md"
    at_hand, named = AtHand(data_of, texts_in_key), cells_named(plan, config.cells)
    absent = cells_to_make(plan.cells, folder, at_hand)
    names = {cell.name for cell in absent}
    finished = sum(cell.name not in names for cell in named)
    own = f", {finished} of the {len(named)} of `cells`" if config.cells else ""
    print(f"study: {len(plan.cells) - len(absent)} of {len(plan.cells)} cells are finished{own}", flush=True)
    outdated = [cell.name for cell in absent if read_cell(folder, cell) is not None]
    if outdated:
        print(f"study: {OUTDATED} {', '.join(outdated)}", flush=True)
    missing = cells_to_make(named, folder, at_hand, force=config.force)
    check_cells(missing)
    if missing and config.most_cells:
        announce("study", config)
    # A finished study is opened again: its report is written anew, from cells that may have come from elsewhere.
    # Who makes other cells, or only wants the report, does not wait for the process that makes these.
    making = {"cells": config.cells} if config.most_cells else {"report only": True}
    with step_run("study", changed(config, force=True), data="", contents=making) as run:
        make_cells(config, folder, missing, run.run_id)
        text, page = report_files(plan, folder, target)
        run.log_text("report.md", text)
        run.log_text("report.html", page)
        # A store takes no tag as long as the whole.
        run.describe(text.partition("\n## ")[0])
        print(f"study: {target}, {target.with_suffix('.html')}", flush=True)
    return run


def check_cells(cells: list[Cell]) -> None:
    """Raise InputError for the first cell whose options cannot be used, before any is made.

    Seeds change nothing of it: of the cells that differ by the seed alone, the student or teacher of the first is
    looked at. It reads each data set once.
    """
    num_items: dict[str, int] = {}
    seen: set[tuple[str, str, str]] = set()
    for cell in cells:
        try:
            config = config_of_cell(cell, {name: "" for name in cell.of})
            if (cell.row, cell.data, cell.student) in seen:
                continue
            seen.add((cell.row, cell.data, cell.student))
            if cell.step in STUDENT_STEPS:
                if cell.data not in num_items:
                    num_items[cell.data] = data_of(config).num_items
                check_student(config, num_items[cell.data])
            elif cell.step == "teacher":
                check_teacher(config)
        except InputError as error:
            raise InputError(f"row {cell.row}: {error}") from None


def config_of_cell(cell: Cell, runs: dict[str, str]) -> Any:
    """The options of a cell's step, with the ids of the runs that it starts from."""
    return config_of(STEPS[cell.step], cell.options | runs)


def make_cells(config: StudyConfig, folder: Path, missing: list[Cell], study_run_id: str) -> None:
    """Make missing cells, as many as are wanted: in the plan's order, or in several processes."""
    wanted = missing if config.most_cells < 0 else missing[: config.most_cells]
    parts = independent_parts(wanted)
    if config.jobs > 1 and len(parts) > 1:
        prepare = Preparation(tracking_place(), config.plugin, study_run_id)
        map_tasks(partial(make_part, folder, kept_runs(wanted, folder), config.force), parts, config.jobs, prepare)
        return
    bar = PathBar("study", len(wanted))
    with bar.shown():
        make_each(wanted, folder, "study", bar.say, bar.done, force=config.force)


def kept_runs(cells: list[Cell], folder: Path) -> dict[str, str]:
    """The run of each cell that is kept, by the cell's name."""
    kept = {cell.name: read_cell(folder, cell) for cell in cells}
    return {name: result.run_id for name, result in kept.items() if result is not None}


def make_part(folder: Path, before: Mapping[str, str], force: bool, part: list[Cell]) -> None:
    """Make those of a part's cells that nobody made before, as a worker killed amid the part.

    With ``force`` those whose kept run is still the one ``before`` the command.
    """
    again = {name for name, run_id in kept_runs(part, folder).items() if before.get(name) == run_id}
    absent = {cell.name for cell in cells_to_make(part, folder, AtHand(data_of, texts_in_key))}
    missing = [cell for cell in part if cell.name in absent or (force and cell.name in again)]
    # A bar a process would write over the others'.
    make_each(missing, folder, f"study, seed {part[0].seed}", partial(print, flush=True), lambda: None, force=force)


def make_each(
    wanted: list[Cell],
    folder: Path,
    name: str,
    say: Callable[[str], None],
    done: Callable[[], None],
    *,
    force: bool = False,
) -> None:
    """Make cells in this order, saying before each how long the others will take, and calling ``done`` after it.

    With ``force`` they are run again even where a finished run fits; what they start from is found.
    """
    runs: dict[str, StepRun] = {}
    taken: list[float] = []
    forced = {cell.name for cell in wanted} if force else set()
    at_hand = AtHand(data_of, texts_in_key)
    for cell in wanted:
        # Files and plugins as this process has them from now on.
        at_hand.files(cell)
    for number, cell in enumerate(wanted, start=1):
        left = f", about {statistics.fmean(taken) * (len(wanted) - number + 1) / 60:,.0f} minutes left" if taken else ""
        say(f"[{name} {number}/{len(wanted)}{left}] {cell.name}")
        started = time.perf_counter()
        contents = at_hand.of(cell)
        run = made(cell, runs, forced)
        seconds = time.perf_counter() - started
        taken.append(seconds)
        ranks = pd.read_parquet(run.artifact("ranks") / "test.parquet")
        upstream = {option: runs[other.name].run_id for option, other in cell.of.items()}
        write_cell(folder, cell, result_of(cell, run, seconds, upstream, contents), ranks)
        done()


def made(cell: Cell, runs: dict[str, StepRun], forced: Collection[str] = ()) -> StepRun:
    """The run of a cell, found or, as of those ``forced``, made, and before it those of the cells it starts from."""
    if cell.name not in runs:
        upstream = {option: made(other, runs, forced).run_id for option, other in cell.of.items()}
        step: Callable[[Any], StepRun] = getattr(importlib.import_module(f"recdistill.steps.{cell.step}"), cell.step)
        config = config_of_cell(cell, upstream)
        runs[cell.name] = step(changed(config, force=True) if cell.name in forced else config)
    return runs[cell.name]


def result_of(cell: Cell, run: StepRun, seconds: float, upstream: dict[str, str], contents: Contents) -> CellResult:
    """What is kept of a finished cell; ``upstream`` as of `CellResult`, ``contents`` what it was made of."""
    code = code_at_hand()
    return CellResult(
        key=cell.key,
        run_id=run.run_id,
        store=store_name(),
        metrics=run.metrics(),
        seconds=0.0 if run.reused else seconds,
        options=cell.options,
        fingerprint=run.fingerprint,
        versions=dict(code.versions),
        commit=code.commit,
        machine=f"{processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads",
        upstream=upstream,
        files=contents.files,
        undrawn=contents.undrawn,
    )


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report_files(plan: Plan, folder: Path, target: Path) -> tuple[str, str]:
    """Write the report, its pictures and its page. Returns the report's text and the page."""
    found = Found.read(plan, folder, AtHand(data_of, texts_in_key))
    given = answers(found, folder)
    addresses: list[str] = []
    pictures: list[StudyPicture] = []
    for part in FIGURES:
        panels: Panels = {
            f"{data}, {student}": {row: found.values(row, data, student, METRICS[part]) for row in plan.rows}
            for data in plan.data
            for student in plan.students
        }
        panels = {title: rows for title, rows in panels.items() if any(rows.values())}
        if not panels:
            continue
        lines = {title: found_chance(found, title.rpartition(", ")[0]) for title in panels}
        chance = {title: value for title, value in lines.items() if value is not None and part == "new_among_new"}
        pictures.append(StudyPicture(f"{NAME}, {TITLES[part]}", panels, chance))
        name = f"{target.stem}_{part}.svg"
        write_text(target.parent / name, study_figure(panels, f"{NAME}, {TITLES[part]}", chance))
        addresses.append(name)
    text = write_report(found, given, addresses)
    write_text(target, text)
    page = study_page(page_of(found, given, pictures))
    write_text(target.with_suffix(".html"), page)
    return text, page


def page_of(found: Found, given: list[Answer], pictures: list[StudyPicture]) -> StudyReport:
    """What the page shows: the same as the report's text."""
    findings: dict[str, list[Finding]] = {}
    for one in given:
        comparison, place = one.comparison, f"{one.data}, {one.student}"
        target = TITLES[one.difference.part]
        finding = finding_of(comparison.row, comparison.against, target, one.difference)
        findings.setdefault(place, []).append(finding)
    places = [(data, student) for data in found.plan.data for student in found.plan.students]
    rows = {f"{data}, {student}": lines_of_rows(found, data, student) for data, student in places}
    finished, planned = len(found.results), len(found.plan.cells)
    return StudyReport(
        title=f"Study {found.plan.path.stem}",
        sentences=[f"{finished} of {planned} cells are finished: rows by data set, student and seed."],
        findings=findings,
        metric=NAME,
        pictures=pictures,
        columns=columns_of_rows(),
        rows={place: lines for place, lines in rows.items() if lines},
        how_to_read=[text.replace("*", "") for text in (*heading(found), *footing(found)) if text],
    )
