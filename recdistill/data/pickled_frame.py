"""A pickled pandas frame, read without running anything that the file may ask for."""

import io
import lzma
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from numpy._core import multiarray, numeric
from pandas._libs import internals  # type: ignore[attr-defined]
from pandas.core.arrays.string_arrow import ArrowStringArray
from pandas.core.indexes.base import _new_Index  # type: ignore[attr-defined]
from pandas.core.internals.managers import BlockManager

from recdistill.errors import InputError, one_line


def latin1_bytes(text: str, encoding: str) -> bytes:
    """Restore bytes as protocols below 3 write them; no other codec is allowed."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding} is not allowed")
    return text.encode("latin-1")


def checked_arrow_array(data: Any) -> Any:
    """Restore a pyarrow array and check it: pyarrow itself does not check that buffers are as long as they say."""
    array = pyarrow.lib._restore_array(data)
    array.validate(full=True)
    return array


class PlainDtype:
    """A NumPy type made from its code; of the state in the file only the byte order is used.

    NumPy's own would take flags and fields from the file, and then read the file's bytes as pointers.
    """

    __slots__ = ("dtype",)

    def __init__(self, code: str, *flags: object) -> None:
        if not isinstance(code, str) or PLAIN_CODE.fullmatch(code) is None:
            raise pickle.UnpicklingError(f"type {str(code)[:40]!r} is not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.dtype.kind in "iuf" and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class PlainArray(np.ndarray):
    """An array whose type is a `PlainDtype`."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # type: ignore[override]
        version, shape, dtype, fortran, content = state
        super().__setstate__((version, shape, plain(dtype), fortran, content))


def plain(dtype: Any) -> "np.dtype[Any]":
    """The type of a record. Raises UnpicklingError for anything else."""
    if not isinstance(dtype, PlainDtype):
        raise pickle.UnpicklingError("an array has no plain type")
    return dtype.dtype


def empty_array(kind: object, shape: tuple[int, ...], code: bytes) -> Any:
    """Make an array that its state fills later."""
    if kind is not NDARRAY:
        raise pickle.UnpicklingError("it asks for an array of an unknown kind")
    return multiarray._reconstruct(PlainArray, (0,), b"b")


def array_of_buffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    """Make an array as protocol 5 writes it."""
    return numeric._frombuffer(buffer, plain(dtype), shape, order)  # type: ignore[attr-defined]


def scalar(dtype: Any, content: bytes) -> Any:
    """Make one of NumPy's numbers."""
    if plain(dtype).hasobject:
        raise pickle.UnpicklingError("a number has no plain type")
    return multiarray.scalar(plain(dtype), content)


def new_index(kind: object, parts: dict[str, Any]) -> Any:
    """Make a frame's row or column names."""
    if kind not in INDEXES:
        raise pickle.UnpicklingError("it asks for an index of an unknown kind")
    return _new_Index(INDEXES[kind], parts)


class Call:
    """A name that the file may call. Each read has its own, so that attributes that a file sets on it are lost."""

    __slots__ = ("make",)

    def __init__(self, make: Any) -> None:
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)


