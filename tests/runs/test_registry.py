"""The model registry is asked before work, and each of its refusals is one line."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from recdistill.errors import InputError
from recdistill.runs.champion import champion_of, versions_of
from recdistill.runs.registry import asking_registry, check_registry


@pytest.fixture
def no_registry(client: MlflowClient, tmp_path: Path) -> Iterator[None]:
    """A registry that is no database, and named with a password."""
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to be read as one\n" * 100)
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/text.db?password=secret")
    yield
    mlflow.set_registry_uri("")


@pytest.mark.parametrize("name", ["bob's", 'say "hi"', "both ' and \"", "x<y>|%$z ü", "a' OR name='b"])
def test_versions_of_any_name_are_found(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, "runs:/none/model")
    assert [version.number for version in versions_of(name)] == ["2", "1"]
    assert champion_of(name) is None
    check_registry(name)


@pytest.mark.parametrize("ask", [check_registry, versions_of, champion_of], ids=lambda ask: ask.__name__)
def test_what_is_no_registry_is_said_in_one_line(no_registry, ask) -> None:
    with pytest.raises(
        InputError, match=r"^MLFLOW_REGISTRY_URI=sqlite:.*; give the file of an MLflow database"
    ) as caught:
        ask("films")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nothing_is_asked_where_nothing_is_registered(no_registry) -> None:
    check_registry("")


def test_errors_of_all_kinds_are_one_line(client: MlflowClient) -> None:
    said = r"^MLFLOW_TRACKING_URI=sqlite:.*: a new kind; check MLFLOW_TRACKING_URI"
    with pytest.raises(InputError, match=said), asking_registry("register=films"):
        raise RuntimeError("a new\nkind")
    with pytest.raises(InputError, match=r"^said$"), asking_registry("register=films"):
        raise InputError("said")
    with pytest.raises(InputError, match=r"^name=none: no student is registered so"):
        versions_of("none")
