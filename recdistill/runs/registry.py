"""The model registry from outside: asked before work whose result goes there, and what its refusals mean."""

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from recdistill.errors import InputError
from recdistill.runs.store_address import noted_address
from recdistill.runs.tracking_store import TRACKING, is_refusal, is_silence, reason_of, refusal, tracking_address

REGISTRY = "MLFLOW_REGISTRY_URI"


@contextmanager
def asking_registry(named: str) -> Iterator[None]:
    """Have each error of the registry be one line: an InputError.

    Args:
        named: the option by which the user named what the registry is asked for, with its value.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # MLflow, its databases' drivers and its file systems raise many kinds.
        if is_refusal(error):
            raise InputError(f"{named}: {reason_of(error)}") from None
        raise refusal(error, TRACKING if is_tracking_store() else REGISTRY, mlflow.get_registry_uri()) from None


def is_tracking_store() -> bool:
    """Whether models are registered in the tracking store itself."""
    return noted_address(mlflow.get_registry_uri()) == tracking_address()


def check_registry(name: str) -> None:
    """Raise InputError, before any work, where the registry cannot be asked for ``name``; '' asks nothing.

    A tracking store that does not answer just now is waited for elsewhere.
    """
    if not name:
        return
    with asking_registry(f"register={name}"):
        try:
            MlflowClient().get_registered_model(name)
        except Exception as error:
            waited_for = is_silence(error) and is_tracking_store()
            if not waited_for and getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise


def versions_in_registry(name: str) -> list[ModelVersion]:
    """All versions of a registered model, whatever its name is made of. Raises what the registry says."""
    client, found, token = MlflowClient(), list[ModelVersion](), ""
    # A filter holds a text with one kind of quotes; of a name with both all versions are looked through.
    quote = next((one for one in "'\"" if one not in name), None)
    condition = f"name = {quote}{name}{quote}" if quote else None
    while True:
        page = client.search_model_versions(condition, page_token=token or None)
        found += [version for version in page if version.name == name]
        token = page.token or ""
        if not token:
            return found
