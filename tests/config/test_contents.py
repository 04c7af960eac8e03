"""Digests of local files: another content is another digest, and names alone are none."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill.config import AddItemsConfig, StudyConfig, TeacherConfig, option_table
from recdistill.config.contents import PIECE, PIECES, content_digest, existing
from recdistill.errors import InputError

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "llm"
    made.mkdir()
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    return made


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_model_counts(folder: Path, name: str) -> None:
    before = content_digest("llm", folder)
    assert content_digest("llm", folder) == before
    (folder / name).write_bytes(FILES[name] + b" ")
    changed = content_digest("llm", folder)
    (folder / name).unlink()
    assert len({before, changed, content_digest("llm", folder)}) == 3


def test_where_a_folder_lies_and_what_else_is_in_it_do_not_count(folder: Path) -> None:
    before = content_digest("llm", folder)
    (folder / "train.log").write_text("epoch 1")
    (folder / "checkpoint-100").mkdir()
    assert content_digest("llm", folder) == before
    assert content_digest("llm", folder.rename(folder.with_name("moved"))) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(size=st.integers(1, PIECE * PIECES), place=st.floats(0, 1))
def test_every_byte_of_a_small_file_counts(tmp_path: Path, size: int, place: float) -> None:
    path, content = tmp_path / "a.gguf", bytearray(size)
    path.write_bytes(content)
    before = content_digest("llm", path)
    content[min(size - 1, int(place * size))] = 1
    path.write_bytes(content)
    assert content_digest("llm", path) != before


def test_a_python_file_stands_with_those_beside_it_that_it_imports(tmp_path: Path) -> None:
    policy, beside, other = (tmp_path / name for name in ("policy.py", "scale.py", "unread.py"))
    policy.write_text("from scale import SCALE\n")
    lone = content_digest("policy_file", policy)
    beside.write_text("SCALE = 1\n")
    found = content_digest("policy_file", policy)
    other.write_text("SCALE = 3\n")
    assert content_digest("policy_file", policy) == found
    beside.write_text("SCALE = 2\n")
    assert len({lone, found, content_digest("policy_file", policy)}) == 3


def test_one_trained_matrix_of_a_large_file_is_seen(tmp_path: Path) -> None:
    path, size = tmp_path / "a.safetensors", 64 << 20
    digests = set()
    for begin in (None, 9 << 20, (9 << 20) + 1234):
        with path.open("wb") as file:
            file.truncate(size)
            if begin is not None:
                file.seek(begin)
                file.write(b"x" * (1 << 20))
        digests.add(content_digest("llm", path))
    assert len(digests) == 3


def test_of_a_large_file_pieces_from_the_beginning_to_the_end_count(tmp_path: Path) -> None:
    path, size = tmp_path / "a.safetensors", 3 * PIECE * PIECES + 12345
    found = set()
    for piece in range(PIECES):
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(piece * (size // PIECES) + PIECE - 1)
            file.write(b"x")
        found.add(content_digest("llm", path))
    with path.open("wb") as file:
        file.truncate(size)
    assert len(found | {content_digest("llm", path)}) == PIECES + 1


def test_only_what_lies_here_has_a_content(folder: Path) -> None:
    llm, plan = option_table(TeacherConfig)["llm"], option_table(StudyConfig)["plan"]
    assert existing(llm, str(folder)) == folder
    assert [existing(llm, value) for value in ("", "some/hub-model", "x" * 5000, "~nobody/x")] == [None] * 4
    # A folder is no plan, though its results may have a plan's name.
    assert existing(plan, str(folder)) is None
    (folder / "mine.yaml").touch()
    assert existing(plan, str(folder / "mine.yaml")) == folder / "mine.yaml"


@pytest.mark.parametrize("name", ["items.csv", "items.parquet", "items.txt.gz", "items"])
def test_every_byte_of_a_large_table_counts(tmp_path: Path, name: str) -> None:
    path, size, found = tmp_path / name, 3 * PIECE * PIECES + 12345, set()
    for place in (0, PIECE + 7, size // 2 + 1, size - 1):
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(place)
            file.write(b"x")
        found.add(content_digest("items", path))
    assert len(found) == 4


def test_what_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(InputError, match=rf"^llm={folder}: cannot be read \(No such file or directory\)"):
        content_digest("llm", folder)


def test_of_a_folder_of_tables_every_byte_counts_and_its_partitions(tmp_path: Path) -> None:
    folder, size, found = tmp_path / "items", 3 * PIECE * PIECES + 12345, set()
    part = folder / "day=1" / "part-0.parquet"
    part.parent.mkdir(parents=True)
    for place in (0, PIECE + 7, size // 2 + 1, size - 1):
        with part.open("wb") as file:
            file.truncate(size)
            file.seek(place)
            file.write(b"x")
        found.add(content_digest("items", folder))
    # The name of a partition is a value, and another file is more rows.
    part.parent.rename(folder / "day=2")
    found.add(content_digest("items", folder))
    (folder / "more.parquet").write_bytes(b"more")
    found.add(content_digest("items", folder))
    assert len(found) == 6
    # What no reader of tables opens.
    (folder / "_SUCCESS").touch()
    (folder / "other").mkdir()
    (folder / "other" / "x.parquet").touch()
    assert content_digest("items", folder) in found


def test_digests_of_files_and_of_llms_are_those_of_before(folder: Path, tmp_path: Path) -> None:
    (folder / "train.log").write_text("epoch 1")
    assert content_digest("llm", folder) == "a8ae87bfba4ac88e3f21f568ee4631ec2c2bebb66fb58698455f5e20d4584f49"
    (tmp_path / "items.csv").write_text("item\n1\n")
    assert (
        content_digest("items", tmp_path / "items.csv")
        == "946f5c8e2236e295f1c4b7efdbfb6c2b86c376740cb5d71731c039d249835d67"
    )


@pytest.mark.parametrize("value", ["nope.parquet", "x" * 5000, "~nobody/x", "a\0b"])
def test_a_file_that_is_not_there_is_one_line(value: str) -> None:
    with pytest.raises(InputError, match=r"^vectors=.*: no such file or folder; give the path of one$"):
        existing(option_table(AddItemsConfig)["vectors"], value)
    # What may be a name is left to those who know the names.
    assert existing(option_table(TeacherConfig)["llm"], value) is None
    assert existing(option_table(StudyConfig)["plan"], value) is None
