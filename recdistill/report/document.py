"""The design of all reports: one HTML page that needs no other file, the answer first, for any screen."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from recdistill.report.theme import DARK, LIGHT, NARROW, WIDE, Theme

#: Pages up to this many pixels wide get the narrow plots.
PHONE = 640
VERDICTS = ("better", "worse", "unclear", "not below")
STYLE = (
    f":root {{ color-scheme: light dark; {LIGHT.css} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {DARK.css} }} }}\n"
    """
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
  background: var(--page); margin: 0; }
main { max-width: 1240px; margin: 0 auto; padding: 20px 20px 48px; }
h1 { font-size: 15px; font-weight: 600; color: var(--quiet); margin: 0 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 8px; }
section, details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px;
  margin-bottom: 14px; min-width: 0; }
.answer { border-left: 6px solid var(--unclear); }
.answer.better { border-left-color: var(--better); }
.answer.worse { border-left-color: var(--worse); }
.answer p { margin: 3px 0; color: var(--quiet); overflow-wrap: anywhere; }
.answer p:first-of-type { font-size: 19px; line-height: 1.35; color: var(--ink); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px;
  margin-bottom: 14px; }
.plots section { margin: 0; }
img { display: block; width: 100%; max-width: 760px; height: auto; }
.whole img { max-width: none; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 3px solid var(--better); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 13px; border-bottom: 1px solid var(--line); }
th, td { padding: 4px 12px 4px 0; vertical-align: top; }
tr.first td { border-top: 1px solid var(--grid); }
tr:not(.first) td { color: var(--quiet); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.best { font-weight: 600; }
thead td { border-bottom: 1px solid var(--line); }
td:first-child:not(.number) { min-width: min(14em, 32vw); }
td.name { min-width: 9em; }
.chip { border: 1px solid var(--unclear); border-radius: 10px; padding: 0 8px; font-size: 13px; white-space: nowrap;
  color: var(--unclear); }
.chip.better { border-color: var(--better); color: var(--better); font-weight: 600; }
.chip.worse { border-color: var(--worse); color: var(--worse); font-weight: 600; }
summary { cursor: pointer; font-weight: 600; }
summary + * { margin-top: 10px; }
details li { margin: 4px 0; }
code, pre { font-size: 13px; overflow-wrap: anywhere; white-space: pre-wrap; }
.quiet { color: var(--quiet); font-size: 13px; margin: 8px 0 0; }
"""
    f"@media (max-width: {PHONE}px) {{ main {{ padding: 12px 10px 32px; }} section, details {{ padding: 12px; }} }}\n"
)

#: Draws SVG in a theme, so many inches wide.
Draw = Callable[[Theme, float], str]


def document(title: str, parts: Iterable[str], style: str = "", script: str = "") -> str:
    """The whole page.

    Args:
        title: plain text, also the page's heading.
        parts: HTML.
        style, script: what only this page has of them.
    """
    name = escape(title)
    end = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{name}</title><style>{STYLE}{style}</style></head>'
        f"<body><main><h1>{name}</h1>{''.join(parts)}</main>{end}</body></html>\n"
    )


def answer_section(sentences: Sequence[str], verdict: str = "unclear") -> str:
    """The answer: the first sentence large, a mark in the verdict's colour."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f'<section class="answer {verdict if verdict in VERDICTS[:2] else "unclear"}">{said}</section>'


def picture(heading: str, alternative: str, draw: Draw, *, whole: bool = False) -> str:
    """A plot as images inside the page, of which a browser shows that of its theme and width.

    As images they can run no script and share no ids with others.

    Args:
        heading: what stands above.
        alternative: what the plot shows, in words.
        draw: draws it.
        whole: as wide as the page.
    """
    sources = []
    for theme, scheme in ((DARK, "dark"), (LIGHT, "light")):
        for width, size in ((NARROW, f" and (max-width: {PHONE}px)"), (WIDE, "")):
            address = image(draw(theme, width))
            sources.append(f'<source media="(prefers-color-scheme: {scheme}){size}" srcset="{address}">')
    # The last one is that of every browser that none of the others fits.
    last = sources.pop().partition('srcset="')[2].removesuffix('">')
    text = escape(alternative, quote=True)
    return (
        f"<section{' class=whole' if whole else ''}><h2>{escape(heading)}</h2><picture>{''.join(sources)}"
        f'<img alt="{text}" src="{last}"></picture></section>'
    )


def image(svg: str) -> str:
    """SVG text as an address."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def plots(pictures: Iterable[str]) -> str:
    """Pictures side by side where there is room."""
    return f'<div class="plots">{"".join(pictures)}</div>'


def details(summary: str, content: str, *, is_open: bool = False) -> str:
    """HTML that is shown when its summary is clicked on."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int], name: str) -> str:
    """A table that can be scrolled sideways, also by keyboard.

    Args:
        columns: their titles; an empty one is that of an unnamed column.
        rows: HTML of the cells.
        numbers: columns that stand to the right.
        name: what the table is, for readers who do not see it.
    """
    right = set(numbers)
    body = "".join(
        '<tr class="first">'
        + "".join(f"<td{' class=number' if place in right else ''}>{cell}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return scrolled(f"<table>{table_head(columns, right)}<tbody>{body}</tbody></table>", name)


def scrolled(content: str, name: str) -> str:
    """Wide HTML in a region of its own."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name, quote=True)}">{content}</div>'


def table_head(columns: Sequence[str], numbers: Iterable[int]) -> str:
    """The head of a table; the columns of ``numbers`` stand to the right."""
    right = set(numbers)
    made = "".join(
        f"<{'th scope=col' if column else 'td'}{' class=number' if place in right else ''}>{escape(column)}"
        f"</{'th' if column else 'td'}>"
        for place, column in enumerate(columns)
    )
    return f"<thead><tr>{made}</tr></thead>"


def chip(verdict: str) -> str:
    """The verdict as a word in a frame of its colour; nothing for none."""
    return f'<span class="chip {verdict}">{escape(verdict)}</span>' if verdict in VERDICTS else ""


def definitions(pairs: Mapping[str, str]) -> str:
    """Names and texts as a table of two columns."""
    return table(("", ""), [(f"<b>{escape(name)}</b>", escape(text)) for name, text in pairs.items()], (), "values")
