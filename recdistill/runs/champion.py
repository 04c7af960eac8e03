"""Versions of a registered student, and the alias ``champion``: the version that is served."""

from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recdistill.errors import InputError
from recdistill.runs.finished_runs import run_of
from recdistill.runs.outbox import read
from recdistill.runs.registry import asking_registry, versions_in_registry
from recdistill.runs.run import FINGERPRINT

CHAMPION = "champion"
OVERRIDDEN, REPLACED = "recdistill.override", "recdistill.replaced"


@dataclass(frozen=True)
class Version:
    """A version of a registered student.

    Attributes:
        name, number: of the version.
        run_id: of the run that made it.
    """

    name: str
    number: str
    run_id: str

    @property
    def address(self) -> str:
        """Where it is loaded from."""
        return f"models:/{self.name}/{self.number}"


#: What a store says of an alias that nobody has set.
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def versions_of(name: str) -> list[Version]:
    """All versions, the newest first. Raises InputError where there is none."""
    with asking_registry(f"name={name}"):
        found = read(lambda: versions_in_registry(name))
    if not found:
        raise InputError(f"name={name}: no student is registered so; distill with register={name} first")
    return [Version(name, str(v.version), v.run_id or "") for v in sorted(found, key=lambda v: -int(v.version))]


def champion_of(name: str) -> Version | None:
    """The champion; None where there is none yet."""
    with asking_registry(f"name={name}"):
        try:
            found = read(lambda: MlflowClient().get_model_version_by_alias(name, CHAMPION))
        except MlflowException as error:
            if error.error_code in NOT_THERE:
                return None
            raise
    return Version(name, str(found.version), found.run_id or "")


def best_on_validation(versions: list[Version], metric: str) -> Version:
    """The version whose run is best by the validation metric that stands beside a test metric.

    Raises InputError where no run has it.
    """
    wanted = f"val/{metric.partition('/')[2]}"
    values = {version: run_of(version.run_id).data.metrics.get(wanted) for version in versions if version.run_id}
    known = {version: value for version, value in values.items() if value is not None}
    if not known:
        raise InputError(f"version=: no version's run has {wanted}; give a version")
    return max(known, key=lambda version: (known[version], int(version.number)))


def of_same_data(versions: list[Version], champion: Version) -> list[Version]:
    """The versions that were made for the champion's data: on other data a metric says nothing of who is better.

    Raises InputError where there is none.
    """
    wanted = fingerprint_of(champion)
    found = [version for version in versions if wanted and fingerprint_of(version) == wanted]
    if not found:
        raise InputError(
            f"version=: no other version of {champion.name} is of the data of its {CHAMPION}, {champion.address}; give "
            "a version, and override=true, or register one of that data"
        )
    return found


def fingerprint_of(version: Version) -> str:
    """The fingerprint of the data that a version's run is of; empty where that run is gone, or of none."""
    try:
        return run_of(version.run_id).data.tags.get(FINGERPRINT, "") if version.run_id else ""
    except MlflowException:
        return ""


def make_champion(version: Version, before: Version | None, *, override: bool) -> None:
    """Move the alias, and tag the version with which one it replaced and whether that was overridden."""
    client = MlflowClient()
    with asking_registry(f"name={version.name}"):
        client.set_registered_model_alias(version.name, CHAMPION, version.number)
        client.set_model_version_tag(version.name, version.number, OVERRIDDEN, str(override).lower())
        if before is not None:
            client.set_model_version_tag(version.name, version.number, REPLACED, before.number)


def describe_version(name: str, number: str, text: str) -> None:
    """Set a version's description, which the registry shows."""
    with asking_registry(f"register={name}"):
        MlflowClient().update_model_version(name, number, text)
