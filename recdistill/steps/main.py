"""``main``: from ratings to a distilled student beside its teacher, its undistilled twin and simple baselines."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from recdistill.config import (
    BaselineConfig,
    Config,
    DataConfig,
    DistillConfig,
    MainConfig,
    changed,
    narrow,
)
from recdistill.config.teacher import reads_llm
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.evaluation.some_users import over_all
from recdistill.runs.compared_runs import place_of
from recdistill.runs.finished_runs import finished_run, run_of
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill
from recdistill.steps.estimate import announce
from recdistill.steps.examples import log_examples, tables_of
from recdistill.steps.inputs import data_of
from recdistill.steps.main_report import REPORT, log_report
from recdistill.steps.path_bar import PathBar
from recdistill.steps.prepare import prepare
from recdistill.steps.promote import promote_run
from recdistill.steps.registered import registered
from recdistill.steps.side_by_side import trained_side_by_side
from recdistill.steps.student_start import whole_path_contents
from recdistill.steps.teacher import check_teacher_of, teacher_run
from recdistill.steps.time_budget import within_time
from recdistill.steps.worth import (
    TEACHER,
    TEXTS,
    Runs,
    answer,
    check_control,
    control_of,
    fitted_baseline,
    from_texts,
    has_control,
    mark_control,
    price_of,
    text_maps,
    text_rows,
    told_in_main,
)
from recdistill.students.training import check_student
from recdistill.study.worth import BOTH, IDS, UNTAUGHT
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes, join

Options = TypeVar("Options", bound=Config)
RANKING = [f"{part}/{metric}_at_{k}" for part in ("val", "test") for metric in ("hr", "ndcg") for k in (10, 20)]
#: Columns where data have new items, by their titles.
APART = {
    "warm NDCG@20": "test/warm/ndcg_at_20",
    "new NDCG@20": "test/new/ndcg_at_20",
    "among new": "test/new_among_new/ndcg_at_20",
}

#: What became of a step that found its run: of an earlier command, or of a process of this one.
BEFORE, BESIDE = "was finished before", "was trained beside the other"
HEADLINE = "test/ndcg_at_10"
#: Metric of the paired test that promotes.
PROMOTED_BY = "test/ndcg_at_20"
#: How much below still counts as not below, as a share, where the LLM's worth is told.
MARGIN = 0.01
MOST_WIDTH = 1000
ARTIFACTS = (
    "Artifacts: report.html, all of this on one page, with what each recommends to ten users and whom each serves well."
)


@dataclass(frozen=True)
class Row:
    """A recommender of the final table.

    Attributes:
        name: what the table calls it.
        run_id: of its run.
        metrics: of its run.
        users: whose samples these are of, where they are not all users.
        shared: NDCG@10 on the test samples that all rows ranked; None where all ranked all.
    """

    name: str
    run_id: str
    metrics: dict[str, float]
    users: int = 0
    shared: float | None = None

    @classmethod
    def of(cls, name: str, run: StepRun) -> "Row | None":
        """That of a run; None where it ranked nothing, as a teacher behind a server."""
        metrics = run.metrics()
        if HEADLINE in metrics:
            return cls(name, run.run_id, metrics)
        of_some = over_all(metrics)
        return cls(name, run.run_id, metrics | of_some, int(of_some["test/users"])) if of_some else None

    @property
    def label(self) -> str:
        """Its name, with the users where they are not all."""
        return f"{self.name} ({self.users:,} users)" if self.users else self.name

    def cells(self, apart: bool) -> list[str]:
        """Its name, metrics (those of warm and new targets ``apart``), training time and speed, as text."""
        ranking = [f"{self.metrics[name]:.4f}" for name in RANKING]
        if apart:
            ranking += [f"{self.metrics[name]:.4f}" if name in self.metrics else "" for name in APART.values()]
        seconds, speed = (self.metrics.get(name) for name in ("train_seconds", "ms_per_1000_recommendations"))
        return [
            self.label,
            *ranking,
            "" if seconds is None else f"{seconds:,.0f}",
            "" if speed is None else f"{speed:,.0f}",
        ]


RANKED = [name.replace("/", " ").replace("_at_", "@").replace("ndcg", "NDCG").replace("hr", "HR") for name in RANKING]


def has_new(rows: Sequence[Row]) -> bool:
    """Whether new targets were measured apart."""
    return any(name in row.metrics for row in rows for name in APART.values())


def header(apart: bool) -> list[str]:
    """Titles of the columns."""
    return ["", *RANKED, *(APART if apart else ()), "train s", "ms / 1,000"]


def main(config: MainConfig) -> StepRun:
    """Run every step, or find what it made before, and put the results side by side.

    Started by ``accelerate launch`` or torchrun, several processes train together; the main one has the runs.
    """
    processes = join(device_of(config))
    data = processes.main_first(lambda: data_of(config))
    processes.from_main(lambda: check_student(config, data.num_items, processes))
    processes.from_main(lambda: check_teacher_of(config, data))
    processes.from_main(lambda: check_control(config))
    config = processes.from_main(lambda: within_time(config))
    contents = processes.from_main(lambda: whole_path_contents(config, data))
    with processes.main_enters(step_run("main", config, data=data, contents=contents)) as run:
        if not run.reused:
            expected = processes.from_main(lambda: announce("main", config).seconds)
            silent = not processes.is_main
            steps = 4 + len(config.baseline_names) + told_in_main(config)
            steps += processes.from_main(lambda: has_control(config))
            with PathBar("main", steps, expected, silent=silent).shown() as bar:
                found = all_steps(config, bar, processes, run.run_id)
            processes.from_main(lambda: keep_results(run, config, data, found))
    if not processes.is_main:
        return run
    distilled = run_of(run.run_id).data.tags["recdistill.distilled_run_id"]
    if config.register and run.reused:
        # A run that is made registers its student on the way.
        registered(finished_run(distilled, "distill"), config.register)
    if config.promote:
        promote_run(distilled, config.register, PROMOTED_BY, config.seed)
    rows = [Row(**values) for values in json.loads(run.artifact("results.json").read_text(encoding="utf-8"))]
    show(rows)
    print(headline(rows))
    print(run.artifact("worth.md").read_text(encoding="utf-8"), flush=True)
    print(f"the report: {place_of(run, REPORT)}", flush=True)
    return run


def all_steps(config: MainConfig, bar: PathBar, processes: Processes, run_id: str) -> dict[str, StepRun]:
    """The run of each recommender of the table, by its name there; of other processes they are nested in ``run_id``."""
    begin = partial(begun, bar)
    prepared = partial(by_main, processes, prepare)
    found = {"popularity": begin("1/4 data", prepared, narrow(config, DataConfig))}
    for name in config.baseline_names:
        try:
            baseline = fitted_baseline(config, name, data_of(config).num_items)
        except InputError as error:
            bar.say(f"[1/4 {name}] left out: {error}")
            bar.done()
        else:
            found[name] = begin(f"1/4 {name}", backbone, baseline)
    undistilled, plain_ids = f"{config.student}, undistilled", narrow(config, BaselineConfig, register="")
    student = narrow(config, DistillConfig)
    if told_in_main(config):
        plain_texts = from_texts(plain_ids, config.cheap_views)
        here = partial(begin, f"2/4 {undistilled}", backbone, plain_ids)
        found[undistilled], plain_texts, made = trained_side_by_side(here, plain_texts, run_id)
        of_texts = text_student(config)
        found[of_texts] = begin(f"2/4 {of_texts}", backbone, plain_texts, reused=BESIDE if made else BEFORE)
        student = from_texts(student, config.cheap_views)
    else:
        found[undistilled] = begin(f"2/4 {undistilled}", backbone, plain_ids)
    if not config.teacher_files:
        over = config.value("endpoint_model") or (config.llm if reads_llm(config.teacher) else "no LLM")
        found["teacher"] = begin(f"3/4 teacher over {over}", teacher_run, config)
        student = changed(student, teacher_run_id=found["teacher"].run_id)
    distilled, of_sasrec = f"{config.student}, distilled", control_name(config)
    here = partial(begin, f"4/4 {distilled}", distill, student)
    control = control_of(config, student, found.get("teacher"), processes)
    if control is None:
        found[distilled] = here()
    else:
        told = {TEXTS: found[text_student(config)], TEACHER: found["teacher"]} if told_in_main(config) else {}
        maps = text_maps(config, told).values() if told else ()
        found[distilled], control, made = trained_side_by_side(here, control, run_id, [*maps])
        found[of_sasrec] = begin(f"4/4 {of_sasrec}", distill, control, reused=BESIDE if made else BEFORE)
        processes.from_main(lambda: mark_control(found[of_sasrec], f"{config.student} {UNTAUGHT}"))
    return found


def control_name(config: MainConfig) -> str:
    """What the table calls the student that learns from the teacher's SASRec, without the LLM."""
    return f"{config.student}, {UNTAUGHT}"


