"""Rankings that others made: a file of user, item and rank or score, in the data's own ids."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.data.text_columns import text_of
from recdistill.errors import InputError, one_line

#: Columns, and what other libraries call them.
NAMES = {
    "user": ("user", "user_id", "query_id"),
    "item": ("item", "item_id"),
    "rank": ("rank",),
    "score": ("score", "rating", "weight", "relevance"),
}


@dataclass(frozen=True, eq=False)
class OthersRanking:
    """The lists of another recommender, one a user.

    Attributes:
        name: what it is called.
        begin: int64 [U + 1], where each user's rows begin; a user without a list has none.
        items: int64 [M], best first within a user; -1 for an item that the catalogue lacks, which keeps its place.
        goodness: float64 [M], higher is better.
        unknown_users, unknown_items: rows of the file whose user or item the data lack.
    """

    name: str
    begin: Int64Array
    items: Int64Array
    goodness: NDArray[np.float64]
    unknown_users: int
    unknown_items: int

    def ranks(self, samples: Samples, num_items: int, *, exclude_seen: bool) -> Int64Array:
        """Rank of each sample's target in its user's list, int64 [N]; V + 1 where the list lacks it.

        That is a miss at every cut-off up to V; at one above it, which every item reaches, it counts as a hit.

        With ``exclude_seen`` items of the sample's history are left out of the list first, as of our own rankings.
        Of items of equal rank or score the target counts as the last.
        """
        found = np.full(len(samples), num_items + 1, dtype=np.int64)
        targets = samples.targets
        for place in range(len(samples)):
            items, goodness = self.list_of(samples, place, exclude_seen=exclude_seen)
            at = np.flatnonzero(items == targets[place])
            if len(at):
                found[place] = int((goodness >= goodness[at[0]]).sum())
        return found

    def best(self, samples: Samples, num_items: int, k: int, *, exclude_seen: bool) -> Int64Array:
        """The first ``k`` known items of each sample's list, int64 [N, k]; V where fewer are left."""
        found = np.full((len(samples), k), num_items, dtype=np.int64)
        for place in range(len(samples)):
            items, _ = self.list_of(samples, place, exclude_seen=exclude_seen)
            first = items[:k]
            first = first[first >= 0]
            found[place, : len(first)] = first
        return found

    def list_of(self, samples: Samples, place: int, *, exclude_seen: bool) -> tuple[Int64Array, NDArray[np.float64]]:
        """Items of a sample's list and their goodness."""
        user = int(samples.user[place])
        part = slice(self.begin[user], self.begin[user + 1])
        items, goodness = self.items[part], self.goodness[part]
        if exclude_seen:
            keep = ~np.isin(items, samples.items[samples.start[place] : samples.end[place]])
            # A target that is in the history already is a miss for everybody.
            items, goodness = items[keep], goodness[keep]
        return items, goodness

    def lengths(self, samples: Samples) -> Int64Array:
        """How many rows the list of each user of the samples has, a user once."""
        return np.diff(self.begin)[np.unique(samples.user)]

    def depth(self, samples: Samples) -> str:
        """How deep the lists of one user or more are, in a line."""
        lengths = self.lengths(samples)
        told = f"{self.name}: lists of {int(np.median(lengths))} items (median; {lengths.min()} to {lengths.max()})"
        told += f" for {int((lengths > 0).sum()):,} of {len(lengths):,} users of the part"
        told += "; a target that a list lacks is a miss, whatever its rank would be"
        if self.unknown_users or self.unknown_items:
            told += f"; {self.unknown_users:,} rows of unknown users and {self.unknown_items:,} of unknown items"
        return told + "."


def read_ranking(name: str, path: Path, data: SequenceData) -> OthersRanking:
    """The lists of a Parquet or CSV file.

    Args:
        name: what to call them.
        path: the file: a row an item that is recommended to a user, with columns user, item, and rank (1 the best) or
            score (higher is better); names that RecTools, RecBole and RePlay write are known, too.
        data: whose ids they are in.

    Raises:
        InputError: the file cannot be read, lacks a column, has an item twice for a user, or no user of the data.
    """
    table = read_table(name, path)
    found = columns_of(name, path, list(table.columns))
    users, items = (text_of(table[found[column]], found[column], f"rankings={path}") for column in ("user", "item"))
    order = "rank" if "rank" in found else "score"
    goodness = pd.to_numeric(table[found[order]], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(goodness).all():
        raise InputError(f"rankings={path}: column {found[order]} holds what is no finite number; mend it")
    goodness = -goodness if order == "rank" else goodness
    twice = pd.DataFrame({"user": users, "item": items}).duplicated()
    if twice.any():
        first = int(np.flatnonzero(twice)[0])
        raise InputError(f"rankings={path}: item {items[first]} stands twice for user {users[first]}; give it one rank")
    user = numbers_of(users, data.user_ids)
    item = numbers_of(items, data.item_ids)
    known = user >= 0
    if not known.any():
        raise InputError(
            f"rankings={path}: none of its users is in the data (the first is {users[0] if len(users) else 'none'!r}, "
            f"the data have {data.user_ids[0]!r}); write the data's own ids"
        )
    unknown = int((~known).sum()), int((item < 0).sum())
    user, item, goodness = user[known], item[known], goodness[known]
    sorted_rows = np.lexsort((-goodness, user))
    begin = np.searchsorted(user[sorted_rows], np.arange(len(data.user_ids) + 1))
    return OthersRanking(name, begin.astype(np.int64), item[sorted_rows], goodness[sorted_rows], *unknown)


def read_table(name: str, path: Path) -> pd.DataFrame:
    """A file's rows, ids of CSV as text."""
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path).reset_index(drop=True)
        if path.name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            # "NA" is an id like another, and a row with too many fields shifts no columns.
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                separator = "\t" if ".tsv" in path.name else ","
                return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError, UnicodeError, pd.errors.ParserWarning) as error:
        raise InputError(f"rankings={path}: cannot be read ({one_line(error)}); give a Parquet or CSV file") from None
    raise InputError(f"rankings={path}: is of no known form; give a .parquet, .csv or .tsv file")


def columns_of(name: str, path: Path, given: list[str]) -> dict[str, str]:
    """The file's own name of each column."""
    plain = {str(one).split(":")[0].lower(): str(one) for one in given}
    found = {
        column: next(plain[one] for one in known if one in plain)
        for column, known in NAMES.items()
        if any(one in plain for one in known)
    }
    missing = [column for column in ("user", "item") if column not in found]
    if "rank" not in found and "score" not in found:
        missing.append("rank (or score)")
    if missing:
        raise InputError(f"rankings={path}: has no column {', '.join(missing)}, but {', '.join(map(str, given))}")
    return found


def numbers_of(ids: pd.Series, known: tuple[str, ...]) -> Int64Array:
    """Place of each id among those that are known; -1 where it is not."""
    return pd.Index(known).get_indexer(pd.Index(ids)).astype(np.int64)
