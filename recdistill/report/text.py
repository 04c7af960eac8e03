"""A comparison in words: the answer in a few sentences, a terminal table, Markdown and CSV."""

import io
import math

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recdistill.evaluation.paired_tests import p_value_text
from recdistill.report.results import Results, Row

WIDTH = 100  # characters of a line of plain text
NAMED = 4  # recommenders that a sentence names before it counts
HOW_TO_READ = (
    "A gain is the mean over all samples of the difference to the baseline, each user's gains averaged over seeds "
    "first. The 95 % interval is a bootstrap over users, of its row alone. p is that of a paired permutation test "
    "(users change sign), corrected for all rows of its table (Holm): below 0.05 the difference is not luck, above "
    "it is unclear. What seeds shift for all users alike widens both, where there is more than one seed."
)


def order(results: Results) -> list[int]:
    """Groups, the highest headline value first."""
    values = results.values[str(results.metric)]
    return sorted(range(len(results.groups)), key=lambda index: -values[index])


def metrics(results: Results) -> list[str]:
    """The headline metric, then the others."""
    return sorted(results.values, key=lambda name: name != str(results.metric))


def gain(row: Row) -> str:
    """'+0.0061 (+5.6 %)'."""
    share = "" if math.isnan(row.relative) else f" ({100 * row.relative:+.1f} %)"
    return f"{row.difference:+.4f}{share}"


def interval(row: Row) -> str:
    """'+0.0021 to +0.0102'."""
    return f"{row.low:+.4f} to {row.high:+.4f}"


def seeds(results: Results, group: int) -> str:
    """'5 seeds'."""
    number = len(results.groups[group].runs)
    return f"{number} seed{'s' if number > 1 else ''}"


def names(results: Results, groups: list[int]) -> str:
    """The labels of some groups, the first `NAMED` of them."""
    listed = ", ".join(results.groups[index].label for index in groups[:NAMED])
    return listed + (f" and {len(groups) - NAMED} more" if len(groups) > NAMED else "")


def answer(results: Results) -> list[str]:
    """Which recommender won, by how much, and whether it is luck: a few sentences."""
    metric, best = str(results.metric), results.best
    label, value = results.groups[best].label, results.values[metric][best]
    row = results.row_of(best)
    if row is not None:
        said = [f"{label} has the highest {metric}: {value:.4f}, {against(results, row)}."]
    else:
        standing = "a baseline" if any(one.baseline == best for one in results.rows) else "held against nothing here"
        said = [f"{label} has the highest {metric}: {value:.4f}. It is {standing}."]
        row = next((found for found in map(results.row_of, order(results)) if found is not None), None)
        if row is not None:
            challenger = results.groups[row.group].label
            said.append(f"The best challenger is {challenger}: {row.value:.4f}, {against(results, row)}.")
    if row is not None:
        said.append(f"Difference {row.difference:+.4f}, 95 % interval {interval(row)}, p {equals(row.adjusted)}.")
    tied = results.tied
    if tied:
        said.append(f"Not told apart from it: {names(results, [index for index in order(results) if index in tied])}.")
    elif len(results.groups) > 2:
        said.append("It is above every other recommender here, beyond luck, in all pairs.")
    drawn = [group for group in results.groups if group.is_drawn]
    if drawn and all(len(group.runs) == 1 for group in drawn):
        said.append("One seed each: this is about these trained models; run several seeds to judge their settings.")
    return said


def against(results: Results, row: Row) -> str:
    """'5.6 % above backbone, which is not luck'."""
    share = f"{abs(row.difference):.4f}" if math.isnan(row.relative) else f"{100 * abs(row.relative):.1f} %"
    side = "above" if row.difference >= 0 else "below"
    luck = "may be luck" if row.verdict == "unclear" else "is not luck"
    return f"{share} {side} {results.groups[row.baseline].label}, which {luck}"


def equals(value: float) -> str:
    """'= 0.013', '< 0.001'."""
    text = p_value_text(value)
    return text if text.startswith("<") else f"= {text}"


def frame(results: Results) -> pd.DataFrame:
    """Every row of both tables, numbers unrounded; recommenders without a baseline come with their values alone."""
    records = []
    metric = str(results.metric)
    for index in order(results):
        group = results.groups[index]
        described = {
            "recommender": group.label,
            "step": group.step,
            "seeds": len(group.runs),
            "run_ids": " ".join(run.run_id for run in group.runs),
        }
        own = [row for row in (*results.rows, *results.slices) if row.group == index]
        records += [
            described
            | {
                "baseline": results.groups[row.baseline].label,
                "metric": row.metric,
                "subgroup_kind": row.kind,
                "subgroup": row.subgroup,
                "samples": row.samples,
                "users": row.users,
                "value": row.value,
                "seed_deviation": results.deviations[row.metric][index] if row.kind == "all" else math.nan,
                "baseline_value": row.baseline_value,
                "difference": row.difference,
                "interval_low": row.low,
                "interval_high": row.high,
                "relative_difference": row.relative,
                "p_value": row.p_value,
                "p_value_holm": row.adjusted,
                "verdict": row.verdict,
                "p_value_as_good_as_best": (
                    results.behind[index] if row.metric == metric and row.kind == "all" else math.nan
                ),
            }
            for row in own
        ]
        if not own:
            records += [
                described
                | {
                    "metric": name,
                    "subgroup_kind": "all",
                    "subgroup": "all",
                    "samples": results.samples,
                    "users": results.users,
                    "value": values[index],
                    "seed_deviation": results.deviations[name][index],
                    "p_value_as_good_as_best": results.behind[index] if name == metric else math.nan,
                }
                for name, values in results.values.items()
            ]
    return pd.DataFrame.from_records(records)


