"""What recommenders say to a few users, side by side: as Markdown, and as one HTML page that needs no other file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recdistill.report.document import document, scrolled, table_head

HIT = "✓"
# Whatever Markdown would take for markup.
MARKUP = re.compile(r"([\\`*_\[\]<>|~#&$])")
OWN_STYLE = """
.history { color: var(--quiet); margin: 0 0 2px; }
.next { margin: 0 0 8px; }
.titles { table-layout: fixed; min-width: 36em; }
.titles th:first-child, .titles td:first-child { width: 2em; }
td.hit { color: var(--better); font-weight: 600; }
"""


@dataclass(frozen=True)
class Example:
    """A test sample and what each recommender made of it.

    Attributes:
        user: the user's id.
        history: titles of the last items of the history, oldest first.
        earlier: how many items stand before those.
        following: title of the item that came next.
        recommended: for each recommender, in the page's order, its titles, best first, each with whether it is the
            item that came next (another item may have the same title).
    """

    user: str
    history: tuple[str, ...]
    earlier: int
    following: str
    recommended: tuple[tuple[tuple[str, bool], ...], ...]

    @property
    def past(self) -> str:
        """'(12 before) → A → B'."""
        before = f"({self.earlier} before) → " if self.earlier else ""
        return before + " → ".join(self.history)

    def lines(self) -> list[list[tuple[str, bool]]]:
        """The table's lines: the first titles of all recommenders, the second ones, and so on; ('', False) for none."""
        most = max((len(titles) for titles in self.recommended), default=0)
        return [
            [titles[place] if place < len(titles) else ("", False) for titles in self.recommended]
            for place in range(most)
        ]


def examples_markdown(names: Sequence[str], examples: Sequence[Example], note: str) -> str:
    """The examples as Markdown.

    Args:
        names: the recommenders.
        examples: each with recommendations of all of them.
        note: what stands on top, plain text.
    """
    lines = ["# Recommendations, side by side", "", plain(note), ""]
    for example in examples:
        lines += [f"## User {plain(example.user)}", "", f"History: {plain(example.past)}", ""]
        lines += [f"Next: **{plain(example.following)}**", ""]
        lines += [f"| | {' | '.join(map(plain, names))} |", f"| ---: |{' --- |' * len(names)}"]
        for place, titles in enumerate(example.lines(), start=1):
            marked = (f"**{plain(title)}** {HIT}" if hit else plain(title) for title, hit in titles)
            lines.append(f"| {place} | {' | '.join(marked)} |")
        lines.append("")
    return "\n".join(lines)


def plain(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def examples_page(names: Sequence[str], examples: Sequence[Example], note: str) -> str:
    """The examples as HTML; arguments as in `examples_markdown`."""
    sections = (section(names, example) for example in examples)
    return document("Recommendations, side by side", [f'<p class="quiet">{escape(note)}</p>', *sections], OWN_STYLE)


def section(names: Sequence[str], example: Example) -> str:
    """One user."""
    body = []
    for place, titles in enumerate(example.lines(), start=1):
        cells = (
            f'<td class="hit">{HIT} {escape(title)}</td>' if hit else f"<td>{escape(title)}</td>"
            for title, hit in titles
        )
        body.append(f'<tr class="first"><td class="number">{place}</td>{"".join(cells)}</tr>')
    shown = f'<table class="titles">{table_head(("", *names), {0})}<tbody>{"".join(body)}</tbody></table>'
    return (
        f"<section><h2>User {escape(example.user)}</h2>"
        f'<p class="history">History: {escape(example.past)}</p>'
        f'<p class="next">Next: <b>{escape(example.following)}</b></p>'
        f"{scrolled(shown, f'recommendations for user {example.user}')}</section>"
    )
