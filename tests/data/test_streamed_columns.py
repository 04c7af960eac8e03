"""Files read part by part: the same numbers, or none, where all is read at once."""

import gzip
import io

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill.config.data import DataConfig
from recdistill.data import streamed_columns as streamed
from recdistill.data.sources import csv_files as source
from recdistill.data.sources import recbole as atomic
from recdistill.errors import InputError

FIELD = st.one_of(
    st.sampled_from(
        ["", " ", "a", " a", "a\x1f", "7", "7.0", "007", "-0", "é", "\ufeffa", '"a"', 'a"', "NA", "b\r", "\u2028"]
    ),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=[","]), max_size=3),
)
ID = st.one_of(st.sampled_from(["a", "b", "7", "7.0", "007", " a", "a ", "ü", "1e5"]), FIELD)
WHOLE = st.integers(-(10**12), 10**12).map(str)
MOMENT = st.one_of(
    WHOLE,
    st.sampled_from(["5", " 5", "5.0", "5.25", "1e3", "+5", "", "0x1A", "2024-05-01", "2024-05-01 10:00:00 UTC", "x"]),
    st.sampled_from(["1714557600", "1714557600123", "9223372036854775807", "99999999999999999999"]),
)
ROWS = st.one_of(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["7", "7.0", "x"]), WHOLE), min_size=1, max_size=8),
    st.lists(st.tuples(ID, ID, MOMENT), min_size=1, max_size=6),
    st.lists(st.tuples(ID, ID, st.sampled_from(["2024-05-01", "2024-05-01T10:00:00.5Z"])), min_size=1, max_size=6),
)
PARQUET_TIMES = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6),
    st.lists(st.one_of(st.none(), st.floats(width=64)), min_size=1, max_size=6),
    st.lists(st.integers(0, 2**40).map(float), min_size=1, max_size=6),
    st.lists(st.datetimes(), min_size=1, max_size=6),
    st.lists(MOMENT, min_size=1, max_size=6),
)


def answer(read):
    """All that a reading gives, or what it refuses, and the lines that it says."""
    said = []
    patched = pytest.MonkeyPatch()
    for name in ("table_files", "tables", "timestamps", "text_files"):
        patched.setattr(f"recdistill.data.{name}.notice", said.append)
    try:
        found = read()
        arrays = [(one.dtype, one.tolist()) for one in (found.user, found.item, found.timestamp)]
        return arrays, found.user_ids, found.item_ids, found.titles, found.source, said
    except InputError as error:
        return str(error), said
    finally:
        patched.undo()


def both(path, items, monkeypatch_source=source, **options):
    """The answers of the fast way, where it is taken, and of the other one."""
    config = DataConfig(interactions=str(path), items=str(items), **options)
    taken = []

    def seen(found):
        taken.append(found is not None)
        return found

    read = getattr(monkeypatch_source, options["dataset"] if options["dataset"] == "recbole" else "csv_files")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("streamed_columns", "streamed_text"):
            if hasattr(monkeypatch_source, name):
                way = getattr(streamed, name)
                patched.setattr(monkeypatch_source, name, lambda *given, way=way: seen(way(*given)))
        fast = answer(lambda: read(config))
        for name in ("streamed_columns", "streamed_text"):
            if hasattr(monkeypatch_source, name):
                patched.setattr(monkeypatch_source, name, lambda *given: None)
        slow = answer(lambda: read(config))
    return fast, slow, any(taken)


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item,title\n7,Seven\n7.0,\nx,Letter\na,A\n")
    return path


KEPT = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KEPT
@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n", "\n\n"]), separator=st.sampled_from(",;\t"), zipped=st.booleans())
def test_text_is_read_the_same_both_ways(tmp_path, items, rows, end, separator, zipped):
    content = end.join(separator.join(row) for row in [("user", "item", "timestamp"), *rows]).encode()
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(content) if zipped else content)
    fast, slow, _ = both(path, items, dataset="csv")
    assert fast == slow


@KEPT
@given(rows=ROWS, block=st.integers(1, 40))
def test_so_is_text_of_many_blocks(tmp_path, items, rows, block):
    path = tmp_path / "log.csv"
    path.write_text("note,user,item,timestamp\n" + "".join(f"n,{','.join(row)}\n" for row in rows), newline="")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streamed, "BLOCK", block)
        fast, slow, _ = both(path, items, dataset="csv")
    assert fast == slow


@KEPT
@given(rows=ROWS)
def test_so_are_atomic_files_where_quotes_are_text(tmp_path, items, rows):
    path = tmp_path / "log.inter"
    table = [("user_id:token", "item_id:token", "timestamp:float"), *rows]
    path.write_text("\n".join("\t".join(row) for row in table), newline="")
    fast, slow, _ = both(path, "", atomic, dataset="recbole")
    assert fast == slow