PLAIN_CODE = re.compile(r"[<>|=]?([?biufO]|[biuf](1|2|4|8)|b1|O8|S\d+|U\d+)")
#: These stand for classes that a file may only hand over as an argument.
NDARRAY, INDEX, RANGE_INDEX = object(), object(), object()
INDEXES = {INDEX: pd.Index, RANGE_INDEX: pd.RangeIndex}
# Every name that frames of lists, numbers and text need, as pandas 0.25 to 3 and NumPy 1 and 2 write it. Each only
# builds plain data; functions, and classes that a file calls, are handed out as a `Call`.
ALLOWED: dict[tuple[str, str], Any] = {
    ("pandas", "DataFrame"): pd.DataFrame,
    ("pandas.core.frame", "DataFrame"): pd.DataFrame,
    ("pandas.core.internals.managers", "BlockManager"): BlockManager,
    ("pandas.core.internals", "BlockManager"): BlockManager,
    ("pandas._libs.internals", "_unpickle_block"): internals._unpickle_block,
    ("pandas.core.internals.blocks", "new_block"): internals._unpickle_block,
    ("pandas.core.indexes.base", "_new_Index"): new_index,
    ("pandas", "Index"): INDEX,
    ("pandas.core.indexes.base", "Index"): INDEX,
    ("pandas.core.indexes.numeric", "Int64Index"): INDEX,
    ("pandas.core.indexes.numeric", "Float64Index"): INDEX,
    ("pandas", "RangeIndex"): RANGE_INDEX,
    ("pandas.core.indexes.range", "RangeIndex"): RANGE_INDEX,
    ("pandas", "StringDtype"): pd.StringDtype,
    ("pandas.core.arrays.string_", "StringDtype"): pd.StringDtype,
    ("pandas.arrays", "ArrowStringArray"): ArrowStringArray,
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"): ArrowStringArray,
    ("pandas.core.arrays.string_arrow", "ArrowStringArrayNumpySemantics"): ArrowStringArray,
    ("pyarrow.lib", "_restore_array"): checked_arrow_array,
    ("pyarrow.lib", "type_for_alias"): pyarrow.lib.type_for_alias,
    ("pyarrow.lib", "py_buffer"): pyarrow.py_buffer,
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): PlainDtype,
    ("numpy.core.multiarray", "_reconstruct"): empty_array,
    ("numpy._core.multiarray", "_reconstruct"): empty_array,
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy._core.multiarray", "scalar"): scalar,
    ("numpy.core.numeric", "_frombuffer"): array_of_buffer,
    ("numpy._core.numeric", "_frombuffer"): array_of_buffer,
    ("pandas", "NA"): pd.NA,
    ("pandas._libs.missing", "NA"): pd.NA,
    ("builtins", "slice"): slice,
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "slice"): slice,
    ("__builtin__", "bytearray"): bytearray,
    ("_codecs", "encode"): latin1_bytes,
}


XZ = b"\xfd7zXZ\x00"
MOST_BYTES = 512 << 20  # of a frame that was compressed: a small file can hold a great deal
XZ_MEMORY = 256 << 20


CALLED = (
    *(new_index, empty_array, scalar, array_of_buffer, latin1_bytes, checked_arrow_array),
    *(PlainDtype, pd.StringDtype, internals._unpickle_block, pyarrow.lib.type_for_alias, pyarrow.py_buffer),
)


class FrameUnpickler(pickle.Unpickler):
    """Builds frames and nothing else: any other global that the file names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The allowed object of this name. Raises UnpicklingError for every other."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a frame")
        found = ALLOWED[module, name]
        return Call(found) if found in CALLED else found


def content_of(path: Path) -> bytes:
    """The bytes of a file; of one that xz compressed, those in it, `MOST_BYTES` of them at most."""
    packed = path.read_bytes()
    if not packed.startswith(XZ):
        return packed
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    content = reader.decompress(packed, max_length=MOST_BYTES)
    if not reader.eof and not reader.needs_input:
        raise pickle.UnpicklingError(f"it unpacks to more than {MOST_BYTES:,} bytes")
    if not reader.eof:
        raise EOFError("the compressed data end too early")
    return content


def read_pickled_frame(path: Path) -> pd.DataFrame:
    """Read the frame that pandas' ``to_pickle`` wrote, compressed by xz or not.

    Raises InputError for other content, running none of it.
    """
    try:
        with warnings.catch_warnings():
            # Old frames make pandas and NumPy warn about the names in them.
            warnings.simplefilter("ignore")
            frame = FrameUnpickler(io.BytesIO(content_of(path))).load()
    except Exception as error:
        # A broken file can raise nearly anything from the constructors above.
        said = one_line(error) or type(error).__name__
        raise InputError(
            f"{path}: is no pickled frame that can be read ({said}); save it as a CSV file instead"
        ) from None
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{path}: holds a {type(frame).__name__}, not a frame; save it as a CSV file instead")
    return frame
