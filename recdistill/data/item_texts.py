"""An item's text, made of the columns of the items file that the user names."""

import difflib
import hashlib
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recdistill.errors import InputError

TITLE = "title"
BETWEEN = ", "
EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}")
SEPARATORS = " \t:;,|/\u2013\u2014-"  # with both dashes


def item_texts(
    titles: Sequence[str], columns: Mapping[str, Sequence[str]], item_text: str = "", text_template: str = ""
) -> tuple[str, ...]:
    """One text an item.

    Without a template the values are joined by commas; an empty value leaves none behind, and one that already stands
    in the text as a whole, as a year after a film's title, is not said again. In a template an empty value also takes
    the brackets around it and the separators at the end of the text with it. ``a|b`` in a value is read as ``a, b``.

    >>> item_texts(["Toy Story", "Heat"], {"year": ["1995", ""], "genres": ["Animation|Comedy", "Crime"]})
    ('Toy Story, 1995, Animation, Comedy', 'Heat, Crime')
    >>> item_texts(["Toy Story", "Heat"], {"year": ["1995", ""]}, text_template="{title} ({year})")
    ('Toy Story (1995)', 'Heat')

    Args:
        titles: V of them.
        columns: further columns of the items file, by name, V texts each.
        item_text: names of columns, by commas, ``title`` among the known ones; empty: the title and all columns.
        text_template: a text with names of columns in braces, ``{{`` and ``}}`` for braces; in place of ``item_text``.

    Raises:
        InputError: a column is unknown, the template is not written as above, both are given, or a column has another
            length than the titles.
    """
    if item_text and text_template:
        raise InputError(f"text_template={text_template}: item_text={item_text} is given, too; give one")
    known = {**columns, TITLE: titles}
    for name, values in known.items():
        if len(values) != len(titles):
            raise InputError(f"items: column {name!r} has {len(values)} values for {len(titles)} items")
    if text_template:
        pieces = template_pieces(text_template)
        _check_known("text_template", text_template, [name for _, name in pieces if name is not None], known)
        return tuple(_filled(pieces, known, item) for item in range(len(titles)))
    names = _names(item_text) if item_text else [TITLE, *(name for name in columns if name != TITLE)]
    _check_known("item_text", item_text, names, known)
    return tuple(_joined(plain(known[name][item]) for name in names) for item in range(len(titles)))


def columns_read(columns: Iterable[str], item_text: str = "", text_template: str = "") -> list[str]:
    """Which of the further columns, in their order, `item_texts` makes a text of.

    >>> columns_read(["year", "genres"], item_text="title,genres"), columns_read(["year"])
    (['genres'], ['year'])
    """
    if text_template:
        names = [name for _, name in template_pieces(text_template) if name is not None]
    else:
        names = _names(item_text) if item_text else list(columns)
    return [name for name in columns if name in names]


def texts_made_of(columns: Iterable[str], item_text: str = "", text_template: str = "") -> dict[str, Any]:
    """How `item_texts` makes an item's text, as JSON values, so that a new item's can be made alike.

    >>> texts_made_of(["year", "genres"], item_text="title,genres")
    {'item_text': 'title,genres', 'text_template': '', 'columns': ['genres']}
    """
    columns = columns_read(columns, item_text, text_template)
    return {"item_text": item_text, "text_template": text_template, "columns": columns}


def texts_digest(texts: Iterable[str]) -> str:
    """SHA-256 of texts in their order: what a run that reads them depends on."""
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=True).encode()).hexdigest()


def template_pieces(text_template: str) -> list[tuple[str, str | None]]:
    """A template as pairs of plain text and the column that follows it, None at the end.

    Nothing of it is evaluated: a name in braces is looked up as it stands, and formats, conversions, attributes and
    indices of Python's format strings are no part of it. Raises InputError where there are some, or a lone brace.
    """
    refused = f"text_template={text_template}:"
    try:
        parsed = list(string.Formatter().parse(text_template))
    except ValueError as error:
        raise InputError(f"{refused} {error}; write a brace that is part of the text twice") from None
    for _, name, layout, conversion in parsed:
        if name is not None and (layout or conversion or not name.strip()):
            raise InputError(f"{refused} write names of columns alone in braces, as {{title}}")
    if all(name is None for _, name, _, _ in parsed):
        raise InputError(f"{refused} names no column, so that all items have the same text; write {{title}} in it")
    return [(text, None if name is None else name.strip()) for text, name, _, _ in parsed]


def plain(value: str) -> str:
    """A value with single spaces, and commas between the parts of a list written ``a|b``."""
    return " ".join(BETWEEN.join(part.strip() for part in str(value).split("|") if part.strip()).split())


def _names(item_text: str) -> list[str]:
    """The columns that ``item_text`` names. Raises InputError where one stands twice or there is none."""
    names = [name.strip() for name in item_text.split(",") if name.strip()]
    if not names:
        raise InputError(f"item_text={item_text}: names no column; write item_text=title,year, or leave it out")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"item_text={item_text}: {twice} stands twice; name it once")
    return names


def _check_known(option: str, value: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    """Raise InputError, naming the nearest, where a name is no column."""
    for name in names:
        if name not in known:
            columns = [TITLE, *(column for column in known if column != TITLE)]
            near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
            hint = f" (nearest: {near[0]})" if near else ""
            raise InputError(
                f"{option}={value}: the items have no column {name!r}{hint}; choose of {', '.join(columns)}"
            )


def _joined(values: Iterable[str]) -> str:
    """Values joined by commas, those left out that are empty or already said."""
    text = ""
    for value in values:
        if value and not _stands_in(value, text):
            text += BETWEEN + value if text else value
    return text


def _stands_in(value: str, text: str) -> bool:
    """Whether the value stands in the text as a whole, and not as a part of a word."""
    # No regular expression: one a value would be compiled for each of a million items.
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        if not (_in_word(text[start - 1 : start]) or _in_word(text[end : end + 1])):
            return True
        start = text.find(value, start + 1)
    return False


def _in_word(character: str) -> bool:
    """Whether it is one that words are made of, as ``\\w`` of a regular expression; not where there is none."""
    return character.isalnum() or character == "_"


def _filled(pieces: Sequence[tuple[str, str | None]], known: Mapping[str, Sequence[str]], item: int) -> str:
    """The template with an item's values."""
    values = [plain(known[name][item]) if name is not None else "" for _, name in pieces]
    text = "".join(before + value for (before, _), value in zip(pieces, values, strict=True))
    if all(value or name is None for (_, name), value in zip(pieces, values, strict=True)):
        return " ".join(text.split())
    if not any(values):
        return ""
    return " ".join(EMPTY_BRACKETS.sub("", text).split()).strip(SEPARATORS)
