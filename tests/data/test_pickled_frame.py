"""Pickled frames are read; what else a pickle can do is refused before it runs."""

import io
import lzma
import os
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from recdistill.data import pickled_frame as module
from recdistill.data.pickled_frame import read_pickled_frame
from recdistill.errors import InputError

FRAME = pd.DataFrame({"seq": [[1, 2, 9], [2, 9, 9]], "len_seq": [2, 1], "next": [3.0, 1.0]})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("string_columns", ["object", "string", "str"])
def test_frames_of_every_protocol(tmp_path, protocol, string_columns):
    frame = FRAME.copy()
    frame.columns = frame.columns.astype(string_columns)
    frame.index = [4, 7]
    (tmp_path / "train_data.df").write_bytes(pickle.dumps(frame, protocol=protocol))
    read = read_pickled_frame(tmp_path / "train_data.df")
    assert list(read.columns) == ["seq", "len_seq", "next"]
    assert read["seq"].tolist() == FRAME["seq"].tolist()
    assert read["next"].tolist() == [3.0, 1.0]


class Old:
    """Writes itself as one of old pandas' objects: ``build`` is what stood in the file."""

    def __init__(self, module: str, name: str, arguments: tuple, state=None):
        self.module, self.name, self.arguments, self.state = module, name, arguments, state


class OldPickler(pickle._Pickler):
    """Names a global without importing it, as a file of another version does."""

    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Old):
            return super().save(obj, save_persistent_id)
        self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        if obj.arguments is None:
            return None
        super().save(obj.arguments)
        self.write(b"\x81" if obj.name in ("DataFrame", "BlockManager") else b"R")
        if obj.state is not None:
            super().save(obj.state)
            self.write(b"b")
        return None


def old_frame_bytes(manager_module: str, manager_key: str) -> bytes:
    """FRAME as pandas 0.25 to 1.2 lays it out: a manager with axes and blocks."""

    def index(values) -> Old:
        kind = Old("pandas.core.indexes.base", "Index", None)
        return Old("pandas.core.indexes.base", "_new_Index", (kind, {"data": values, "name": None}))

    rows = Old("pandas.core.indexes.numeric", "Int64Index", None)
    row_index = Old("pandas.core.indexes.base", "_new_Index", (rows, {"data": np.array([0, 1]), "name": None}))
    axes = [index(np.array(["seq", "len_seq", "next"], dtype=object)), row_index]
    lists = np.empty((1, 2), dtype=object)
    lists[0, 0], lists[0, 1] = FRAME["seq"]
    values = [lists, np.array([[2, 1]]), np.array([[3.0, 1.0]])]
    blocks = [{"values": value, "mgr_locs": slice(place, place + 1)} for place, value in enumerate(values)]
    items = [index(np.array([name], dtype=object)) for name in FRAME.columns]
    state = (axes, values, items, {"0.14.1": {"axes": axes, "blocks": blocks}})
    manager = Old(manager_module, "BlockManager", (), state)
    frame = Old("pandas.core.frame", "DataFrame", (), {manager_key: manager, "_typ": "dataframe", "_metadata": []})
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(frame)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize(
    ("module", "key"),
    [
        ("pandas.core.internals.managers", "_data"),
        ("pandas.core.internals.managers", "_mgr"),
        ("pandas.core.internals", "_data"),
    ],
)
def test_frames_of_old_pandas(tmp_path, module, key):
    (tmp_path / "train_data.df").write_bytes(old_frame_bytes(module, key))
    assert read_pickled_frame(tmp_path / "train_data.df").equals(FRAME.rename(columns=str))


class Touch:
    """Makes a file when unpickled the plain way."""

    def __init__(self, path, function=os.system):
        self.path, self.function = path, function

    def __reduce__(self):
        return self.function, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 5])
def test_nothing_in_the_file_runs(tmp_path, protocol):
    bomb = pd.DataFrame({"seq": [Touch(tmp_path / "ran")], "len_seq": [1], "next": [1]})
    (tmp_path / "train_data.df").write_bytes(pickle.dumps(bomb, protocol=protocol))
    with pytest.raises(InputError, match=r"asks for (posix|nt|os).system") as caught:
        read_pickled_frame(tmp_path / "train_data.df")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "module_and_name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("pandas", "eval"),
        ("pandas", "read_pickle"),
        ("numpy", "load"),
        ("functools", "partial"),
        ("pandas", "io.common.os.system"),
        ("numpy.f2py", "compile"),
    ],
)
def test_names_beside_the_allowed_ones_are_refused(tmp_path, module_and_name):
    module, name = module_and_name
    file = tmp_path / "x.df"
    file.write_bytes(b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93.")
    with pytest.raises(InputError, match=f"asks for {module}.{name}"):
        read_pickled_frame(file)


def test_codecs_other_than_latin1_are_refused(tmp_path):
    file = tmp_path / "x.df"
    file.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(InputError, match="codec rot13"):
        read_pickled_frame(file)


@pytest.mark.parametrize("content", [b"", b"seq,len_seq\n", b"\x80\x04", pickle.dumps(FRAME)[:-20]])
def test_broken_files(tmp_path, content):
    (tmp_path / "x.df").write_bytes(content)
    with pytest.raises(InputError, match=r"x.df: is no pickled frame"):
        read_pickled_frame(tmp_path / "x.df")


def test_something_else_than_a_frame(tmp_path):
    (tmp_path / "x.df").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match=r"holds a list, not a frame"):
        read_pickled_frame(tmp_path / "x.df")


