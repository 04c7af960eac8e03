"""One bar of a whole path: steps done, time left, and the present metric."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from recdistill.config.durations import spoken
from recdistill.runs.run import listening

METRIC, SHOWN_AS = "val/ndcg_at_10", "val NDCG@10"
FORMAT = "{desc} |{bar:20}| {n_fmt}/{total_fmt} steps{postfix}"


class PathBar:
    """A bar on the terminal, none where the output is no terminal.

    Args:
        name: of the path.
        steps: how many it has.
        seconds: about how long it takes in all; 0 where that is not known.
    """

    def __init__(self, name: str, steps: int, seconds: float = 0.0) -> None:
        self.seconds, self.started, self.metric = seconds, time.perf_counter(), ""
        self.bar = tqdm(total=steps, desc=name, bar_format=FORMAT, leave=False, disable=None)

    @contextmanager
    def shown(self) -> Iterator["PathBar"]:
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
        tqdm.write(text)

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
