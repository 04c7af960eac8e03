"""Signals that end a command let a call to a database end first: of the tracking store, or of a sweep.

Python raises an exception for a signal between any two instructions. Raised within a call to a database it leaves a
transaction open, and the lines that then say how the run ended find the database locked.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

#: Modules that have a transaction open while they are called.
DATABASES = re.compile(r"sqlalchemy\b|mlflow\.store\.(db\b|.*sqlalchemy_store\b)")
#: Until a signal is looked at again, which is less than a call takes; and until it is obeyed whatever is being called.
PAUSE_SECONDS, LONGEST_SECONDS = 0.005, 20.0


def stop_on(number: int, stop: Callable[[], NoReturn]) -> None:
    """Have a signal end what the main thread does, outside of calls to a database.

    Args:
        number: of the signal.
        stop: raises what ends it.
    """
    deadline = float("inf")

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal deadline
        deadline = min(deadline, time.monotonic() + LONGEST_SECONDS)
        if is_in_database(frame) and time.monotonic() < deadline:
            again = threading.Timer(PAUSE_SECONDS, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        else:
            deadline = float("inf")
            stop()

    signal.signal(number, handle)


def is_in_database(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, is of a call to a database."""
    while frame is not None:
        if DATABASES.match(str(frame.f_globals.get("__name__"))):
            return True
        frame = frame.f_back
    return False


def stop_on_signals(stop: Callable[[], NoReturn]) -> None:
    """`stop_on` for SIGTERM; Ctrl-C raises KeyboardInterrupt as ever, outside of calls to a database too."""
    stop_on(signal.SIGTERM, stop)
    stop_on(signal.SIGINT, interrupt)


def interrupt() -> NoReturn:
    """Raise KeyboardInterrupt."""
    raise KeyboardInterrupt