@KEPT
@given(
    users=st.one_of(
        st.lists(ID, min_size=6, max_size=6),
        st.lists(st.one_of(st.none(), st.integers(-5, 2**40)), min_size=6, max_size=6),
        st.lists(st.integers(0, 2**63), min_size=6, max_size=6),
        st.lists(st.floats(width=32), min_size=6, max_size=6),
        st.lists(st.booleans(), min_size=6, max_size=6),
        st.lists(st.binary(max_size=2), min_size=6, max_size=6),
    ),
    ids=st.lists(st.sampled_from(["7", "7.0", "a", " a"]), min_size=6, max_size=6),
    moments=PARQUET_TIMES,
    categorical=st.booleans(),
)
def test_parquet_is_read_the_same_both_ways(tmp_path, items, users, ids, moments, categorical):
    column = pyarrow.array(users, type=pyarrow.uint64() if max(map(wide, users)) else None)
    item = pyarrow.array(ids).dictionary_encode() if categorical else pyarrow.array(ids)
    table = pyarrow.table({"user": column, "item": item}).slice(0, len(moments))
    table = table.append_column("timestamp", pyarrow.array(moments))
    path = tmp_path / "log.parquet"
    parquet.write_table(table, path, row_group_size=2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streamed, "ROWS", 2)
        fast, slow, _ = both(path, items, dataset="csv")
    assert fast == slow


def wide(value) -> bool:
    return isinstance(value, int) and value >= 2**63


def test_a_folder_of_parts_of_other_types_is_one_log(tmp_path, items):
    folder = tmp_path / "log"
    for day, table in enumerate(
        [
            {"user": [7, 8], "item": ["a", "7"], "timestamp": [10, 20]},
            {"user": ["8", "7.0"], "item": ["a", "7"], "timestamp": [30, 40]},
        ]
    ):
        part = folder / f"day={day}"
        part.mkdir(parents=True)
        pd.DataFrame(table).to_parquet(part / "part.parquet")
    fast, slow, taken = both(folder, items, dataset="csv")
    assert taken
    assert fast == slow
    assert fast[1] == ("7", "8", "7.0")


def test_common_forms_take_the_fast_way(tmp_path, items):
    table = pd.DataFrame({"user": ["ann", "bob"], "item": ["7", "x"], "timestamp": [1714557600, 1714557601]})
    dated = table.assign(timestamp=pd.to_datetime(table["timestamp"], unit="s"))
    whole_floats = table.assign(timestamp=table["timestamp"].astype(float), user=[1, 2])
    for name, one in {"plain": table, "dated": dated, "floats": whole_floats}.items():
        one.to_parquet(tmp_path / f"{name}.parquet")
        fast, slow, taken = both(tmp_path / f"{name}.parquet", items, dataset="csv")
        assert taken
        assert fast == slow
        one.to_csv(tmp_path / f"{name}.csv", index=False)
        fast, slow, taken = both(tmp_path / f"{name}.csv", items, dataset="csv")
        assert taken
        assert fast == slow


@pytest.mark.parametrize("text", ['"ann",7,1\n', "ann,7\n", "ann,,1\n", ",,\n", "ann,7,1\rbob,7,2\n", "ann,7,1\0\n"])
def test_other_forms_are_left_to_the_reader_of_all(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\n" + text, newline="")
    assert streamed.streamed_columns(path, {}) is None


def test_one_column_read_as_two_is_left_to_the_reader_of_all(tmp_path):
    rows = pd.DataFrame({"user": ["1", "2"], "item": ["7", "x"]})
    rows.to_csv(tmp_path / "log.csv", index=False)
    rows.to_parquet(tmp_path / "log.parquet")
    for name in ("log.csv", "log.parquet"):
        assert streamed.streamed_columns(tmp_path / name, {"timestamp": ("user",)}) is None


def test_what_is_kept_is_at_most_forty_bytes_an_interaction(tmp_path, items):
    random = np.random.default_rng(0)
    count = 50_000
    table = {"user": random.integers(0, count // 20, count), "timestamp": random.integers(0, 10**9, count)}
    table["item"] = random.choice(["7", "x", "a"], count)
    path = tmp_path / "log.parquet"
    pd.DataFrame(table).to_parquet(path)
    found = source.csv_files(DataConfig(dataset="csv", interactions=str(path), items=str(items)))
    texts = sum(map(lambda one: one.__sizeof__() + 8, (*found.user_ids, *found.item_ids, *found.titles)))
    assert found.user.nbytes + found.item.nbytes + found.timestamp.nbytes + texts <= 40 * count


def test_a_log_of_no_rows_is_refused_as_before(tmp_path, items):
    buffer = io.StringIO("user,item,timestamp\n")
    path = tmp_path / "log.csv"
    path.write_text(buffer.getvalue())
    fast, slow, taken = both(path, items, dataset="csv")
    assert not taken
    assert fast == slow
    assert "has a header and no rows" in fast[0]
