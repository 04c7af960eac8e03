"""A whole module as ``torch.save(module)`` wrote it, zip or legacy format, read without its classes.

``torch.load(weights_only=True)`` reads plain tensors, and no module whose classes are not installed. A pickle is a
program: it names classes and calls them. Here every name stands for a record made for this one read, only a short list
of names is allowed, nothing is executed, and tensors are built from the raw bytes afterwards.
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import torch
from torch import Tensor

from recdistill.errors import InputError, one_line

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_LAYERS = {
    ("torch.nn.modules.dropout", "Dropout"),
    ("torch.nn.modules.sparse", "Embedding"),
    ("torch.nn.modules.normalization", "LayerNorm"),
    ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.activation", "Softmax"),
    ("torch.nn.modules.conv", "Conv1d"),
}
# Values that the file makes by a call and that no reader needs: the call is dropped.
_DROPPED_CALLS = {
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("torch", "device"),
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class ModuleRecord:
    """A pickled module: its attributes, as plain values and records."""

    __slots__ = ("_state",)

    def __setstate__(self, state: object) -> None:
        # Kept apart from our attributes, so that a file cannot replace a method.
        self._state = state if isinstance(state, dict) else {}

    def child(self, name: str) -> "ModuleRecord":
        """The submodule of that name.

        Raises:
            KeyError: there is none.
        """
        child = self._named("_modules").get(name)
        if not isinstance(child, ModuleRecord):
            raise KeyError(f"no submodule {name}")
        return child

    def number(self, name: str) -> int | float:
        """A number among the attributes.

        Raises:
            KeyError: there is none.
        """
        value = getattr(self, "_state", {}).get(name)
        if not isinstance(value, int | float):
            raise KeyError(f"no number {name}")
        return value

    def _named(self, kind: str) -> dict[str, object]:
        """The dictionary of ``_modules``, ``_parameters`` or ``_buffers``; empty where there is none."""
        value = getattr(self, "_state", {}).get(kind)
        return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def read_pickled_module(path: str | Path, classes: Iterable[tuple[str, str]]) -> tuple[ModuleRecord, dict[str, Tensor]]:
    """Read the module that ``torch.save(module, path)`` wrote as a record; nothing in the file is executed.

    Args:
        path: a torch zip file or one of torch's legacy format.
        classes: (module, name) of the classes, beside torch's basic layers, that the file may hold.

    Returns:
        The record of the module, and its parameters and buffers by dotted name, on the CPU.

    Raises:
        InputError: the file is unreadable or damaged, holds no module, or names anything else.
    """
    path = Path(path)
    with _refusals(path):
        root = _read(path, set(classes))
        if not isinstance(root, ModuleRecord):
            kind = "tensor" if isinstance(root, _TensorRecord) else type(root).__name__
            raise _RefusedError(f"it holds a {kind}, not a module")
        return root, _tensors(root)


class _RefusedError(Exception):
    """The file asks for something outside the allow-list."""


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Raise every error of reading ``path`` as an InputError of one line."""
    try:
        yield
    except _RefusedError as error:
        raise InputError(f"{path} is refused: {error}; give a pickled torch module as torch.save writes it") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}); check the path") from error
    except Exception as error:  # a damaged or hostile pickle raises whatever it likes
        reason = one_line(error) or type(error).__name__
        raise InputError(f"{path} is no pickled torch module ({reason}); download it again") from error


def _read(path: Path, classes: set[tuple[str, str]]) -> object:
    """The object of the file, as records."""
    with path.open("rb") as file:
        # A zip file is read an entry at a time: embeddings can be large.
        return (_read_zip if zipfile.is_zipfile(file) else _read_legacy)(file, classes)


class _StorageRecord:
    """Raw numbers that tensors are views of; filled from the file's bytes."""

    __slots__ = ("dtype", "numel", "values")

    def __init__(self, dtype: torch.dtype, numel: int) -> None:
        self.dtype = dtype
        self.numel = numel
        self.values: Tensor | None = None

    def fill(self, content: bytes) -> None:
        if len(content) != self.numel * self.dtype.itemsize:
            raise _RefusedError(f"a storage of {self.numel} numbers has {len(content)} bytes")
        self.values = (
            torch.frombuffer(bytearray(content), dtype=self.dtype) if content else torch.empty(0, dtype=self.dtype)
        )


