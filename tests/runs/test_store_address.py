"""A store is called by one name from any folder, and no password stands in it or in what is said of it."""

from pathlib import Path

import pytest

from recdistill.runs.store_address import absolute, noted_address, without_secrets
from recdistill.runs.tracking_store import reason_of

SHOWN = {
    "http://me:secret@host:5000/path": "http://host:5000/path",
    "http://me:se/cret@host:5000": "http://host:5000",
    "http://me:se#cret@host:5000": "http://host:5000",
    "https://token-secret@host": "https://host",
    "postgresql+psycopg2://me:se:cret@host/db": "postgresql+psycopg2://host/db",
    "postgresql://me:se/cret@host:5432/db": "postgresql://host:5432/db",
    "postgresql://me:p@secret@host/db": "postgresql://host/db",
    "postgresql://me:p@se/cret@host/db": "postgresql://host/db",
    "postgresql://me:p?se@cret@host/db": "postgresql://host/db",
    "mysql+pymysql://me:it's-secret@host/db": "mysql+pymysql://host/db",
    "postgresql://host/db?user=me&password=secret&sslmode=require": (
        "postgresql://host/db?user=***&password=***&sslmode=require"
    ),
    "https://host/api?access_token=secret#x": "https://host/api?access_token=***#x",
    "mssql://me@host/db?api_key=secret": "mssql://host/db?api_key=***",
}


@pytest.mark.parametrize("address", SHOWN)
def test_an_address_is_shown_without_its_secrets(address: str) -> None:
    assert without_secrets(address) == SHOWN[address]
    assert noted_address(address) == SHOWN[address]
    said = without_secrets(f"API request to {address} failed, at 'other@mail'")
    assert said == f"API request to {SHOWN[address]} failed, at 'other@mail'"


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////a/b@c/mlflow.db", "http://host:5000/a@b", "mlruns", "https://[::1]:5000/a@b", "postgresql://host/db",
        "http://host/#/experiments/1?viewStateShareKey=recdistill", "models:/films/1", "s3://bucket/a@b",
    ],
)  # fmt: skip
def test_an_address_without_a_secret_stays(address: str) -> None:
    assert without_secrets(address) == address


def test_what_a_driver_takes_for_the_host_holds_the_end_of_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "postgresql://me:p@ssword@host/db"
    said = "could not translate host name 'ssword@host' to an address, of user@mail"
    assert without_secrets(said, address) == "could not translate host name 'host' to an address, of user@mail"
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: address)
    monkeypatch.setattr("mlflow.get_registry_uri", lambda: address)
    assert reason_of(ConnectionError(said)) == without_secrets(said, address)


def test_a_file_has_one_address_in_its_folder_and_another_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    one = [absolute(address) for address in ("sqlite:///mlflow.db", "mlruns", "file:./mlruns")]
    assert one[0] == f"sqlite:///{tmp_path}/one/mlflow.db" == absolute("sqlite:///../one/mlflow.db")
    assert one[1] == one[2] == (tmp_path / "one" / "mlruns").as_uri() == absolute(str(tmp_path / "one" / "mlruns"))
    monkeypatch.chdir(tmp_path / "two")
    assert absolute("sqlite:///mlflow.db") != one[0]
    assert [absolute(address) for address in one] == one


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "http://host:5000", "databricks"])
def test_what_is_no_file_stays_where_it_is(address: str) -> None:
    assert absolute(address) == address
