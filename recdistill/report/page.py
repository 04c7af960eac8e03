"""A comparison as one HTML page that needs no other file: the answer first, then the table, plots and details."""

from collections.abc import Sequence
from html import escape

from recdistill.evaluation.paired_tests import p_value_text
from recdistill.report import plots
from recdistill.report.document import (
    answer_section,
    chip,
    details,
    document,
    picture,
    scrolled,
    table,
    table_head,
)
from recdistill.report.document import plots as side_by_side
from recdistill.report.results import Results, Row
from recdistill.report.text import (
    HOW_TO_READ,
    answer,
    caption,
    cells,
    gain,
    interval,
    order,
    title,
)

MOST = 8  # recommenders in the first table and in the plots
MOST_IN_DETAILS = 100


def page(results: Results, more: Sequence[str] = ()) -> str:
    """The whole page; ``more`` is HTML of further parts, which stand before the details."""
    shown = order(results)[:MOST]
    best = results.row_of(results.best)
    left = caption(results, len(shown))
    drawn = [
        picture(
            f"Gain in {results.metric}",
            gains_in_words(results, shown),
            lambda theme, width: plots.gains_plot(results, shown, theme, width),
        ),
        picture(
            "Where the gain comes from",
            subgroups_in_words(results, shown),
            lambda theme, width: plots.subgroup_plot(results, shown, theme, width),
        ),
    ]
    parts = [
        answer_section(answer(results), best.verdict if best else "unclear"),
        side_by_side(drawn),
        f'<section>{main_table(results, shown)}<p class="quiet">{escape(left)}</p></section>',
        *more,
        details("By subgroup", subgroup_table(results)),
        details("Settings and runs", settings_table(results)),
        details("How to read this", f"<p>{escape(HOW_TO_READ)} {results.resamples:,} resamples.</p>", is_open=True),
    ]
    return document(title(results), parts)


def gains_in_words(results: Results, shown: Sequence[int]) -> str:
    """What the plot of gains shows."""
    rows = [row for row in (results.row_of(index) for index in shown) if row is not None]
    said = (f"{results.groups[row.group].label} {gain(row)}, {interval(row)}, {row.verdict}" for row in rows)
    return f"Gains in {results.metric} against the baseline with 95 % intervals: " + "; ".join(said)


def subgroups_in_words(results: Results, shown: Sequence[int]) -> str:
    """What the plot by subgroup shows: of the best recommender that has a baseline."""
    first = next((index for index in shown if results.row_of(index) is not None), None)
    if first is None:
        return "No recommender here has a baseline."
    own = [row for row in results.slices if row.group == first]
    said = (f"{row.kind} {row.subgroup} {row.difference:+.4f}, {row.verdict}" for row in own)
    return f"Gains by subgroup of {results.groups[first].label}: " + "; ".join(said)


def main_table(results: Results, shown: list[int]) -> str:
    """Recommenders against their baselines, two lines each."""
    head = table_head(
        ("recommender", "seeds", "metric", "value", "against", "gain", "95 % interval", "p (Holm)", ""), {1, 3, 5, 6, 7}
    )
    body = []
    for index in shown:
        for place, line in enumerate(cells(results, index)):
            label, seeds, metric, value, baseline, gained, between, probability, verdict = map(escape, line)
            best = " best" if index == results.best and place == 0 else ""
            body.append(
                f'<tr class="{"first" if place == 0 else "next"}"><td class="name{best}">{label}</td>'
                f'<td class="number">{seeds}</td><td>{metric}</td><td class="number{best}">{value}</td>'
                f'<td>{baseline if place == 0 else ""}</td><td class="number">{gained}</td>'
                f'<td class="number">{between}</td><td class="number">{probability}</td>'
                f"<td>{chip(verdict)}</td></tr>"
            )
    return scrolled(f"<table>{head}<tbody>{''.join(body)}</tbody></table>", "recommenders against their baselines")


def subgroup_table(results: Results) -> str:
    """The headline metric by subgroup."""
    columns = ("recommender", "subgroup", "samples", "value", "baseline's", "gain", "95 % interval", "p (Holm)", "")
    by_group: dict[int, list[Row]] = {}
    for row in results.slices:
        by_group.setdefault(row.group, []).append(row)
    body = []
    for index in order(results)[:MOST_IN_DETAILS]:
        for place, row in enumerate(by_group.get(index, [])):
            body.append(
                f'<tr class="{"first" if place == 0 else "next"}">'
                f"<td>{escape(results.groups[index].label) if place == 0 else ''}</td>"
                f'<td>{escape(f"{row.kind}: {row.subgroup}")}</td><td class="number">{row.samples}</td>'
                f'<td class="number">{row.value:.4f}</td><td class="number">{row.baseline_value:.4f}</td>'
                f'<td class="number">{escape(gain(row))}</td><td class="number">{escape(interval(row))}</td>'
                f'<td class="number">{escape(p_value_text(row.adjusted))}</td><td>{chip(row.verdict)}</td></tr>'
            )
    head = table_head(columns, {2, 3, 4, 5, 6, 7})
    return scrolled(f"<table>{head}<tbody>{''.join(body)}</tbody></table>", "gains by subgroup")


def settings_table(results: Results) -> str:
    """Run ids and seeds of each recommender."""
    rows = []
    for index in order(results)[:MOST_IN_DETAILS]:
        group = results.groups[index]
        runs = ", ".join(f"<code>{escape(run.run_id)}</code> (seed {run.seed})" for run in group.runs)
        rows.append((escape(group.label), escape(group.step), runs))
    return table(("recommender", "step", "runs"), rows, (), "settings and runs")
