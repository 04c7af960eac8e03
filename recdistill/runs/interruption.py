"""Signals that end a command let a call to a database end first: of the tracking store, or of a sweep.

Python raises an exception for a signal between any two instructions. Raised within a call to a database it leaves a
transaction open, and the lines that then say how the run ended find the database locked.
"""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

#: Modules that have a transaction open while they are called.
DATABASES = re.compile(r"sqlalchemy\b|mlflow\.store\.(db\b|.*sqlalchemy_store\b)")
#: Until a signal is obeyed whatever is being called.
LONGEST_SECONDS = 20.0


@dataclass
class Wait:
    """A signal's wait for a call to a database: one for all signals, as the first to be obeyed ends the command."""

    deadline: float = float("inf")
    again: threading.Timer | None = None

    def begin(self, number: int) -> None:
        """Send the signal again when it has waited for too long."""
        self.deadline = time.monotonic() + LONGEST_SECONDS
        self.again = threading.Timer(LONGEST_SECONDS, os.kill, (os.getpid(), number))
        self.again.daemon = True
        self.again.start()

    def end(self) -> None:
        """Wait no more."""
        if self.again is not None:
            self.again.cancel()
        self.deadline, self.again = float("inf"), None


WAIT = Wait()


def stop_on(number: int, stop: Callable[[], NoReturn]) -> None:
    """Have a signal end what the main thread does: at once, or when the call to a database that it is in returns.

    Args:
        number: of the signal.
        stop: raises what ends it.
    """

    def obey() -> NoReturn:
        WAIT.end()
        stop()

    def handle(number: int, frame: FrameType | None) -> None:
        call = call_to_database(frame)
        if call is None or time.monotonic() >= WAIT.deadline:
            obey()
        elif WAIT.again is None:
            WAIT.begin(number)
            when_returned(call, obey)

    signal.signal(number, handle)


def call_to_database(frame: FrameType | None) -> FrameType | None:
    """The outermost call to a database that a frame is of, or was called from; None where there is none."""
    found = None
    while frame is not None:
        if DATABASES.match(str(frame.f_globals.get("__name__"))):
            found = frame
        frame = frame.f_back
    return found


def when_returned(call: FrameType, act: Callable[[], NoReturn]) -> None:
    """Raise what ``act`` raises where a call of the main thread was made, when it has returned or failed.

    A profiler is told of every return; one that was set before is told no more.
    """

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if frame is call and event == "return":
            sys.setprofile(None)
            act()

    sys.setprofile(profile)


def stop_on_signals(stop: Callable[[], NoReturn]) -> None:
    """`stop_on` for SIGTERM; Ctrl-C raises KeyboardInterrupt as ever, outside of calls to a database too."""
    stop_on(signal.SIGTERM, stop)
    stop_on(signal.SIGINT, interrupt)


def interrupt() -> NoReturn:
    """Raise KeyboardInterrupt."""
    raise KeyboardInterrupt
