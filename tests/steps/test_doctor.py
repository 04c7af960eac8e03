"""What ``doctor`` says of a machine that is well, and of one that is not."""

import mlflow
import pytest

from recdistill.config import DoctorConfig
from recdistill.errors import InputError
from recdistill.steps import doctor as module
from recdistill.steps.doctor import doctor


def test_all_is_well_where_it_is(place, tiny_llm_folder, capsys):
    doctor(DoctorConfig(llm=str(tiny_llm_folder)))
    said = capsys.readouterr().out
    assert "PROBLEM" not in said
    assert said.endswith("all is well\n")
    for subject in ("versions", "devices", "store", "cache", "llm"):
        assert f"ok      {subject}" in said
    assert "mlflow 3" in said


def test_each_problem_has_a_cure(place, tmp_path, monkeypatch, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("RECDISTILL_CACHE", str(blocked / "cache"))
    monkeypatch.setattr(mlflow, "search_experiments", lambda **given: (_ for _ in ()).throw(OSError("no disk")))
    with pytest.raises(InputError, match="3 to mend: store, cache, llm"):
        doctor(DoctorConfig(llm=str(tmp_path / "nothing")))
    said = capsys.readouterr().out
    assert "set RECDISTILL_CACHE to a folder that can" in said
    assert "MLFLOW_TRACKING_URI" in said
    assert "no such file or folder" in said


def test_little_room_is_a_problem(place, tiny_llm_folder, monkeypatch, capsys):
    monkeypatch.setattr(module, "WANTED_GIB", 1e9)
    with pytest.raises(InputError, match="1 to mend: cache"):
        doctor(DoctorConfig(llm=str(tiny_llm_folder)))
    assert "GiB free" in capsys.readouterr().out
