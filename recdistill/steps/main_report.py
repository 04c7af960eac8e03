"""The report page of ``main``, from the runs of its table and the questions about the LLM's worth."""

from collections.abc import Mapping, Sequence

from recdistill.data.sequences import SequenceData
from recdistill.evaluation.slice_table import slice_table
from recdistill.report.finding import Finding
from recdistill.report.main_page import Examples, MainReport, main_page
from recdistill.runs.run import StepRun
from recdistill.steps.examples import tables_of
from recdistill.study.comparisons import Difference
from recdistill.study.worth import NAME, Asked, Price, explained, sentence, verdict

REPORT = "report.html"


def log_report(
    run: StepRun,
    data: SequenceData,
    said: str,
    asked: Sequence[Asked],
    price: Price | None,
    scores: Mapping[str, float],
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    shown: Mapping[str, StepRun],
    examples: Examples | None,
    runs: Mapping[str, str],
) -> None:
    """Log ``report.html``.

    Args:
        run: of ``main``.
        data: of all runs.
        said: who is best, a sentence.
        asked: what the LLM adds.
        price: what it cost.
        scores: test NDCG@10 by recommender.
        table: titles and lines of the table of all metrics.
        shown: the runs, at most four, whose slices are drawn.
        examples: what they recommend.
        runs: ids by recommender.
    """
    ranks = tables_of(shown, "ranks/test.parquet", data, whole=True)
    report = MainReport(
        title=f"{data.name}, {data.split}: {len(data.test):,} test samples, {data.num_items:,} items",
        sentences=[sentence(asked), *(one.replace("`", "") for one in (said, *explained(asked)))],
        verdict=verdict(asked),
        findings=[finding_of(one.row, one.against, one.target, one.difference) for one in asked],
        finding_metric=f"test {NAME}",
        scores=scores,
        metric="test NDCG@10",
        columns=table[0],
        rows=table[1],
        price="; ".join(price.lines) if price is not None else "",
        slices={name: slice_table(ranked) for name, ranked in ranks.items()},
        examples=examples,
        runs=runs,
    )
    run.log_text(REPORT, main_page(report))


def finding_of(row: str, against: str, target: str, difference: Difference) -> Finding:
    """A difference with the wider of its intervals over users and over items."""
    by = difference.wider
    return Finding(
        row, against, target, difference.difference, by.low, by.high, difference.relative, difference.verdict
    )
