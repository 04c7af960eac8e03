"""What tells that files may have changed: nested ones, and those beside."""

from pathlib import Path

import pytest

from recdistill.data.file_state import state_of


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("name", ["log/a.parquet", "log/month=1/a.parquet", "log/year=1/month=1/a.parquet", "x.inter"])
def test_a_file_that_is_written_anew_added_or_gone_changes_the_state(tmp_path, name):
    write(tmp_path / name)
    given = [str(tmp_path / name.partition("/")[0]), ""]
    before = state_of(given)
    assert before == state_of(given)
    write(tmp_path / name, "longer")
    changed = state_of(given)
    assert changed != before
    beside = (tmp_path / name).with_suffix(".item")
    write(beside)
    assert state_of(given) != changed
    beside.unlink()
    (tmp_path / name).unlink()
    assert state_of(given) not in (before, changed)


def test_what_nobody_reads_is_not_looked_at(tmp_path):
    write(tmp_path / "x.inter")
    write(tmp_path / "folder" / "inside" / "a.parquet")
    given = [str(tmp_path / "x.inter"), str(tmp_path / "folder"), str(tmp_path / "absent")]
    before = state_of(given)
    write(tmp_path / "xy.item")
    write(tmp_path / "folder" / "inside" / "a.parquet", "longer")
    assert state_of(given) == before
    (tmp_path / "x.item").symlink_to(tmp_path / "nowhere")
    assert state_of(given) == before
