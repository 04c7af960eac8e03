import io
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from recdistill.errors import InputError
from recdistill.release.released_students import read_released_sasrec
from recdistill.release.restricted_pickle import read_pickled_module

CLASSES = [("released_model", "Model")]


class Model(nn.Module):
    """A module whose class lies in a module that no reader can import."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.embedding = nn.Embedding(4, 2)
        self.tail = nn.Parameter(torch.arange(12.0).view(3, 4).T[1:])  # strided, with an offset
        self.register_buffer("count", torch.tensor([5]))
        self.num_heads = 2


@pytest.fixture
def pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def save(legacy: bool) -> tuple[Path, dict[str, Tensor]]:
        holder = types.ModuleType("released_model")
        holder.Model = Model
        monkeypatch.setitem(sys.modules, "released_model", holder)
        monkeypatch.setattr(Model, "__module__", "released_model")
        model = Model()
        path = tmp_path / "model.pt"
        torch.save(model, path, _use_new_zipfile_serialization=not legacy)
        monkeypatch.delitem(sys.modules, "released_model")
        return path, {name: tensor.detach() for name, tensor in model.state_dict().items()}

    return save


def zipped(path: Path, program: bytes, storages: dict[str, bytes] | None = None, **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("model/data.pkl", program)
        for key, content in (storages or {}).items():
            archive.writestr(f"model/data/{key}", content)
    return path


def legacy(path: Path, program: bytes) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + program + pickle.dumps([], 2))
    return path


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("is_legacy", [False, True])
def test_module_is_read_without_its_class(pickled, is_legacy: bool) -> None:
    path, tensors = pickled(is_legacy)
    assert zipfile.is_zipfile(path) != is_legacy
    record, found = read_pickled_module(path, CLASSES)
    assert "released_model" not in sys.modules
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert record.number("num_heads") == 2
    assert record.child("linear").number("in_features") == 3
    with pytest.raises(KeyError, match="no number linear"):
        record.number("linear")
    with pytest.raises(KeyError, match="no submodule absent"):
        record.child("absent")


def test_class_outside_the_list_is_refused(pickled) -> None:
    path, _ = pickled(False)
    with pytest.raises(InputError, match=r"refused: it names released_model\.Model"):
        read_pickled_module(path, [])


class Calls:
    """Pickles as a call of a function, as an attacker would."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, wrap, protocol: int) -> None:
    trace = tmp_path / "trace"
    attack = pickle.dumps(Calls(os.system, f"touch '{trace}'"), protocol)
    path = wrap(tmp_path / "attack.pt", attack)
    for read in (lambda: read_pickled_module(path, CLASSES), lambda: read_released_sasrec(path)):
        with pytest.raises(InputError, match=r"refused: it names (posix|nt)\.system"):
            read()
    assert not trace.exists()
    pickle.Unpickler(io.BytesIO(attack)).load()  # the attack works on a reader that lets it
    assert trace.exists()


def global_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("os", "system"),
        ("torch", "load"),
        ("torch", "Tensor"),
        ("torch.nn.modules.linear", "Bilinear"),
        ("collections", "defaultdict"),
        ("released_model", "Model.forward"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, module: str, name: str) -> None:
    path = zipped(tmp_path / "attack.pt", b"\x80\x02" + global_of(module, name) + b"X\x01\x00\x00\x00x\x85R.")
    with pytest.raises(InputError, match=rf"refused: it names {module}\.{name}"):
        read_pickled_module(path, CLASSES)


MODEL = global_of("released_model", "Model")
STORAGE = (
    b"((X\x07\x00\x00\x00storage"
    + global_of("torch", "FloatStorage")
    + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"N.", "it holds a NoneType, not a module"),
        (MODEL + b".", "it holds a type, not a module"),
        (MODEL + b"}X\x01\x00\x00\x00ak\x01sb.", "no pickled torch module"),
        (MODEL + b"}X\x0c\x00\x00\x00__setstate__Nsb.", "no pickled torch module"),
        (global_of("torch", "device") + b"}X\x01\x00\x00\x00aNsb.", "no pickled torch module"),
        (b"X\x01\x00\x00\x00aQ.", "refers to something other than a storage"),
        (MODEL + b")\x81r\xff\xff\xff\xff.", "it is damaged"),
        (b"", "no pickled torch module"),
    ],
)
def test_hostile_programs_are_refused(tmp_path: Path, program: bytes, said: str) -> None:
    path = zipped(tmp_path / "attack.pt", b"\x80\x02" + program)
    with pytest.raises(InputError, match=said):
        read_pickled_module(path, CLASSES)


