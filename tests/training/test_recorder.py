from pathlib import Path

import pytest

from recdistill.training.recorder import NoRecorder


def test_a_training_without_a_run_has_a_folder_of_its_own_for_its_checkpoints() -> None:
    one, other = NoRecorder(), NoRecorder()
    (one.work / "checkpoint").write_text("half done")
    assert (one.work / "checkpoint").read_text() == "half done"
    assert list(other.work.iterdir()) == []
    folder = one.work
    del one
    assert not folder.exists()


def test_it_keeps_nothing(tmp_path: Path) -> None:
    recorder = NoRecorder()
    recorder.log_metrics({"loss": 1.0}, 3)
    recorder.log_folder("figures", lambda folder: pytest.fail("there is nowhere to keep it"))
    recorder.log_file(tmp_path / "absent", "selection")
    recorder.log_text("notes", "text")
    recorder.tag("kept", "trial")
    recorder.describe("text")
    assert list(recorder.work.iterdir()) == []
