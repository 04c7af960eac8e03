"""A saved tensor is read; what else such a file can ask for is refused before it runs."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from recdistill.errors import InputError
from recdistill.release.saved_tensor import read_saved_tensor

FOUR_FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def zipped(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tensor/data.pkl", program)
        archive.writestr("tensor/version", "3\n")
        archive.writestr("tensor/data/0", FOUR_FLOATS)
    return path


def legacy(path: Path, program: bytes) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + program + pickle.dumps([], 2))
    return path


class Calls:
    """Pickles as a call of a function, as an attacker would."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_file_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, wrap, protocol: int) -> None:
    trace = tmp_path / "trace"
    attack = pickle.dumps(Calls(os.system, f"touch '{trace}'"), protocol)
    with pytest.raises(InputError, match=r"refused: it names (posix|nt)\.system|is no saved tensor") as caught:
        read_saved_tensor(wrap(tmp_path / "attack.pt", attack))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()
    pickle.Unpickler(io.BytesIO(attack)).load()  # the attack works on a reader that lets it
    assert trace.exists()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_saved_tensor_is_read(tmp_path: Path, is_legacy: bool, dtype: torch.dtype) -> None:
    whole = torch.randn(4, 6).to(dtype)
    for tensor in (whole, whole[1:].T, nn.Parameter(whole), whole[:0]):
        torch.save(tensor, tmp_path / "tensor.pt", _use_new_zipfile_serialization=not is_legacy)
        found = read_saved_tensor(tmp_path / "tensor.pt")
        assert torch.equal(found, tensor)
        assert found.dtype == dtype
        assert not found.requires_grad


def test_a_tensor_saved_on_a_gpu_is_read_on_the_cpu(tmp_path: Path) -> None:
    program = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x06\x00\x00\x00cuda:0K\x04tQK\x00(K\x04t(K\x01t\x89NtR."
    )
    assert read_saved_tensor(zipped(tmp_path / "tensor.pt", b"\x80\x02" + program)).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": torch.ones(2)}, "holds a dict, not a tensor"),
        ([torch.ones(2)], "holds a list, not a tensor"),
        (nn.Linear(2, 2), r"refused: it names torch\.nn\.modules\.linear\.Linear"),
        (None, "holds a NoneType, not a tensor"),
        (torch.ones(2, device="meta"), "without its numbers"),
        (torch.eye(2).to_sparse(), "a sparse one"),
    ],
)
def test_what_is_no_tensor_is_refused(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "tensor.pt")
    with pytest.raises(InputError, match=said) as caught:
        read_saved_tensor(tmp_path / "tensor.pt")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_saved_tensor(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="cannot read"):
        read_saved_tensor(tmp_path)
    for content in ("no tensor", ""):
        (tmp_path / "text.pt").write_text(content)
        with pytest.raises(InputError, match="is no saved tensor"):
            read_saved_tensor(tmp_path / "text.pt")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_files_raise_input_error_or_read(tmp_path: Path, position: int, byte: int, cut: bool) -> None:
    buffer = io.BytesIO()
    torch.save(torch.ones(4), buffer)
    content = bytearray(buffer.getvalue())
    position %= len(content)
    content[position] = byte
    (tmp_path / "tensor.pt").write_bytes(bytes(content[:position] if cut else content))
    try:
        found = read_saved_tensor(tmp_path / "tensor.pt")
    except InputError as error:
        said = str(error)
        assert "\n" not in said
    else:
        assert found.numel() <= 4