def tensor_program(offset: int, size: tuple, stride: tuple) -> bytes:
    """A model with one parameter ``p``, a view of a storage of 4 floats."""
    shape = b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", number) for number in numbers) + b"t" for numbers in (size, stride)
    )
    view = global_of("torch._utils", "_rebuild_tensor_v2") + STORAGE + b"J" + struct.pack("<i", offset)
    tensor = view.replace(b"((X", b"((X", 1) + shape + b"\x89NtR"
    parameters = b"}X\x01\x00\x00\x00p" + tensor + b"s"
    return b"\x80\x02" + MODEL + b")\x81}X\x0b\x00\x00\x00_parameters" + parameters + b"sb."


FOUR_FLOATS = {"0": struct.pack("<4f", 1, 2, 3, 4)}


def test_tensor_of_a_written_program(tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt", tensor_program(1, (3,), (1,)), FOUR_FLOATS)
    _, tensors = read_pickled_module(path, CLASSES)
    assert tensors["p"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("offset", "size", "stride", "said"),
    [
        (2, (3,), (1,), "outside its storage"),
        (0, (2, 2), (3, 1), "outside its storage"),
        (0, (5,), (0,), "outside its storage"),
        (-1, (3,), (1,), "no valid shape"),
        (0, (-3,), (1,), "no valid shape"),
        (3, (2,), (-1,), "no valid shape"),
        (0, (2, 2), (1,), "no valid shape"),
    ],
)
def test_tensor_outside_its_storage_is_refused(
    tmp_path: Path, offset: int, size: tuple, stride: tuple, said: str
) -> None:
    path = zipped(tmp_path / "model.pt", tensor_program(offset, size, stride), FOUR_FLOATS)
    with pytest.raises(InputError, match=said):
        read_pickled_module(path, CLASSES)


def test_storage_of_another_size_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt", tensor_program(0, (3,), (1,)), {"0": b"123"})
    with pytest.raises(InputError, match="a storage of 4 numbers has 3 bytes"):
        read_pickled_module(path, CLASSES)


def test_compressed_file_is_refused(tmp_path: Path) -> None:
    program = tensor_program(0, (3,), (1,))
    path = zipped(tmp_path / "model.pt", program, FOUR_FLOATS, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="it is compressed"):
        read_pickled_module(path, CLASSES)


def test_tensor_is_no_module(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="it holds a tensor, not a module"):
        read_pickled_module(tmp_path / "tensor.pt", CLASSES)


def test_missing_file_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_pickled_module(tmp_path / "absent.pt", CLASSES)
    (tmp_path / "text.pt").write_text("not a model")
    with pytest.raises(InputError, match=r"text\.pt"):
        read_pickled_module(tmp_path / "text.pt", CLASSES)


def test_module_of_another_kind_is_no_released_sasrec(tmp_path: Path) -> None:
    program = tensor_program(0, (3,), (1,)).replace(MODEL, global_of("__main__", "SASRec"))
    path = zipped(tmp_path / "model.pt", program, FOUR_FLOATS)
    with pytest.raises(InputError, match="holds no released SASRec"):
        read_released_sasrec(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_programs_raise_input_error_or_read(tmp_path: Path, position: int, byte: int, cut: bool) -> None:
    program = bytearray(tensor_program(1, (3,), (1,)))
    position %= len(program)
    program[position] = byte
    path = zipped(tmp_path / "model.pt", bytes(program[:position] if cut else program), FOUR_FLOATS)
    try:
        _, tensors = read_pickled_module(path, CLASSES)
    except InputError as error:
        said = str(error)
        assert "\n" not in said
    else:
        assert all(tensor.numel() <= 4 for tensor in tensors.values())
