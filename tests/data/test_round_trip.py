"""Any table of users, items, times and titles is the same data however it is written."""

import csv
import gzip
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from recdistill.config.data import DataConfig
from recdistill.data.frames import data_from_frames
from recdistill.data.load import load_data

Write = Callable[[Path, pd.DataFrame, pd.DataFrame], dict[str, str]]


def files(folder: Path, ending: str) -> tuple[Path, Path, dict[str, str]]:
    log, items = folder / f"log{ending}", folder / f"items{ending}"
    return log, items, {"dataset": "csv", "interactions": str(log), "items": str(items)}


def separated(separator: str, quoting: int = csv.QUOTE_MINIMAL, line_end: str = "\n", zipped: bool = False) -> Write:
    def write(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
        *paths, options = files(folder, ".txt")
        for path, table in zip(paths, (log, items), strict=True):
            text = table.to_csv(sep=separator, index=False, quoting=quoting, lineterminator=line_end)  # type: ignore[call-overload]
            path.write_bytes(gzip.compress(text.encode(), mtime=0) if zipped else text.encode())
        return options

    return write


def parquet(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
    *paths, options = files(folder, ".parquet")
    for path, table in zip(paths, (log, items), strict=True):
        table.to_parquet(path)
    return options


def parquet_folder(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
    *paths, options = files(folder, "")
    for path, table in zip(paths, (log, items), strict=True):
        path.mkdir()
        for part, start in enumerate(range(0, len(table), 5)):
            table[start : start + 5].to_parquet(path / f"part-{part:05}.parquet")
    return options


def parquet_of_types(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
    return parquet(folder, log.assign(timestamp=pd.to_datetime(log["timestamp"].astype("int64"), unit="s")), items)


def dates(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    times = [(begin + timedelta(seconds=int(time))).strftime("%Y-%m-%d %H:%M:%S.277 UTC") for time in log["timestamp"]]
    return separated(",")(folder, log.assign(timestamp=times), items)


def recbole(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
    for name, table in (("inter", log), ("item", items)):
        types = {"user": "user_id:token", "item": "item_id:token", "timestamp": "timestamp:float"}
        header = [types.get(column, f"{column}:token_seq") for column in table]
        rows = ["\t".join(row) for row in (header, *table.values.tolist())]
        (folder / f"data.{name}").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {"dataset": "recbole", "interactions": str(folder)}


def other_names(folder: Path, log: pd.DataFrame, items: pd.DataFrame) -> dict[str, str]:
    names = {"user": "customer id", "item": "sku", "timestamp": "bought;at", "title": "user"}
    columns = ",".join(f"{column}:{name}" for column, name in names.items())
    log, items = log.rename(columns=names).assign(item="x", title="y"), items.rename(columns=names)
    return separated(";")(folder, log, items) | {"columns": columns}


WRITERS: dict[str, Write] = {
    "csv": separated(","),
    "quoted csv": separated(",", csv.QUOTE_ALL, "\r\n"),
    "tabs": separated("\t"),
    "semicolons": separated(";"),
    "bars": separated("|"),
    "gzipped": separated(";", zipped=True),
    "parquet": parquet,
    "parquet of types": parquet_of_types,
    "folder of parquet": parquet_folder,
    "dates with fractions": dates,
    "recbole": recbole,
    "other names": other_names,
}
# Text without what ends a line or a field of RecBole's, and not beginning as a quoted field.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\t\0"), min_size=1, max_size=8).map(
    str.strip
)
NUMBERS = st.sampled_from(["1995", "1995.0", "9.5", ""])
IDS = st.lists(TEXT.filter(lambda text: text not in ("", '"')), min_size=3, max_size=6, unique=True)


QUICK = ("csv", "parquet", "dates with fractions", "recbole")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WRITERS]
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(IDS, IDS, st.data())
def test_every_way_of_writing_is_the_same_data(
    name: str, users: list[str], items: list[str], data: st.DataObject
) -> None:
    titles = data.draw(st.lists(TEXT.filter(bool), min_size=len(items), max_size=len(items)))
    row = st.tuples(st.sampled_from(users), st.sampled_from(items), st.integers(-(10**9), 2 * 10**9))
    rows = [(user, item, time) for user in users for time, item in enumerate(items)] + data.draw(
        st.lists(row, max_size=20)
    )
    log = pd.DataFrame([(user, item, str(time)) for user, item, time in rows], columns=["user", "item", "timestamp"])
    notes = data.draw(st.lists(TEXT | NUMBERS, min_size=len(items), max_size=len(items)))
    catalogue = pd.DataFrame({"item": items, "title": titles, "a note": notes})
    assume(len(log.drop_duplicates()) > 3 * len(users))
    expected = data_from_frames(log, catalogue)
    with tempfile.TemporaryDirectory() as folder:
        found = load_data(DataConfig(**WRITERS[name](Path(folder), log, catalogue)))
    assert found.fingerprint == expected.fingerprint
    assert (found.user_ids, found.item_ids, found.titles) == (expected.user_ids, expected.item_ids, expected.titles)
    assert found.item_columns == expected.item_columns
    assert list(found.item_columns) == ["a note"]
