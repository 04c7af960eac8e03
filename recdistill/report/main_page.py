"""The report of a run of ``main`` as one HTML page: is the LLM worth it here, who is best, and what each recommends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd

from recdistill.report.document import (
    answer_section,
    chip,
    definitions,
    details,
    document,
    picture,
    plots,
    table,
)
from recdistill.report.examples import OWN_STYLE, Example, section
from recdistill.report.finding import Finding, findings_figure, findings_in_words
from recdistill.report.score_figure import score_figure, scores_in_words
from recdistill.report.slice_figure import slice_drawing, slices_in_words


@dataclass(frozen=True)
class Examples:
    """What each recommender says to some users; arguments of `examples.examples_page`."""

    names: Sequence[str]
    examples: Sequence[Example]
    note: str


@dataclass(frozen=True)
class MainReport:
    """What a run of ``main`` found.

    Attributes:
        title: the data and their split.
        sentences: the answer, the most important first.
        verdict: on the LLM: 'better', 'worse' or 'unclear'.
        findings: what the LLM adds.
        finding_metric: their metric.
        scores: ``metric`` of each recommender.
        metric: of the scores.
        columns, rows: of the table of all metrics, cells as text.
        price: what the teacher cost, a sentence, or empty.
        slices: tables of `evaluation.slice_table` by recommender.
        examples: recommendations by title, or None.
        runs: ids of the runs by recommender.
    """

    title: str
    sentences: Sequence[str]
    verdict: str
    findings: Sequence[Finding]
    finding_metric: str
    scores: Mapping[str, float]
    metric: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    price: str = ""
    slices: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    examples: Examples | None = None
    runs: Mapping[str, str] = field(default_factory=dict)


def main_page(report: MainReport) -> str:
    """The whole page."""
    best = max(report.scores, key=lambda name: report.scores[name], default="")
    drawn = [
        picture(
            f"{report.metric} of each",
            scores_in_words(report.scores, report.metric),
            score_figure(report.scores, report.metric, marked=best),
        )
    ]
    if report.findings:
        found = findings_figure(report.findings, report.finding_metric)
        words = findings_in_words(report.findings, report.finding_metric)
        drawn.insert(0, picture("What is ahead of what", words, found))
    numbers = range(1, len(report.columns))
    whole = table(report.columns, [list(map(escape, row)) for row in report.rows], numbers, "all metrics")
    parts = [answer_section(report.sentences, report.verdict), plots(drawn)]
    parts += [f"<section><h2>Full ranking over the catalogue</h2>{whole}</section>"]
    if report.slices:
        parts += [
            plots([picture("Whom each serves well", slices_in_words(report.slices), slice_drawing(report.slices))])
        ]
    if report.findings:
        parts += [details("What is ahead of what, in numbers", findings_table(report.findings) + price(report))]
    if report.examples is not None:
        shown = "".join(section(report.examples.names, one) for one in report.examples.examples)
        said = f'<p class="quiet">{escape(report.examples.note)}</p>{shown}'
        parts += [details(f"What each recommends to {len(report.examples.examples)} users", said)]
    if report.runs:
        parts += [details("Runs", definitions(report.runs))]
    return document(report.title, parts, OWN_STYLE)


def verdict_of(findings: Sequence[Finding]) -> str:
    """'better' where any finding is, else 'worse' where any is, else 'unclear'."""
    said = {one.verdict for one in findings}
    return next((verdict for verdict in ("better", "worse") if verdict in said), "unclear")


def findings_table(findings: Sequence[Finding]) -> str:
    """The findings in numbers."""
    rows = []
    for one in findings:
        share = "" if pd.isna(one.relative) else f"{100 * one.relative:+.1f} %"
        bounds = "" if pd.isna(one.low) else f"{one.low:+.4f} to {one.high:+.4f}"
        texts = map(escape, (one.row, one.against, one.target, f"{one.difference:+.4f}", share, bounds))
        rows.append((*texts, chip(one.verdict)))
    columns = ("recommender", "against", "targets", "difference", "share", "95 % interval", "")
    return table(columns, rows, (3, 4, 5), "findings")


def price(report: MainReport) -> str:
    """What the teacher cost."""
    return f'<p class="quiet">{escape(report.price)}</p>' if report.price else ""
