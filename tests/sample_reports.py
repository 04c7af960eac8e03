"""A report page of each kind, from drawn numbers, without any training."""

from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from recdistill.evaluation.slice_table import slice_table
from recdistill.report.compared import EvaluatedRun, EvaluatedSamples, groups_of
from recdistill.report.examples import Example
from recdistill.report.finding import Finding
from recdistill.report.main_page import Examples, MainReport, main_page
from recdistill.report.page import page
from recdistill.report.results import MetricName, compare_groups
from recdistill.report.study_page import StudyPicture, StudyReport, study_page
from recdistill.sweep.final_comparison import Gain, Row
from recdistill.sweep.page import noise_of, sweep_page
from recdistill.sweep.space import Objective, Parameter, Space
from recdistill.sweep.trainings import Trained

FINDINGS = (
    Finding("distilled", "ids", "items with clicks", 0.0041, 0.0012, 0.0071, 0.052, "better"),
    Finding("distilled", "ids", "items with few clicks", -0.0011, -0.0040, 0.0018, -0.03, "unclear"),
    Finding("cheap text", "ids", "new items", 0.0910, 0.0700, 0.1120, 0.61, "better"),
    Finding("cheap text + teacher", "cheap text", "new items", -0.012, -0.02, -0.004, -0.05, "worse"),
    Finding("distilled", "ids", "one user", 0.001, float("nan"), float("nan"), float("nan"), "not below"),
)
NAMES = ("popularity", "sasrec, undistilled", "teacher", "sasrec, distilled")


def compared() -> str:
    """Two seeds of a student and of its twin, and another student."""
    drawn = np.random.default_rng(0)
    gains = {"plain": 0.0, "plain2": 0.0, "good": 0.6, "good2": 0.6, "bad": -0.7}
    hard = drawn.normal(2.5, 1, 200)
    ranks = {
        name: np.clip(np.exp(hard - gain + drawn.normal(0, 0.3, 200)), 1, None).astype(np.int64)
        for name, gain in gains.items()
    }
    samples = EvaluatedSamples(ranks, np.arange(200), drawn.integers(1, 100, 200), drawn.poisson(2, 200))

    def run(name: str, step: str, seed: int, lam: float, baseline: str) -> EvaluatedRun:
        return EvaluatedRun(name, step, step, seed, {"lam": lam}, "a" * 64, "drawn, by user", True, baseline)

    runs = [run("plain", "backbone", 1, 0, ""), run("plain2", "backbone", 2, 0, "")]
    runs += [run("good", "distill", 1, 0.5, "plain"), run("good2", "distill", 2, 0.5, "plain2")]
    runs += [run("bad", "distill", 1, 9.0, "plain")]
    return page(compare_groups(groups_of(runs), samples, MetricName("test", "ndcg", 10), resamples=300))


def main() -> str:
    """Four recommenders."""
    drawn = np.random.default_rng(0)
    slices = {}
    for place, name in enumerate(NAMES):
        columns = {"rank": drawn.integers(1, 60 - 12 * place, 300), "history_length": drawn.integers(1, 90, 300)}
        slices[name] = slice_table(
            pd.DataFrame({"user": np.arange(300) % 70, "item": 0, "item_count": drawn.poisson(3, 300), **columns})
        )
    titles = tuple(tuple((f"Film {n} (19{60 + n})", n == 3) for n in range(5)) for _ in NAMES)
    examples = [Example(f"u{n}", ("Alien (1979)", "Fargo (1996)"), 7, "Film 3 (1963)", titles) for n in range(3)]
    scores = {name: 0.04 + 0.02 * place for place, name in enumerate(NAMES)}
    rows = [[name, *(f"{value + n / 100:.4f}" for n in range(8)), "12", "3"] for name, value in scores.items()]
    report = MainReport(
        title="drawn data, by user: 300 test samples, 1,682 items",
        sentences=["The LLM is worth it for items with clicks (+5 %) and new items (+61 %).", "Highest: distilled."],
        verdict="better",
        findings=FINDINGS,
        finding_metric="test NDCG@20",
        scores=scores,
        metric="test NDCG@10",
        columns=[
            "",
            *(f"{part} {name}" for part in ("val", "test") for name in ("HR@10", "HR@20", "N@10", "N@20")),
            "s",
            "ms",
        ],
        rows=rows,
        price="price: 80,000 LLM tokens",
        slices=slices,
        examples=Examples(NAMES, examples, "Three users."),
        runs={name: f"{place:032x}" for place, name in enumerate(NAMES)},
    )
    return main_page(report)


def study() -> str:
    """Two data sets."""
    places = ("ml-100k, sasrec", "ml-latest-small, gru4rec")
    panels = {place: {row: [0.1 + 0.01 * n, 0.12 + 0.01 * n] for n, row in enumerate(NAMES)} for place in places}
    report = StudyReport(
        title="Study drawn",
        sentences=["18 of 20 cells are finished."],
        findings=dict.fromkeys(places, FINDINGS),
        metric="NDCG@20",
        pictures=[StudyPicture("NDCG@20, all targets", panels, {places[0]: 0.08})],
        columns=["row", "all targets", "trained targets", "training, s", ""],
        rows={place: [[name, "0.1 ± 0.01 (2)", "0.2", "30", "what it is"] for name in NAMES] for place in places},
        how_to_read=["All numbers are drawn.", "A second paragraph."],
    )
    return study_page(report)


def sweep() -> str:
    """Twelve trials of the five options."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(direction="maximize", study_name="drawn", sampler=optuna.samplers.RandomSampler(0))

    def value(trial: optuna.Trial) -> float:
        lam = trial.suggest_float("lam", 0, 2)
        trial.suggest_float("alpha", 1e-3, 1, log=True)
        trial.suggest_float("ed_weight", 0, 1)
        trial.suggest_float("temperature", 0.5, 4)
        policy = trial.suggest_categorical("selection_policy", ["all", "random", "coverage"])
        for epoch in range(3):
            trial.report(0.03 * (epoch + 1), epoch)
        return 0.1 - 0.02 * abs(lam - 1) + (policy == "coverage") * 0.004

    found.optimize(value, 12)
    parameters = tuple(Parameter(name, float, 0.0, 1.0) for name in ("lam", "alpha", "ed_weight", "temperature"))
    parameters += (Parameter("selection_policy", str, choices=("all", "random", "coverage")),)
    space = Space("drawn.yaml", parameters, (Objective("val/ndcg_at_20", "maximize"),))
    metrics = {f"test/{name}_at_{k}": 0.1 for name in ("hr", "ndcg") for k in (10, 20)}
    rows = [
        Row(name, [Trained(f"{name}{n}", metrics | {"val/ndcg_at_20": base + 0.003 * n}) for n in range(3)])
        for name, base in (("best", 0.098), ("default", 0.092))
    ]
    gained = {"default": Gain(0.0051, 0.0012, 0.009, 0.01)}
    return sweep_page(found, space, rows, gained, "mlflow run . -e distill -P lam=1.02", noise_of(rows, space))


def write_reports(folder: Path) -> list[Path]:
    """Write all four into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for make in (main, compared, sweep, study):
        paths.append(folder / f"{make.__name__}.html")
        paths[-1].write_text(make(), encoding="utf-8")
    return paths
