"""The tracking store from outside: what it is called, whether it answers, and what its refusals mean."""

import errno
import importlib.metadata
import re
import tempfile
from pathlib import Path

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from recdistill.data.downloads import cache_dir
from recdistill.errors import InputError, one_line
from recdistill.runs.store_address import noted_address, without_secrets

PROBE_SECONDS = 5
TRACKING = "MLFLOW_TRACKING_URI"
#: What MLflow, requests, urllib3 and database drivers say where nobody answers.
SILENCE = re.compile(
    r"max retries exceeded|connection (refused|aborted|reset|timed out)|could not connect|connection to server|"
    r"server closed the connection|remote end closed|timed out|timeout exception|name resolution|"
    r"failed with error code (429|50[234])|network is unreachable|no route to host|database is locked|"
    r"(429|50[234]) (server|client) error|broken pipe|lost connection",
    re.IGNORECASE,
)
#: Codes of MLflow by which a store says that a call is wrong: the same call would be refused again.
REFUSED = {
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "FEATURE_DISABLED",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "NOT_IMPLEMENTED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
#: Errors of a file system that time does not mend.
OF_FILES = {errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
START_SERVER = "start the server, or set MLFLOW_TRACKING_URI to one that runs"
#: What to do about what a store says as a run is opened, by what it says.
ADVICE = (
    (
        r"filesystem tracking backend|maintenance mode|file store",
        "the installed MLflow writes to no folder of files: set MLFLOW_TRACKING_URI=sqlite:///mlflow.db; "
        "`mlflow migrate-filestore` takes its runs along",
    ),
    (
        r"must be in the 'active' state|deleted experiment|experiment .* is deleted",
        "`mlflow experiments restore --experiment-id ID` brings it back; or set MLFLOW_EXPERIMENT_NAME to another",
    ),
    (
        r"MLFLOW_EXPERIMENT_ID|no experiment|experiment .* (not exist|not found)",
        "set MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID to one that is there, or unset both",
    ),
    (r"run with id=|run '.*' not found", "unset MLFLOW_RUN_ID, which names a run that is not there"),
    (
        r"database schema|locate revision|no such revision",
        f"another version of MLflow made the database than the installed {importlib.metadata.version('mlflow')}: "
        "install that version, or where it is the older one copy the database and run `mlflow db upgrade`",
    ),
    (r"not a database|malformed", "give the file of an MLflow database, or one that is not there yet"),
    (
        r"unable to open|readonly|read-only|permission denied|not a directory|file exists|no space",
        "set MLFLOW_TRACKING_URI to a place that can be written",
    ),
    (
        r"unsupported uri|invalid url|no such scheme|could not parse|can't load plugin|no module named",
        "set MLFLOW_TRACKING_URI to sqlite:///mlflow.db or to a server, as http://127.0.0.1:5000",
    ),
    (
        r"unauthenticated|unauthorized|not authenticated|permission_denied|error code 40[13]",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (SILENCE.pattern, START_SERVER),
)
OTHERWISE = "check MLFLOW_TRACKING_URI"


def tracking_address() -> str:
    """The address of the tracking store, absolute and without a secret: what messages call it, and notes on disk."""
    return noted_address(mlflow.get_tracking_uri())


def reason_of(error: BaseException, most: int = 200) -> str:
    """What an error says, on one line, without a password."""
    said = error.message if isinstance(error, MlflowException) else str(error) or type(error).__name__
    return one_line(without_secrets(said, mlflow.get_tracking_uri(), mlflow.get_registry_uri()), most)


def chain(error: BaseException) -> list[BaseException]:
    """An error, and those that it was raised from."""
    found: list[BaseException] = []
    while error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__ or error
    return found


def is_silence(error: BaseException) -> bool:
    """Whether an error says that the store does not answer, so that it may answer later."""
    if isinstance(error, InputError):
        return False
    code = error.error_code if isinstance(error, MlflowException) else ""
    if code in REFUSED:
        return False
    silent = (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError)
    return code == "TEMPORARILY_UNAVAILABLE" or any(
        isinstance(one, silent) or SILENCE.search(str(one)) is not None for one in chain(error)
    )


def is_refusal(error: BaseException) -> bool:
    """Whether a store says that a call is wrong: it would say the same again."""
    return isinstance(error, MlflowException) and error.error_code in REFUSED


def is_mistake(error: BaseException) -> bool:
    """Whether the same call would fail again wherever the store is: refused by it, or wrong by itself."""
    wrong = (InputError, TypeError, AttributeError, LookupError, AssertionError, NotImplementedError)
    return is_refusal(error) or isinstance(error, wrong)


def is_of_files(error: BaseException) -> bool:
    """Whether an error is of a file system and stays until somebody mends it: a full disk, a read-only folder."""
    return any(isinstance(one, OSError) and one.errno in OF_FILES for one in chain(error)) or any(
        "No space left on device" in str(one) for one in chain(error)
    )


def answers(uri: str) -> bool:
    """Whether a tracking server answers at all, asked briefly; True of a store that is no server."""
    if not uri.startswith(("http://", "https://")):
        return True
    try:
        return requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS).status_code < 500
    except requests.RequestException:
        return False


def refusal(error: BaseException, variable: str = TRACKING, uri: str = "") -> InputError:
    """The one line for an error of a store: what it says, and what to do.

    Args:
        error: of MLflow, or of what it is built on.
        variable: that names the store.
        uri: of the store; '' for that of the tracking store at hand.
    """
    uri = uri or mlflow.get_tracking_uri()
    named = f"{variable}={noted_address(uri)}"
    if not answers(uri):
        # MLflow may say instead that an experiment is not there.
        return InputError(f"{named}: no server answers; {START_SERVER.replace(TRACKING, variable)}")
    said = re.split(r"\. (?=[A-Z])| \[SQL| \(Caused", reason_of(error, 1000))[0][:200]
    whole = " ".join(str(one) for one in chain(error))
    advice = next((what for pattern, what in ADVICE if re.search(pattern, whole, re.IGNORECASE)), OTHERWISE)
    return InputError(f"{named}: {said.rstrip('.')}; {advice.replace(TRACKING, variable)}")


def check_writable(artifact_uri: str) -> None:
    """Raise InputError where the folder of a run's artifacts, or the cache, is on this machine and not writable."""
    if is_local_uri(artifact_uri):
        folder = Path(local_file_uri_to_path(artifact_uri))
        advice = "make it writable, or set MLFLOW_EXPERIMENT_NAME to an experiment whose artifacts lie elsewhere"
        try_to_write(folder, f"artifacts {folder}", advice)
    cache = cache_dir()
    try_to_write(cache, f"RECDISTILL_CACHE={cache}", "set RECDISTILL_CACHE to a folder that can be written")


def try_to_write(folder: Path, name: str, advice: str) -> None:
    """Make the folder where it is missing, and a file in it. Raises InputError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror}); {advice}") from None


def fault(error: BaseException) -> InputError | None:
    """The one line for an error of this machine's file system or of the store in the middle; None for another's."""
    if isinstance(error, InputError) or not isinstance(error, Exception):
        return None
    again = "then start the same command again: it goes on from its checkpoint"
    if is_of_files(error):
        found = next((one for one in chain(error) if isinstance(one, OSError) and one.errno in OF_FILES), None)
        place = f"{found.filename}: " if found is not None and found.filename else ""
        said = (found.strerror if found is not None else None) or reason_of(error)
        mend = "make room" if "No space" in said or "quota" in said else "mend that"
        return InputError(f"{place}{said}; {mend}, {again}")
    if isinstance(error, MlflowException):
        return InputError(f"tracking store {tracking_address()}: {reason_of(error).rstrip('.')}; mend that, {again}")
    return None


def num_experiments() -> int:
    """Experiments of the store at hand, up to 1,000. Raises InputError where it does not answer."""
    try:
        return len(mlflow.search_experiments(max_results=1000))
    except Exception as error:
        # MLflow, its databases' drivers and its file systems raise many kinds.
        raise refusal(error) from None
