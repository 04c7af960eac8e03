"""``dataset=recbole``: RecBole's atomic files, ``.inter`` and ``.item``, whose headers have types."""

from pathlib import Path

import pandas as pd

from recdistill.config.data import DataConfig
from recdistill.data.columns import INTERACTION_COLUMNS, Headers, headers_of, pick, refuse_unused
from recdistill.data.interactions import Interactions
from recdistill.data.item_columns import further_columns, without_point_zero
from recdistill.data.sources.ml_100k import title_with_year
from recdistill.data.streamed_columns import columns_of_table, streamed_text
from recdistill.data.table_files import existing_file, say_taken
from recdistill.data.tables import interactions_of_columns
from recdistill.data.text_files import Layout, read_fields, read_layout
from recdistill.errors import InputError
from recdistill.registry import SOURCES

INTERACTIONS, ITEMS = ".inter", ".item"
#: RecBole's names of the columns.
HEADERS = {"user": ("user_id",), "item": ("item_id",), "timestamp": ("timestamp",)}
#: What a column of titles ends in; the first that the file has.
TITLE_ENDINGS = ("title", "name")
YEAR = "release_year"
#: Types of the columns that item texts can be made of; the others are numbers.
TEXT_TYPES = ("token", "token_seq", "")


@SOURCES.register("recbole", columns=True)
def recbole(config: DataConfig) -> Interactions:
    """Read a ``.inter`` file or the folder that holds one, and the ``.item`` file beside it, or ``items``.

    Columns are user_id, item_id and timestamp, unless ``columns`` says otherwise. The title is the column of the items
    that is called so, or ends in 'title', or in 'name'; a release_year is added to it, as RecBole took it from there.
    Without such a column or file titles are the ids. Columns of the types
    token and token_seq are kept for item texts. Fields are never quoted. Raises InputError, one line.
    """
    headers = headers_of(config.columns)
    path = interactions_file(existing_file("interactions", config.interactions, "recbole", folders=True))
    layout = read_layout(path, (), quoted=False)
    used = pick_typed(layout, INTERACTION_COLUMNS, headers, path)
    columns = streamed_text(path, layout, used)
    if columns is None:
        columns = columns_of_table(read_fields(path, layout, used), str(path), used, layout.form)
    say_taken(path, f"RecBole, {columns.form}", used, len(columns))
    items_path = items_file(path, config.items)
    if items_path is None:
        items, of_items = pd.DataFrame({"item": columns.item.texts, "title": ""}), dict[str, str]()
    else:
        items, of_items = read_items(items_path, headers)
    refuse_unused(config.columns, headers, bare_names(used), bare_names(of_items))
    place = str(items_path or f"{path} (no {ITEMS} file)")
    return interactions_of_columns(
        columns.user, columns.item, columns.timestamps, str(path), items, place, config.missing_titles
    )


def is_atomic(name: str) -> bool:
    """Whether a path ends as RecBole's interactions do, gzipped or not."""
    return name.removesuffix(".gz").endswith(INTERACTIONS)


def interactions_file(path: Path) -> Path:
    """The one file of interactions that a path stands for. Raises InputError where it is none, or one of several."""
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if is_atomic(file.name))
    if len(found) != 1:
        held = f"holds {', '.join(file.name for file in found[:4])}" if found else f"holds no {INTERACTIONS} file"
        raise InputError(f"{path}: {held}; give one file as interactions=")
    return found[0]


def items_file(path: Path, items: str) -> Path | None:
    """The file of the items: the one given, else the one beside the interactions, None where there is none."""
    if items:
        return existing_file("items", items, "recbole")
    name = path.name.removesuffix(".gz").removesuffix(INTERACTIONS)
    beside = [path.with_name(f"{name}{ITEMS}{zipped}") for zipped in ("", ".gz")]
    return next((file for file in beside if file.is_file()), None)


def read_items(path: Path, headers: Headers) -> tuple[pd.DataFrame, dict[str, str]]:
    """Items and titles, with the year where the file has one, and the headers that they were taken from."""
    layout = read_layout(path, (), quoted=False)
    names = [bare(name) for name in layout.names]
    ending = next((one for one in TITLE_ENDINGS if any(name.endswith(one) for name in names)), None)
    titles = [name for name in names if ending is not None and name.endswith(ending)]
    if len(titles) > 1 and "title" not in headers:
        if ending not in titles:
            raise InputError(f"{path}: titles may be in {' or '.join(titles)}; say which: columns=title:{titles[0]}")
        titles = [str(ending)]
    of_titles = headers if "title" in headers or not titles else {**headers, "title": (titles[0],)}
    used = pick_typed(layout, ("item", "title") if "title" in of_titles else ("item",), of_titles, path)
    year = next((name for name in layout.names if bare(name) == YEAR), None)
    others = further_columns(names, bare_names(used).values())
    texts = [name for name in layout.names if bare(name) in others and (type_of(name) in TEXT_TYPES or name == year)]
    table = read_fields(path, layout, used, texts)
    say_taken(path, f"RecBole, {layout.form}", used, len(table), [bare(name) for name in texts])
    title = table["title"] if "title" in table else pd.Series("", index=table.index)
    if year is not None:
        title = pd.Series(
            [title_with_year(text, of) if text else "" for text, of in zip(title, table[year], strict=True)]
        )
    items = pd.DataFrame({"item": table["item"], "title": title})
    for name in texts:
        items[bare(name)] = without_point_zero(table[name].tolist())
    return items, used


def bare(name: str) -> str:
    """A header without its type.

    >>> bare("user_id:token")
    'user_id'
    """
    return name.rpartition(":")[0] or name


def type_of(name: str) -> str:
    """The type in a header, empty where it has none.

    >>> type_of("class:token_seq")
    'token_seq'
    """
    return name.rpartition(":")[2] if ":" in name else ""


def bare_names(used: dict[str, str]) -> dict[str, str]:
    """Headers without their types, by column."""
    return {column: bare(name) for column, name in used.items()}


def pick_typed(layout: Layout, columns: tuple[str, ...], headers: Headers, path: Path) -> dict[str, str]:
    """The header of each column, with its type. Raises InputError where one is missing."""
    names = {bare(name): name for name in layout.names}
    used = pick(list(names), columns, {**HEADERS, **headers}, str(path))
    return {column: names[name] for column, name in used.items()}
