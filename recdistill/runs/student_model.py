"""A recommender as an MLflow model. MLflow keeps a copy of this file in each model and runs it where one is loaded.

There recdistill may be missing, or be of another version: so this file imports none of it, and the recommender's own
code comes with the model, in its artifact ``student``:

    student.safetensors, student.json   the recommender, `students.build.save_recommender`
    catalogue.json                      item_ids, titles and item_count, by item; exclude_seen; retired positions
    code/                               the files of recdistill, and of a user's plugin, that are needed to run it
    modules.json                        names of the user's modules among them, which register the recommender

Input: a frame with a column ``history`` of lists of item ids, as the source of the data writes them, oldest first;
optional columns ``k`` (how many items to recommend, 10 where missing or null), ``exclude`` (lists of item ids never
to recommend) and ``allowed_items`` (lists of the only item ids to recommend; all where missing or null). Ids that the
model does not know are skipped, in all of these lists. Retired items are never recommended; histories may hold them.

A scoring server takes the same as JSON, or as ``text/csv`` with a header, where a list is written as JSON or its ids
are separated by ``|``, by commas where no row has a ``|``.

Output: for each row ``items``, ``titles`` and ``scores``, best first; ``unknown_items``, how many items of the history
were skipped; and ``fallback``: whether the history held no known item (or nothing), so that the most popular items are
recommended, their scores being how often each is a training target.
"""

import csv
import importlib
import io
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

DEFAULT_K = 10
LISTS = ("history", "exclude", "allowed_items")
SERVER = "mlflow.pyfunc.scoring_server"


class StudentModel(PythonModel):
    """Recommends the next items for histories of item ids."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the recommender and its catalogue from the model's artifacts."""
        take_csv()
        folder = Path(context.artifacts["student"])
        catalogue, modules = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("catalogue.json", "modules.json")
        )
        self.item_ids: list[str] = catalogue["item_ids"]
        self.titles: list[str] = catalogue["titles"]
        with own_code(folder / "code"):
            build = importlib.import_module("recdistill.students.build")
            serving = importlib.import_module("recdistill.students.serving")
            for name in modules:
                importlib.import_module(name)
            # Here too: it imports the file of the recommender.
            loaded = build.load_recommender(folder)
        self.recommender = serving.ItemRecommender(
            loaded, self.item_ids, catalogue["item_count"], catalogue["exclude_seen"], catalogue.get("retired", ())
        )

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Recommendations for each row; see the top of this file. Raises MlflowException for a bad row."""
        if "history" not in model_input:
            raise bad_input("there is no column history; give lists of item ids, oldest first")
        absent = [None] * len(model_input)
        histories = [item_list(value, row, "history") for row, value in enumerate(model_input["history"])]
        wanted = [how_many(value, row) for row, value in enumerate(model_input.get("k", absent))]
        exclude = [
            [] if missing(value) else item_list(value, row, "exclude")
            for row, value in enumerate(model_input.get("exclude", absent))
        ]
        allowed = [
            None if missing(value) else item_list(value, row, "allowed_items")
            for row, value in enumerate(model_input.get("allowed_items", absent))
        ]
        answers = self.recommender.recommend(histories, wanted, exclude, allowed)
        return pd.DataFrame(
            {
                "items": [[self.item_ids[item] for item in answer.items] for answer in answers],
                "titles": [[self.titles[item] for item in answer.items] for answer in answers],
                "scores": [answer.scores for answer in answers],
                "unknown_items": [answer.unknown for answer in answers],
                "fallback": [answer.fallback for answer in answers],
            }
        )


def take_csv() -> None:
    """Have the scoring server, where this process is one, read ``text/csv`` for this kind of model by `csv_table`.

    MLflow reads it by the types of the signature's columns, and refuses all of it where one is of lists.
    """
    server = sys.modules.get(SERVER)
    if server is None or hasattr(server.parse_csv_input, "before"):
        return
    before = server.parse_csv_input

    def parse_csv_input(csv_input: TextIO, schema: Any = None) -> pd.DataFrame:
        is_ours = schema is not None and schema.input_names()[:1] == ["history"]
        table: pd.DataFrame = csv_table(csv_input.read()) if is_ours else before(csv_input, schema)
        return table

    parse_csv_input.before = before  # type: ignore[attr-defined]
    server.parse_csv_input = parse_csv_input  # type: ignore[attr-defined]


def csv_table(text: str) -> pd.DataFrame:
    """The rows of a text of CSV, lists as lists and ``k`` as numbers. Raises MlflowException for a bad row."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True) if row]
    except csv.Error as error:
        raise bad_input(f"text/csv: {error}") from None
    names, *rows = rows or [[""]]
    names = [name.strip() for name in names]
    if len(names) == 1:
        # Then a comma is no new field, quoted or not.
        rows = [[",".join(row)] for row in rows]
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise bad_input(f"row {number}: has {len(row)} fields, the header {len(names)}; quote lists of ids")
    table = pd.DataFrame({name: [row[place].strip() for row in rows] for place, name in enumerate(names)}, dtype=object)
    for name in table.columns.intersection(list(LISTS)):
        separator = "|" if any("|" in cell for cell in table[name]) else ","
        lists = [list_of_cell(cell, separator, row, name) for row, cell in enumerate(table[name])]
        table[name] = pd.Series(lists, dtype=object)
    if "k" in table:
        table["k"] = pd.Series([number_of_cell(cell) for cell in table["k"]], dtype=object)
    return table


def number_of_cell(cell: str) -> float | str | None:
    """A number, None of a blank cell; another text as it is, which is refused later."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


def list_of_cell(cell: str, separator: str, row: int, column: str) -> list[str] | None:
    """The ids of a cell; of a blank one none, or where the column need not be filled no list."""
    if cell.startswith("["):
        try:
            return list(json.loads(cell))
        except (ValueError, RecursionError):
            raise bad_input(f"row {row}: {column} is {cell!r}; write a list as JSON does") from None
    found = [one.strip() for one in cell.split(separator) if one.strip()]
    return found if found or column == "history" else None


@contextmanager
def own_code(folder: Path) -> Iterator[None]:
    """While it lasts, what lies in the folder is imported from there; modules of the same names stay what they are."""
    own = {path.stem for path in folder.iterdir()}

    def loaded() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in own}

    installed = loaded()
    for name in installed:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(installed)


def item_list(value: Any, row: int, column: str) -> list[str]:
    """The ids as a list of text."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise bad_input(f"row {row}: {column} is {value!r}; give a list of item ids")
    items = list(value)
    if not all(isinstance(item, str) for item in items):
        raise bad_input(f"row {row}: {column} holds an id that is no text; write ids as the data's source does")
    # As the source of the data has it, white space around an id is no part of it.
    return [item.strip() for item in items]


def how_many(value: Any, row: int) -> int:
    """The row's k."""
    if missing(value):
        return DEFAULT_K
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not number.is_integer() or number < 1:
        raise bad_input(f"row {row}: k is {value}; give a whole number of at least 1")
    return int(number)


def missing(value: Any) -> bool:
    """Whether a cell of an optional column is empty."""
    return value is None or (not hasattr(value, "__iter__") and bool(pd.isna(value)))


def bad_input(message: str) -> MlflowException:
    """An error that a server answers with status 400."""
    return MlflowException.invalid_parameter_value(message)


set_model(StudentModel())
