"""The report of a study as one HTML page: what may be said of the differences, then every row's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from recdistill.report.document import Draw, answer_section, details, document, picture, plots, table
from recdistill.report.finding import Finding, findings_figure, findings_in_words
from recdistill.report.main_page import findings_table, verdict_of
from recdistill.report.study_figure import Panels, study_figure, study_in_words

MOST_DRAWN = 24  # findings of a data set and student in one plot


@dataclass(frozen=True)
class StudyPicture:
    """One metric of every row; see `study_figure.study_figure`."""

    title: str
    panels: Panels
    chance: Mapping[str, float]


@dataclass(frozen=True)
class StudyReport:
    """What a study found.

    Attributes:
        title: of the plan.
        sentences: on top, beside what the findings say.
        findings: by data set and student, the comparisons of the plan.
        metric: their metric.
        pictures: of the rows.
        columns: titles of the tables of rows.
        rows: by data set and student, lines of the table, cells as text.
        how_to_read: paragraphs.
    """

    title: str
    sentences: Sequence[str]
    findings: Mapping[str, Sequence[Finding]]
    metric: str
    pictures: Sequence[StudyPicture]
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Sequence[str]]]
    how_to_read: Sequence[str]


def study_page(report: StudyReport) -> str:
    """The whole page."""
    every = [one for findings in report.findings.values() for one in findings]
    parts = [answer_section([*said(every), *report.sentences], verdict_of(every))]
    drawn, rows = [], []
    for place, findings in report.findings.items():
        shown = strongest(findings)
        words = findings_in_words(shown, report.metric)
        drawn.append(picture(f"Compared: {place}", words, findings_figure(shown, report.metric)))
    for one in report.pictures:
        words = study_in_words(one.panels, one.title)
        rows.append(picture(f"Every row: {one.title}", words, row_drawing(one), whole=True))
    parts += [plots(drawn), *rows]
    for place, lines in report.rows.items():
        cells = [list(map(escape, line)) for line in lines]
        numbers = range(1, len(report.columns) - 1)
        parts.append(f"<section><h2>{escape(place)}</h2>{table(report.columns, cells, numbers, place)}</section>")
    for place, findings in report.findings.items():
        parts.append(details(f"Compared, in numbers: {place}", findings_table(findings)))
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in report.how_to_read)
    return document(report.title, [*parts, details("How to read this", paragraphs, is_open=True)])


def row_drawing(one: StudyPicture) -> Draw:
    """Draws a picture of the rows."""
    return lambda theme, width: study_figure(one.panels, one.title, one.chance, theme, width)


def said(findings: Sequence[Finding]) -> list[str]:
    """How many comparisons are beyond luck, and the largest of them."""
    if not findings:
        return ["No comparison of the plan can be made yet."]
    better, worse = ([one for one in findings if one.verdict == verdict] for verdict in ("better", "worse"))
    counted = f"Of {len(findings)} comparisons {len(better)} are better and {len(worse)} worse beyond luck"
    sure = sorted((one for one in (*better, *worse)), key=lambda one: -abs(one.difference))
    return [counted + (f"; the largest: {sure[0].words}." if sure else ": noise may explain every difference.")]


def strongest(findings: Sequence[Finding]) -> list[Finding]:
    """At most `MOST_DRAWN` of the findings, in their order: those beyond luck first of all."""
    ranked = sorted(findings, key=lambda one: (one.verdict not in ("better", "worse"), -abs(one.difference)))
    kept = set(map(id, ranked[:MOST_DRAWN]))
    return [one for one in findings if id(one) in kept]