class _TensorRecord:
    """A tensor as pickled: where it lies in its storage."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: object, offset: object, size: object, stride: object) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def tensor(self) -> Tensor:
        storage, offset, size, stride = self.storage, self.offset, self.size, self.stride
        if not isinstance(storage, _StorageRecord) or storage.values is None:
            raise _RefusedError("a tensor has no storage")
        if not (_is_natural(offset) and _are_naturals(size) and _are_naturals(stride)) or len(size) != len(stride):
            raise _RefusedError("a tensor has no valid shape")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) > storage.numel or (0 not in size and last >= storage.numel):
            raise _RefusedError("a tensor lies outside its storage")
        return storage.values.as_strided(size, stride, offset).clone()


class _Dropped:
    """The result of a dropped call; it takes any state and keeps none."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Call:
    """A name that the pickle may call; it cannot be given attributes."""

    __slots__ = ("_make",)

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, classes: set[tuple[str, str]], storages: dict[str, _StorageRecord]):
        super().__init__(file, encoding="utf-8")
        self._classes = classes | _LAYERS
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._classes:
            # A class of its own for each read: what a pickle does to it stays there.
            return type(name, (ModuleRecord,), {"__slots__": ()})
        if (module, name) in _DROPPED_CALLS:
            return _Call(_drop)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if name == "set" and module in ("builtins", "__builtin__"):
            return set
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Call(_tensor_record)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Call(_parameter_record)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise _RefusedError(f"it names {module}.{name}, which no such file needs")

    def persistent_load(self, pid: Any) -> object:
        # The legacy format refers to a module's class so, with its source text, which is not read.
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], type):
            return pid[1]
        # ("storage", type, key, device, number of elements), in the legacy format followed by a view.
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise _RefusedError("it refers to something other than a storage")
        _, dtype, key, _, numel = pid[:5]
        if len(pid) == 6 and pid[5] is not None:
            raise _RefusedError("it holds a view of a storage")
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not _is_natural(numel):
            raise _RefusedError("it describes a storage in an unknown way")
        storage = self._storages.setdefault(key, _StorageRecord(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise _RefusedError(f"it describes storage {key} in two ways")
        return storage


def _unpickle(file: io.BytesIO, classes: set[tuple[str, str]], storages: dict[str, _StorageRecord]) -> Any:
    """The object of the pickle at the file's position, which moves behind it."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        # The unpickler makes room for any memo index named, gigabytes for a damaged one.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > file.getbuffer().nbytes:  # type: ignore
            raise _RefusedError("it is damaged")
    file.seek(start)
    return _RestrictedUnpickler(file, classes, storages).load()


def _drop(*arguments: object) -> _Dropped:
    return _Dropped()


def _tensor_record(*arguments: object) -> _TensorRecord:
    if len(arguments) < 4:
        raise _RefusedError("it describes a tensor in an unknown way")
    return _TensorRecord(*arguments[:4])


def _parameter_record(*arguments: object) -> _TensorRecord:
    if not arguments or not isinstance(arguments[0], _TensorRecord):
        raise _RefusedError("it holds a parameter that is no tensor")
    return arguments[0]


def _is_natural(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _are_naturals(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(_is_natural(value) for value in values)


def _tensors(root: ModuleRecord) -> dict[str, Tensor]:
    """Parameters and buffers of a module and all below it, by dotted name."""
    found: dict[str, Tensor] = {}
    pending = [("", root)]
    visited: set[int] = set()
    while pending:
        prefix, module = pending.pop()
        if id(module) in visited:  # a pickle can hold a cycle
            continue
        visited.add(id(module))
        for name, value in (module._named("_parameters") | module._named("_buffers")).items():
            if isinstance(value, _TensorRecord):
                found[f"{prefix}{name}"] = value.tensor()
        for name, child in module._named("_modules").items():
            if isinstance(child, ModuleRecord):
                pending.append((f"{prefix}{name}.", child))
    return found


def _read_zip(file: BinaryIO, classes: set[tuple[str, str]]) -> object:
    storages: dict[str, _StorageRecord] = {}
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        programs = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(programs) != 1:
            raise _RefusedError("it holds no single data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise _RefusedError("it is compressed, which torch's files are not")
        folder = programs[0].removesuffix("data.pkl")
        if entries.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
            raise _RefusedError("its numbers are not little-endian")
        root = _unpickle(io.BytesIO(archive.read(programs[0])), classes, storages)
        for key, storage in storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
    return root


def _read_legacy(source: BinaryIO, classes: set[tuple[str, str]]) -> object:
    """Pickles (magic number, protocol, system, module, storage keys), then length and bytes of storages."""
    source.seek(0)
    file = io.BytesIO(source.read())
    storages: dict[str, _StorageRecord] = {}

    def next_pickle() -> Any:
        return _unpickle(file, classes, storages)

    if next_pickle() != _LEGACY_MAGIC or next_pickle() != _LEGACY_PROTOCOL:
        raise _RefusedError("it is no torch file")
    system = next_pickle()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _RefusedError("its numbers are not little-endian")
    root = next_pickle()
    keys = next_pickle()
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise _RefusedError("its storages are not those of its module")
    for key in keys:
        (numel,) = struct.unpack("<q", file.read(8))
        storage = storages[key]
        if numel != storage.numel:
            raise _RefusedError(f"storage {key} has {numel} numbers, not {storage.numel}")
        storage.fill(file.read(numel * storage.dtype.itemsize))
    return root