COLUMNS = ("recommender", "seeds", "metric", "value", "baseline", "gain", "95 % interval", "p (Holm)", "verdict")


def cells(results: Results, group: int) -> list[tuple[str, ...]]:
    """The lines of `COLUMNS` of a recommender: one a metric, the headline first."""
    label, number = results.groups[group].label, str(len(results.groups[group].runs))
    lines = []
    for metric in metrics(results):
        value, deviation = results.values[metric][group], results.deviations[metric][group]
        shown = f"{value:.4f}" if math.isnan(deviation) else f"{value:.4f} ± {deviation:.4f}"
        row = next((one for one in results.rows if one.group == group and one.metric == metric), None)
        tested: tuple[str, ...] = ("", "", "", "", "")
        if row is not None:
            baseline = results.groups[row.baseline].label
            tested = (baseline, gain(row), interval(row), p_value_text(row.adjusted), row.verdict)
        lines.append((label, number, metric, shown, *tested))
        label = number = ""
    return lines


def terminal_table(results: Results, most: int = 20) -> Table:
    """The main table for a terminal, of the first ``most`` recommenders; narrow, so the baseline is a line of it."""
    table = Table(title=title(results), caption=caption(results, most), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    for column in ("recommender", "metric", "value", "gain", "95 % interval", "p", "verdict"):
        right = column in ("value", "gain", "p")
        named = column == "recommender"
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=not named)
    styles = {"better": "bold green", "worse": "bold red"}
    for index in order(results)[:most]:
        described = f"{results.groups[index].label} ({seeds(results, index)})"
        rows = {row.metric: row for row in results.rows if row.group == index}
        for metric in metrics(results):
            row, value = rows.get(metric), f"{results.values[metric][index]:.4f}"
            tested: tuple[str, ...] = ("", "", "")
            if row is not None:
                tested = (f"{row.difference:+.4f}", f"{row.low:+.4f} {row.high:+.4f}", p_value_text(row.adjusted))
            verdict = row.verdict if row is not None else ""
            table.add_row(Text(described), metric, value, *tested, Text(verdict, style=styles.get(verdict, "")))
            described = f"  against {results.groups[row.baseline].label}" if row is not None else ""
    return table


def plain_text(results: Results) -> str:
    """The table of `terminal_table` with all recommenders, without colours, and the answer below."""
    written = io.StringIO()
    # In Jupyter it would show the table in place of writing it.
    console = Console(file=written, width=WIDTH, color_system=None, highlight=False, markup=False, force_jupyter=False)
    console.print(terminal_table(results, most=len(results.groups)))
    table = "\n".join(line.rstrip() for line in written.getvalue().splitlines())
    return "\n".join([table.strip("\n"), "", *answer(results)])


def title(results: Results) -> str:
    """What was compared."""
    shared = f" of {results.of}, which all of them ranked," if results.of > results.samples else ""
    return (
        f"{len(results.groups)} recommenders on {results.groups[0].runs[0].data}, {results.metric.part}: "
        f"{results.samples} samples{shared} of {results.users} users"
    )


def caption(results: Results, most: int) -> str:
    """What a table leaves out."""
    left = len(results.groups) - most
    return f"and {left} more, in comparison.csv" if left > 0 else ""


def markdown(results: Results, most: int = 50) -> str:
    """The answer, the main table and the subgroups of the best recommenders."""
    lines = [f"# {title(results)}", "", *answer(results), "", *markdown_table(COLUMNS)]
    chosen = order(results)[:most]
    lines += [markdown_row(line) for index in chosen for line in cells(results, index)]
    lines += ["", caption(results, most), "", f"## {results.metric} by subgroup", ""]
    lines += markdown_table(("recommender", "subgroup", "samples", *COLUMNS[3:]))
    for index in chosen:
        for row in results.slices:
            if row.group == index:
                where = (results.groups[index].label, f"{row.kind}: {row.subgroup}", str(row.samples))
                tested = (results.groups[row.baseline].label, gain(row), interval(row), p_value_text(row.adjusted))
                lines.append(markdown_row((*where, f"{row.value:.4f}", *tested, row.verdict)))
    return "\n".join([*lines, "", HOW_TO_READ, ""])


def markdown_table(columns: tuple[str, ...]) -> list[str]:
    """The head of a table."""
    return [markdown_row(columns), markdown_row(tuple("---" for _ in columns))]


def markdown_row(texts: tuple[str, ...]) -> str:
    """A line of a table."""
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"
