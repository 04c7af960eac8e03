"""What a person sees of a sweep while its trials run."""

import time
from typing import Protocol

from optuna.study import Study
from optuna.trial import TrialState

from recdistill.sweep.space import Space
from recdistill.sweep.totals import finished

#: Seconds between two looks into the storage, where no trial of this command ends.
LOOK_SECONDS = 5.0


class Progress(Protocol):
    """Where lines and the state of the trials are shown."""

    def say(self, text: str) -> None:
        """Print a line."""

    def at(self, done: int, best: str, seconds: float) -> None:
        """Show how many trials are done, the best value so far, and the seconds left: 0 where that is not known."""


class Lines:
    """Lines alone."""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def at(self, done: int, best: str, seconds: float) -> None:
        """Show nothing."""


class Watch:
    """Shows how far the trials of a study are, those of other machines too.

    Args:
        progress: where.
        study: the study.
        space: what it searches.
        total: trials in all.
    """

    def __init__(self, progress: Progress, study: Study, space: Space, total: int) -> None:
        self.progress, self.study, self.space, self.total = progress, study, space, total
        self.started, self.looked = time.monotonic(), 0.0
        self.before = finished(study)
        self.look()

    def said(self, text: str) -> None:
        """A trial ended with this line."""
        self.progress.say(text)
        self.look()

    def look_again(self) -> None:
        """Look into the storage, unless that was just done."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.look()

    def look(self) -> None:
        """Show the present state."""
        done, self.looked = finished(self.study), time.monotonic()
        here = done - self.before
        left = (self.looked - self.started) / here * max(0, self.total - done) if here else 0.0
        self.progress.at(done, best_of(self.study, self.space), left)


def best_of(study: Study, space: Space) -> str:
    """The best value so far, with its metric; '' where there is none, or there are several objectives."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(space.objectives) > 1 or not complete:
        return ""
    return f"best {space.objectives[0].metric} {study.best_value:.4f}"
