"""``compare``: which of several evaluated runs is better, by how much, and whether it was luck."""

from pathlib import Path

from rich.console import Console

from recdistill.config import CompareConfig, changed
from recdistill.errors import InputError
from recdistill.report.compared import groups_of
from recdistill.report.page import page
from recdistill.report.results import MetricName, Results, compare_groups
from recdistill.report.text import answer, frame, markdown, terminal_table
from recdistill.runs.compared_runs import ComparedRuns, compared_runs, link_runs, place_of
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run

NOTED = 10  # recommenders in the run's description


def compare(config: CompareConfig) -> StepRun:
    """Test runs against their baselines, print a table, and keep it as Markdown, CSV and one HTML page."""
    metric = MetricName.read(config.metric)
    compared = runs_of(config, metric.part)
    results = compare_groups(
        groups_of(compared.runs, compared.baseline),
        compared.samples,
        metric,
        resamples=config.resamples,
        seed=config.seed,
    )
    # A condition finds other runs another day: what is kept, and found again, are the ids.
    found = changed(config, filter="", runs=",".join(run.run_id for run in compared.runs), baseline=compared.baseline)
    with step_run("compare", found, data=compared.runs[0].fingerprint) as run:
        if not run.reused:
            link_runs(run, compared)
            run.describe(markdown(results, most=NOTED))
            run.log_metrics(headline(results))
            run.log_folder("comparison", lambda folder: write(folder, results))
    console = Console(highlight=False, markup=False)
    console.print(terminal_table(results))
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
        print(f"{compared.left_out} runs keep no ranks and are left out")
    if len(compared.runs) < 2:
        raise InputError(
            f"runs: {compared.runs[0].run_id} ({compared.runs[0].step}) stands alone; name two runs, or a distill "
            "run, whose undistilled twin is found by itself"
        )
    return compared


def headline(results: Results) -> dict[str, float]:
    """Metrics of the comparison run: the best recommender's gain over its baseline."""
    found = {"compare/recommenders": float(len(results.groups)), "compare/samples": float(results.samples)}
    row = results.row_of(results.best)
    if row is not None:
        found |= {"compare/gain": row.difference, "compare/gain_low": row.low, "compare/gain_high": row.high}
        found |= {"compare/p_value": row.adjusted}
    return found


def write(folder: Path, results: Results) -> None:
    """The comparison's three files."""
    folder.mkdir(parents=True)
    (folder / "comparison.html").write_text(page(results), encoding="utf-8")
    (folder / "comparison.md").write_text(markdown(results), encoding="utf-8")
    frame(results).to_csv(folder / "comparison.csv", index=False)
