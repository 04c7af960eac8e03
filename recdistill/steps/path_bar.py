"""One bar of a whole path, or of a sweep's trials: how many are done, time left, and the present or best metric."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from tqdm import tqdm

from recdistill.config.durations import spoken
from recdistill.runs.run import listening

METRIC, SHOWN_AS = "val/ndcg_at_10", "val NDCG@10"
FORMAT = "{desc} |{bar:20}| {n_fmt}/{total_fmt} UNIT{postfix}"


class PathBar:
    """A bar on the terminal, none where the output is no terminal.

    Args:
        name: of the path.
        steps: how many it has.
        seconds: about how long it takes in all; 0 where that is not known.
        silent: it shows and prints nothing, as in a process that is not the main one.
        unit: what its steps are called.
    """

    def __init__(
        self, name: str, steps: int, seconds: float = 0.0, *, silent: bool = False, unit: str = "steps"
    ) -> None:
        self.seconds, self.started, self.metric, self.silent = seconds, time.perf_counter(), "", silent
        form = FORMAT.replace("UNIT", unit)
        self.bar = tqdm(total=steps, desc=name, bar_format=form, leave=False, disable=silent or None)

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """While it lasts, the bar is there and follows what is logged."""
        try:
            with listening(self.heard):
                self.refresh()
                yield self
        finally:
            self.bar.close()

    def heard(self, metrics: Mapping[str, float]) -> None:
        """Show the present metric."""
        if METRIC in metrics:
            self.metric = f"{SHOWN_AS} {metrics[METRIC]:.4f}"
        self.refresh()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self.silent:
            tqdm.write(text)
            # A log is read while it grows.
            sys.stdout.flush()

    def done(self) -> None:
        """A step is done."""
        self.bar.update()
        self.refresh()

    def postfix(self) -> str:
        """Time left and the present metric."""
        left = self.seconds - (time.perf_counter() - self.started)
        told = [f"about {spoken(left)} left"] if self.seconds and left > 0 else []
        return ", ".join([*told, *([self.metric] if self.metric else [])])

    def refresh(self) -> None:
        """Show the bar anew."""
        self.bar.set_postfix_str(self.postfix())


class TrialBar(PathBar):
    """The bar of a sweep's trials, those too that other machines run.

    Args:
        name: of the sweep.
        trials: how many it has in all.
    """

    def __init__(self, name: str, trials: int) -> None:
        super().__init__(name, trials, unit="trials")

    def heard(self, metrics: Mapping[str, float]) -> None:
        """Show how the time goes by; the metric is the best trial's."""
        self.refresh()

    def at(self, done: int, best: str, seconds: float) -> None:
        """Show how many trials are done, the best value so far, and the seconds left."""
        self.bar.n, self.metric = done, best
        self.seconds, self.started = seconds, time.perf_counter()
        self.refresh()
