"""``compare``: which of several evaluated runs is better, by how much, and whether it was luck."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from recdistill.config import CompareConfig, changed
from recdistill.config.lineage import metric_contents
from recdistill.data.ranking_files import OthersRanking, read_ranking
from recdistill.errors import InputError
from recdistill.report.compared import Group, groups_of
from recdistill.report.page import page
from recdistill.report.results import MetricName, Results, compare_groups
from recdistill.report.settings import EVALUATED_STEPS
from recdistill.report.text import answer, frame, markdown, terminal_table
from recdistill.runs.compared_runs import ComparedRuns, compared_runs, link_runs, place_of
from recdistill.runs.finished_runs import run_of
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.compared_lists import (
    RECOMMENDED,
    beyond_hits,
    beyond_markdown,
    beyond_section,
    data_of_run,
    digests,
    ranking_files,
    with_others,
)
from recdistill.steps.promote import promote_run

STUDENT_STEPS = ("backbone", "distill", "map_items")
NOTED = 10  # recommenders in the run's description


def compare(config: CompareConfig) -> StepRun:
    """Test runs against their baselines, print a table, and keep it as Markdown, CSV and one HTML page."""
    metric = MetricName.read(config.metric)
    files = ranking_files(config.rankings)
    stored = runs_of(config, metric.part)
    data = data_of_run(stored.runs[0]) if files else None
    others = [read_ranking(name, path, data) for name, path in files.items()] if data is not None else []
    compared = stored if data is None else with_others(stored, others, data, metric.part)
    results = compare_groups(
        groups_of(compared.runs, compared.baseline),
        compared.samples,
        metric,
        resamples=config.resamples,
        seed=config.seed,
    )
    # A condition finds other runs another day: what is kept, and found again, are the ids.
    found = changed(config, filter="", runs=",".join(run.run_id for run in stored.runs), baseline=compared.baseline)
    named = {"names": {run.run_id: group.label for group in results.groups for run in group.runs}}
    contents = digests(files) | metric_contents() | named
    with step_run("compare", found, data=compared.runs[0].fingerprint, contents=contents) as run:
        if not run.reused:
            beyond = lists_of(results, stored, others)
            link_runs(run, compared)
            run.describe(markdown(results, most=NOTED))
            run.log_metrics(headline(results))
            run.log_folder("comparison", lambda folder: write(folder, results, beyond))
    console = Console(highlight=False, markup=False)
    console.print(terminal_table(results))
    if config.promote:
        promote_best(config, results)
    for sentence in [*answer(results), f"the page: {place_of(run, 'comparison/comparison.html')}"]:
        console.print(sentence, soft_wrap=True)
    return run


def runs_of(config: CompareConfig, part: str) -> ComparedRuns:
    """The runs that the options name, at least two. Raises InputError, one line, where they cannot be compared."""
    ids = [run_id.strip() for run_id in config.runs.split(",") if run_id.strip()]
    if ids and config.filter.strip():
        raise InputError("runs, filter: give one of them, not both")
    compared = compared_runs(ids, config.filter, config.baseline.strip() or "auto", part)
    if compared.left_out:
        print(f"{compared.left_out} runs keep no ranks, or those of some users' samples alone, and are left out")
    if len(compared.shared) < compared.samples.of:
        print(f"compared on the {len(compared.shared):,} of {compared.samples.of:,} samples that all runs ranked")
    if len(compared.runs) < 2 and not config.rankings:
        raise InputError(
            f"runs: {compared.runs[0].run_id} ({compared.runs[0].step}) stands alone; name two runs, or a distill "
            "run, whose undistilled twin is found by itself"
        )
    return compared


def lists_of(results: Results, stored: ComparedRuns, others: Sequence[OthersRanking]) -> pd.DataFrame:
    """What the lists are like beyond hits; empty where no run keeps lists, or its data cannot be read any more."""
    first = stored.runs[0]
    keeps = StepRun(first.run_id, "", first.fingerprint, reused=True)
    try:
        if not others:
            keeps.artifact(RECOMMENDED)
        return beyond_hits(results, others, data_of_run(first), exclude_seen=first.exclude_seen)
    except InputError:
        return pd.DataFrame()


def promote_best(config: CompareConfig, results: Results) -> None:
    """Register and promote the recommender that is best on validation, by the mean over its seeds: its best run there.

    Chosen by test, the best of many would be tested on what chose it. Raises InputError where no run has the metric, or
    the best recommender is no student.
    """
    metric = f"val/{config.metric.partition('/')[2]}"
    # Rankings that others made have no run, and none on validation.
    evaluated = [group for group in results.groups if group.step in EVALUATED_STEPS]
    by_validation = {
        run.run_id: run_of(run.run_id).data.metrics.get(metric, -math.inf) for group in evaluated for run in group.runs
    }

    def mean(group: Group) -> float:
        return statistics.fmean(by_validation[run.run_id] for run in group.runs)

    best = max(evaluated, key=mean)
    if mean(best) == -math.inf:
        raise InputError(f"promote={config.promote}: no compared run has {metric}, which chooses; give another metric")
    if best.step not in STUDENT_STEPS:
        raise InputError(f"promote={config.promote}: {best.label} is best on validation, and no student of ours")
    run_id = max((run.run_id for run in best.runs), key=by_validation.__getitem__)
    promote_run(run_id, config.promote, config.metric, config.seed)


def headline(results: Results) -> dict[str, float]:
    """Metrics of the comparison run: the best recommender's gain over its baseline."""
    found = {"compare/recommenders": float(len(results.groups)), "compare/samples": float(results.samples)}
    row = results.row_of(results.best)
    if row is not None:
        found |= {"compare/gain": row.difference, "compare/gain_low": row.low, "compare/gain_high": row.high}
        found |= {"compare/p_value": row.adjusted}
    return found


def write(folder: Path, results: Results, beyond: pd.DataFrame) -> None:
    """The comparison's files; ``lists.csv`` only where lists were looked at."""
    folder.mkdir(parents=True)
    more = [] if beyond.empty else [beyond_section(beyond)]
    text = markdown(results) + ("" if beyond.empty else beyond_markdown(beyond))
    (folder / "comparison.html").write_text(page(results, more), encoding="utf-8")
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    if not beyond.empty:
        beyond.to_csv(folder / "lists.csv", index_label="recommender")
    frame(results).to_csv(folder / "comparison.csv", index=False)
