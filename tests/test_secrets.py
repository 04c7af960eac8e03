"""No secret of the environment stands in a run, an artifact, a log or the cache."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import Workplace, run_step

#: Of each a text that stands nowhere else. A user's name is no secret: MLflow keeps it as the tag `mlflow.user`.
SECRETS = {
    name: f"hidden-{place}-{name.lower().replace('_', '-')}-text"
    for place, name in enumerate(
        [
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "OPENAI_API_KEY",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "RECDISTILL_ENDPOINT_KEY",
            "SOME_API_KEY",
        ]
    )
}
TEACHER = {"token_budget": 2000, "tokens_per_batch": 400, "teacher_window": 10, "teacher_history": 4, "top_n": 10}
STUDENT = {"epochs": 2, "patience": 2, "hidden_size": 16, "blocks": 1, "max_length": 12}


def holding(folder: Path) -> list[str]:
    """The files below a folder that hold a secret, or whose names do."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path}: {name}" for name, text in SECRETS.items() if text.encode() in content or text in str(path)]
    return found


def said_by(place: Workplace, step: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> str:
    """All that a step prints, with secrets in the environment."""
    for name, text in SECRETS.items():
        monkeypatch.setenv(name, text)
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        assert run_step(step, **options) == 0
    return printed.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "place").mkdir()
    return Workplace(tmp_path / "place", tmp_path / "downloads")


def check(place: Workplace, step: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    with place.entered():
        said = said_by(place, step, monkeypatch, **options)
    assert not [name for name, text in SECRETS.items() if text in said]
    assert len(list(place.folder.rglob("*"))) > 20
    assert holding(place.folder) == []


def test_the_search_finds_a_secret(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.bin").write_bytes(b"\x00" + SECRETS["HF_TOKEN"].encode() + b"\xff")
    assert holding(tmp_path) == [f"{tmp_path}/folder/file.bin: HF_TOKEN"]


@pytest.mark.slow
def test_a_recommender_s_run_holds_no_secret(place: Workplace, tmp_path: Path, monkeypatch) -> None:
    check(place, "backbone", monkeypatch, **write_csv(tmp_path), **STUDENT)


@pytest.mark.slow
def test_the_whole_path_holds_no_secret(place: Workplace, tmp_path: Path, monkeypatch) -> None:
    llm = write_tiny_llm(tmp_path / "llm")
    check(place, "main", monkeypatch, **write_csv(tmp_path), **TEACHER, **STUDENT, llm=llm)


def test_a_store_s_password_is_in_no_message(tmp_path: Path, monkeypatch, capsys) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    try:
        mlflow.set_tracking_uri(f"http://somebody:{SECRETS['MLFLOW_TRACKING_PASSWORD']}@127.0.0.1:9")
        assert run_step("compare") == 1
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_RUN_ID", None)
    said = "".join(capsys.readouterr())
    assert "127.0.0.1:9" in said
    assert SECRETS["MLFLOW_TRACKING_PASSWORD"] not in said