def text_student(config: MainConfig) -> str:
    """What the table calls the undistilled student that starts from cheap text."""
    return f"{config.student}, {TEXTS}"


def worth_rows(config: MainConfig, found: dict[str, StepRun]) -> Runs:
    """The rows by which the LLM's worth is told: those of the path, and where new items are drawn with their texts."""
    rows = {IDS: found[f"{config.student}, undistilled"], BOTH: found[f"{config.student}, distilled"]}
    rows |= {name: run for name, run in found.items() if name == TEACHER}
    if control_name(config) in found:
        rows[UNTAUGHT] = found[control_name(config)]
    if not told_in_main(config):
        return rows
    return rows | text_rows(config, rows | {TEXTS: found[text_student(config)]})


def keep_results(run: StepRun, config: MainConfig, data: SequenceData, found: dict[str, StepRun]) -> None:
    """Log the table, the distilled student's metrics, examples, the LLM's worth, and the runs that it came from."""
    worth = worth_rows(config, found)
    said, asked = answer([worth], config, MARGIN)
    shown = found | {name: of for name, of in worth.items() if name not in (IDS, BOTH, TEACHER, UNTAUGHT)}
    rows = with_shared([row for name, of in shown.items() if (row := Row.of(name, of))], shown, data)
    distilled = next(row for row in rows if row.run_id == found[f"{config.student}, distilled"].run_id)
    run.log_text("results.md", markdown(rows))
    run.log_text("results.json", json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    run.log_metrics({name: distilled.metrics[name] for name in RANKING})
    run.log_text("worth.md", said)
    # Side by side there is room for four.
    others = {*config.baseline_names, text_student(config), control_name(config)}
    ranked = {row.name for row in rows if row.name in found} - others
    pictured = {name: of for name, of in found.items() if name in ranked}
    examples = log_examples(run, data, pictured, config.seed)
    apart, scores = has_new(rows), {row.name: row.metrics[HEADLINE] for row in rows if not row.users}
    table = header(apart), [row.cells(apart) for row in rows]
    runs = {row.name: row.run_id for row in rows}
    log_report(run, data, headline(rows), asked, price_of([worth]), scores, table, pictured, examples, runs)
    run.describe(f"{headline(rows)}\n\n{markdown(rows)}\n{said}\n{ARTIFACTS}")
    for name, of in found.items():
        run.tag(f"{name.rpartition(', ')[2].replace(' ', '_')}_run_id", of.run_id)


def with_shared(rows: Sequence[Row], runs: Mapping[str, StepRun], data: SequenceData) -> list[Row]:
    """The rows, with NDCG@10 on the samples that all of them ranked where some ranked those of some users."""
    if not any(row.users for row in rows):
        return list(rows)
    ranks = tables_of({row.name: runs[row.name] for row in rows}, "ranks/test.parquet", data)
    scores = {
        name: metrics_from_ranks(torch.from_numpy(table["rank"].to_numpy(np.int64)))["ndcg_at_10"]
        for name, table in ranks.items()
    }
    return [replace(row, shared=scores.get(row.name)) for row in rows]


def by_main(processes: Processes, step: Callable[[Options], StepRun], config: Options) -> StepRun:
    """The run of a step that the main process does alone."""
    return processes.from_main(lambda: step(config))


def begun(
    bar: PathBar, title: str, step: Callable[[Options], StepRun], config: Options, *, reused: str = BEFORE
) -> StepRun:
    """Run a step, saying that it begins and what became of it: ``reused`` where it had nothing to do."""
    bar.say(f"[{title}]")
    started = time.perf_counter()
    run = step(config)
    said = reused if run.reused else f"took {time.perf_counter() - started:,.0f} s"
    bar.say(f"[{title}] {said}, run {run.run_id}")
    bar.done()
    return run


def headline(rows: Sequence[Row]) -> str:
    """Which is best on test, and how far the others are below it."""
    best, *others = sorted((row for row in rows if not row.users), key=lambda row: -row.metrics[HEADLINE])
    top = best.metrics[HEADLINE]
    # Where nobody hits anything, nobody is below.
    below = (f"{row.name} {row.metrics[HEADLINE] / top - 1 if top else 0:+.1%}" for row in others)
    return (
        f"Highest test NDCG@10: {best.name}, {top:.4f}; {', '.join(below)}. {said_of_some(rows)}"
        "One seed: `recdistill compare` says what may be luck."
    )


def said_of_some(rows: Sequence[Row]) -> str:
    """Which is best on the samples of the users that a row is of, and that row; empty where all are of all users."""
    some = [row for row in rows if row.users]
    scores = {row.name: row.shared for row in rows if row.shared is not None}
    if not some or some[0].name not in scores:
        return ""
    best = max(scores, key=lambda name: scores[name])
    said = [f"{name} {scores[name]:.4f}" for name in dict.fromkeys((best, some[0].name))]
    return f"On the samples of the {some[0].users:,} users that the {some[0].name} ranked: {', '.join(said)}. "


def markdown(rows: Sequence[Row]) -> str:
    """The results as a Markdown table."""
    titles = header(has_new(rows))
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *(row.cells(has_new(rows)) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def show(rows: Sequence[Row]) -> None:
    """The results on the terminal."""
    table = Table(title="full ranking over the catalogue", title_justify="left")
    for place, name in enumerate(header(has_new(rows))):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.cells(has_new(rows)))
    # As wide as it needs: a cut number says another one.
    unbounded = Console(width=MOST_WIDTH)
    needed = unbounded.measure(table).maximum
    Console(width=max(needed, Console().width), highlight=False).print(table)
