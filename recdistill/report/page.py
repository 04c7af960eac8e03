"""A comparison as one HTML page that needs no other file: the answer first, then the table, plots and details."""

import base64
from html import escape

from recdistill.report import plots
from recdistill.report.results import Results, Row
from recdistill.report.text import (
    HOW_TO_READ,
    answer,
    caption,
    cells,
    gain,
    interval,
    order,
    p_value,
    title,
)

MOST = 8  # recommenders in the first table and in the plots
MOST_IN_DETAILS = 100
CHIPS = {"better": "better", "worse": "worse", "unclear": "unclear"}
STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1F2328; background: #F6F7F9;
  margin: 0; }
main { max-width: 1240px; margin: 0 auto; padding: 16px 20px 40px; }
h1 { font-size: 15px; font-weight: 600; color: #444B55; margin: 0 0 10px; }
h2 { font-size: 14px; margin: 0 0 6px; }
section, details { background: #fff; border: 1px solid #E2E5E9; border-radius: 8px; padding: 12px 16px;
  margin-bottom: 12px; }
.answer { border-left: 5px solid #8A8F98; }
.answer.better { border-left-color: #0072B2; }
.answer.worse { border-left-color: #D55E00; }
.answer p { margin: 2px 0; color: #444B55; }
.answer p:first-of-type { font-size: 17px; color: #1F2328; font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 12px; margin-bottom: 12px; }
.plots section { margin: 0; }
.plots img { width: 100%; max-height: 330px; object-fit: contain; object-position: left top; }
table { border-collapse: collapse; width: 100%; }
.wide { overflow-x: auto; }
th { text-align: left; font-weight: 600; color: #444B55; font-size: 12px; border-bottom: 1px solid #C9CDD3; }
th, td { padding: 3px 10px 3px 0; vertical-align: top; }
tr.first td { border-top: 1px solid #ECEEF1; }
tr:not(.first) td { color: #5A626D; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.best { font-weight: 600; }
.chip { border-radius: 10px; padding: 0 8px; font-size: 12px; white-space: nowrap; background: #ECEEF1;
  color: #444B55; }
.chip.better { background: #D8EAF7; color: #00507D; }
.chip.worse { background: #FBE3D3; color: #8A3C00; }
summary { cursor: pointer; font-weight: 600; }
code { font-size: 12px; overflow-wrap: anywhere; }
.quiet { color: #5A626D; font-size: 12px; margin: 6px 0 0; }
"""


def page(results: Results) -> str:
    """The whole page."""
    shown = order(results)[:MOST]
    best = results.row_of(results.best)
    parts = [
        f"<h1>{escape(title(results))}</h1>",
        f'<section class="answer {CHIPS[best.verdict] if best else "unclear"}">'
        + "".join(f"<p>{escape(sentence)}</p>" for sentence in answer(results))
        + "</section>",
        f'<section class="wide">{main_table(results, shown)}'
        f'<p class="quiet">{escape(caption(results, len(shown)))}</p></section>',
        '<div class="plots">'
        + figure(f"Gain in {results.metric}", plots.gains_plot(results, shown))
        + figure("Where the gain comes from", plots.subgroup_plot(results, shown))
        + "</div>",
        f"<details><summary>By subgroup</summary>{subgroup_table(results)}</details>",
        f"<details><summary>Settings and runs</summary>{settings_table(results)}</details>",
        f"<details open><summary>How to read this</summary><p>{escape(HOW_TO_READ)} "
        f"{results.resamples:,} resamples.</p></details>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title(results))}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def figure(heading: str, svg: str) -> str:
    """A plot as an image inside the page; as an image it can run no script and shares no ids with another."""
    data = base64.b64encode(svg.encode()).decode()
    text = escape(heading, quote=True)
    return f'<section><h2>{text}</h2><img alt="{text}" src="data:image/svg+xml;base64,{data}"></section>'


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
    return f"<table>{head}<tbody>{''.join(body)}</tbody></table>"


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
                f'<td class="number">{escape(p_value(row.adjusted))}</td><td>{chip(row.verdict)}</td></tr>'
            )
    head = table_head(columns, {2, 3, 4, 5, 6, 7})
    return f'<div class="wide"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


def settings_table(results: Results) -> str:
    """Run ids and seeds of each recommender."""
    body = []
    for index in order(results)[:MOST_IN_DETAILS]:
        group = results.groups[index]
        runs = ", ".join(f"<code>{escape(run.run_id)}</code> (seed {run.seed})" for run in group.runs)
        body.append(
            f'<tr class="first"><td>{escape(group.label)}</td><td>{escape(group.step)}</td><td>{runs}</td></tr>'
        )
    head = table_head(("recommender", "step", "runs"), set())
    return f'<div class="wide"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


def table_head(columns: tuple[str, ...], numbers: set[int]) -> str:
    """The head of a table; the columns of ``numbers`` stand to the right."""
    made = "".join(
        f"<th{' class=number' if place in numbers else ''}>{escape(column)}</th>"
        for place, column in enumerate(columns)
    )
    return f"<thead><tr>{made}</tr></thead>"


def chip(verdict: str) -> str:
    """The verdict as a coloured word."""
    return f'<span class="chip {CHIPS[verdict]}">{escape(verdict)}</span>' if verdict in CHIPS else ""
