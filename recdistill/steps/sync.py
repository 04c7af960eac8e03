"""``sync``: send what waits on disk, because the tracking store did not take it, to the store."""

from recdistill.config import SyncConfig
from recdistill.errors import InputError
from recdistill.runs.outbox import Unsent, outbox_folder, send_left_behind, wait_until_it_answers


def sync(config: SyncConfig) -> None:
    """Send the writes of ended commands to the store at hand, in order; it opens no run.

    Raises InputError, saying what waits for which store, where something still waits.
    """
    wait_until_it_answers(config.wait)
    unsent = send_left_behind()
    if unsent:
        raise InputError(f"{'; '.join(described(one) for one in unsent)}; they wait in {outbox_folder()}")
    print("nothing waits", flush=True)


def described(unsent: Unsent) -> str:
    """What waits for a store, and why."""
    waits = f"{unsent.writes} writes wait for {unsent.address}"
    return f"{waits} ({unsent.reason})" if unsent.reason else f"{waits}: set MLFLOW_TRACKING_URI to it and sync again"
