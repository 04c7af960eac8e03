"""What a finished cell measured, as files: ``<cell>.json`` and, beside it, the ranks of its test samples."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from recdistill.errors import InputError, one_line
from recdistill.study.contents import AtHand, Contents
from recdistill.study.plan import Cell
from recdistill.whole_files import whole_file

RANKS = ("user", "item", "rank", "rank_among_new", "item_count")


@dataclass(frozen=True)
class CellResult:
    """What a cell measured.

    Attributes:
        key: of the cell that it is the result of, see `Cell.key`.
        run_id: of the run.
        store: where runs were tracked, without a password.
        metrics: last metrics of the run.
        seconds: that it took; 0 where the run was there already.
        options: what the plan gave the step.
        fingerprint: of the data.
        versions: of the packages.
        commit: of the code.
        machine: processor and threads.
        upstream: ids of the runs that it started from, by option.
        files, undrawn: what it was made of that is the user's own, see `Contents`; earlier versions kept none.
    """

    key: str
    run_id: str
    store: str
    metrics: Mapping[str, float]
    seconds: float
    options: Mapping[str, Any]
    fingerprint: str
    versions: Mapping[str, str]
    commit: str
    machine: str
    upstream: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    undrawn: str = ""


def read_cell(folder: Path, cell: Cell, at_hand: AtHand | None = None) -> CellResult | None:
    """The result of a cell; None where it is missing, or of another plan or, with ``at_hand``, other data or files."""
    found = read_result(folder / f"{cell.name}.json")
    if found is None or found.key != cell.key:
        return None
    return found if at_hand is None or at_hand.fits(cell, Contents(found.files, found.undrawn)) else None


def cells_to_make(cells: Iterable[Cell], folder: Path, at_hand: AtHand, *, force: bool = False) -> list[Cell]:
    """Those of the cells that no kept result answers for; with ``force`` all of them."""
    return [cell for cell in cells if force or read_cell(folder, cell, at_hand) is None]


def read_result(path: Path) -> CellResult | None:
    """The result in a file; None where there is no such file. Raises InputError where it holds something else."""
    try:
        return CellResult(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: is no result of a study ({one_line(error)}); delete it") from None


def write_cell(folder: Path, cell: Cell, result: CellResult, ranks: pd.DataFrame) -> None:
    """Write both files of a cell; the JSON file, which makes it finished, last.

    That of a cell that is made again goes before the new ranks come, so that a kill leaves no old metrics beside them;
    where a file cannot be written, both stay as they were.
    """
    target = folder / f"{cell.name}.json"
    kept = ranks[[name for name in RANKS if name in ranks.columns]]
    # The ranks take their name first: the inner block ends first.
    with whole_file(target) as place, whole_file(ranks_file(folder, cell)) as ranks_place:
        place.write_text(json.dumps(asdict(result), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        kept.to_parquet(ranks_place, index=False, compression="zstd")
        target.unlink(missing_ok=True)


def read_ranks(folder: Path, cell: Cell) -> pd.DataFrame:
    """Ranks of a finished cell's test samples.

    Columns user, item, rank, rank_among_new (0 for a trained target), item_count.
    """
    path = ranks_file(folder, cell)
    try:
        found = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}); delete {cell.name}.json to make it again"
        ) from None
    return found if "rank_among_new" in found.columns else found.assign(rank_among_new=0)


def ranks_file(folder: Path, cell: Cell) -> Path:
    """Where a cell's ranks lie."""
    return folder / f"{cell.name}.parquet"