class Called:
    """Writes itself as a call of one of NumPy's names, with a state where one is given."""

    def __init__(self, function, arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


POINTERS = b"\x41" * 16
# A type of objects whose flags say that it is one of numbers.
FORGED = Called(np.dtype, ("O",), (3, "|", None, None, None, -1, -1, 0))
FIELDS = Called(np.dtype, ("V8",), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
FROM_BUFFER = np.arange(2).__reduce_ex__(5)[0]
RECONSTRUCT, EMPTY, STATE = np.arange(2).__reduce__()


@pytest.mark.parametrize(
    "forged",
    [
        Called(np.ndarray, ((2,), np.dtype("O"), POINTERS)),
        Called(FROM_BUFFER, (POINTERS, FORGED, (2,), "C")),
        Called(FROM_BUFFER, (POINTERS, FIELDS, (2,), "C")),
        Called(RECONSTRUCT, EMPTY, (1, (2,), FORGED, False, POINTERS)),
        Called(RECONSTRUCT, EMPTY, (1, (2,), np.dtype("O"), False, POINTERS)),
        Called(RECONSTRUCT, EMPTY, (1, (2,), [("a", "O")], False, POINTERS)),
        Called(np.float64(1).__reduce__()[0], (np.dtype("O"), POINTERS[:8])),
        Called(pd.Index, ([1, 2],)),
    ],
)
def test_no_bytes_of_the_file_are_taken_for_pointers(tmp_path, forged):
    file = tmp_path / "x.df"
    file.write_bytes(pickle.dumps(forged, protocol=4))
    with pytest.raises(InputError, match=r"x.df: is no pickled frame"):
        read_pickled_frame(file)


def test_a_file_leaves_no_mark_on_the_names_it_uses(tmp_path):
    file = tmp_path / "x.df"
    for name in ("Index", "RangeIndex", "StringDtype"):
        # A state in two parts sets attributes of what it is given to.
        file.write_bytes(b"\x80\x02cpandas\n" + name.encode() + b"\nN}X\x04\x00\x00\x00maskX\x01\x00\x00\x00xs\x86b.")
        with pytest.raises(InputError, match=r"x.df"):
            read_pickled_frame(file)
        assert not hasattr(getattr(pd, name), "mask")


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_frame_that_xz_compressed(tmp_path, protocol):
    FRAME.to_pickle(tmp_path / "x.pkl.compress", compression="xz", protocol=protocol)
    assert read_pickled_frame(tmp_path / "x.pkl.compress").equals(FRAME)


def test_nothing_in_a_compressed_file_runs(tmp_path):
    bomb = pd.DataFrame({"seq": [Touch(tmp_path / "ran")]})
    bomb.to_pickle(tmp_path / "x.df", compression="xz")
    with pytest.raises(InputError, match=r"asks for (posix|nt|os).system"):
        read_pickled_frame(tmp_path / "x.df")
    assert not (tmp_path / "ran").exists()


def test_what_a_compressed_file_unpacks_to_is_bounded(tmp_path, monkeypatch):
    content = pickle.dumps(FRAME)
    file = tmp_path / "x.df"
    file.write_bytes(lzma.compress(content))
    monkeypatch.setattr(module, "MOST_BYTES", len(content))
    assert read_pickled_frame(file).equals(FRAME)
    monkeypatch.setattr(module, "MOST_BYTES", len(content) - 1)
    with pytest.raises(InputError, match=rf"unpacks to more than {len(content) - 1:,} bytes"):
        read_pickled_frame(file)
    file.write_bytes(lzma.compress(bytes(10_000_000), preset=0))  # whose reader takes little memory itself
    tracemalloc.start()
    with pytest.raises(InputError, match="unpacks to more than"):
        read_pickled_frame(file)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [5, 30, -1])
def test_a_compressed_file_that_ends_too_early(tmp_path, size):
    (tmp_path / "x.df").write_bytes(lzma.compress(pickle.dumps(FRAME))[:size])
    with pytest.raises(InputError, match=r"x.df: is no pickled frame"):
        read_pickled_frame(tmp_path / "x.df")
