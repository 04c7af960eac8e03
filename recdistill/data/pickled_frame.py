"""A pickled pandas frame, read without running anything that the file may ask for."""

import io
import pickle
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

from recdistill.errors import InputError


def latin1_bytes(text: str, encoding: str) -> bytes:
    """What protocols below 3 write for bytes; no other codec is let in."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding} is not allowed")
    return text.encode("latin-1")


def checked_arrow_array(data: Any) -> Any:
    """pyarrow's own restoring does not look whether its buffers are as long as they say."""
    array = pyarrow.lib._restore_array(data)
    array.validate(full=True)
    return array


# All that frames of lists, numbers and text are made of, under the names that pandas 0.25 to 3 and NumPy 1
# and 2 wrote. Each only builds plain data.
ALLOWED: dict[tuple[str, str], Any] = {
    ("pandas", "DataFrame"): pd.DataFrame,
    ("pandas.core.frame", "DataFrame"): pd.DataFrame,
    ("pandas.core.internals.managers", "BlockManager"): BlockManager,
    ("pandas.core.internals", "BlockManager"): BlockManager,
    ("pandas._libs.internals", "_unpickle_block"): internals._unpickle_block,
    ("pandas.core.internals.blocks", "new_block"): internals._unpickle_block,
    ("pandas.core.indexes.base", "_new_Index"): _new_Index,
    ("pandas", "Index"): pd.Index,
    ("pandas.core.indexes.base", "Index"): pd.Index,
    ("pandas.core.indexes.numeric", "Int64Index"): pd.Index,
    ("pandas.core.indexes.numeric", "Float64Index"): pd.Index,
    ("pandas", "RangeIndex"): pd.RangeIndex,
    ("pandas.core.indexes.range", "RangeIndex"): pd.RangeIndex,
    ("pandas", "StringDtype"): pd.StringDtype,
    ("pandas.core.arrays.string_", "StringDtype"): pd.StringDtype,
    ("pandas.arrays", "ArrowStringArray"): ArrowStringArray,
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"): ArrowStringArray,
    ("pandas.core.arrays.string_arrow", "ArrowStringArrayNumpySemantics"): ArrowStringArray,
    ("pyarrow.lib", "_restore_array"): checked_arrow_array,
    ("pyarrow.lib", "type_for_alias"): pyarrow.lib.type_for_alias,
    ("pyarrow.lib", "py_buffer"): pyarrow.py_buffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
    ("numpy.core.multiarray", "scalar"): multiarray.scalar,
    ("numpy._core.multiarray", "scalar"): multiarray.scalar,
    ("numpy.core.numeric", "_frombuffer"): numeric._frombuffer,  # type: ignore[attr-defined]
    ("numpy._core.numeric", "_frombuffer"): numeric._frombuffer,  # type: ignore[attr-defined]
    ("pandas", "NA"): pd.NA,
    ("pandas._libs.missing", "NA"): pd.NA,
    ("builtins", "slice"): slice,
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "slice"): slice,
    ("__builtin__", "bytearray"): bytearray,
    ("_codecs", "encode"): latin1_bytes,
}


class FrameUnpickler(pickle.Unpickler):
    """Builds frames and nothing else: any other global that the file names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The allowed object of this name. Raises UnpicklingError for every other."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a frame")
        return ALLOWED[module, name]


def read_pickled_frame(path: Path) -> pd.DataFrame:
    """The frame that pandas' ``to_pickle`` wrote. Raises InputError for other content, running none of it."""
    try:
        with warnings.catch_warnings():
            # Old frames make pandas and NumPy warn about the names in them.
            warnings.simplefilter("ignore")
            frame = FrameUnpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:
        # A broken file can raise nearly anything from the constructors above.
        said = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: is no pickled frame that can be read ({said}); save it as a CSV file instead"
        ) from None
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{path}: holds a {type(frame).__name__}, not a frame; save it as a CSV file instead")
    return frame
