"""The learning rate of a student over its planned steps: constant, or falling in a line or in half a cosine."""

import math
from collections.abc import Callable

from recdistill.errors import InputError

#: From the share of the falling steps that are done, 0 to 1, to the share of the peak that is left, 1 to 0.
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}


def rate_share(schedule: str, done: int, total: int, *, warmup: float = 0.0, floor: float = 0.0) -> float:
    """The share of the peak learning rate at a step.

    Args:
        schedule: ``constant``, ``linear`` or ``cosine``.
        done: steps before this one.
        total: steps that are planned.
        warmup: share of the planned steps in which the rate first rises, in a line; its first step is above 0.
        floor: share of the peak that the rate falls to.

    Raises:
        InputError: the schedule is unknown.
    """
    if schedule not in SHAPES:
        raise InputError(f"schedule={schedule}: must be one of {', '.join(SHAPES)}")
    rising = math.floor(warmup * total)
    if done < rising:
        return (done + 1) / (rising + 1)
    fallen = min(1.0, (done - rising) / max(1.0, total - rising))
    return floor + (1 - floor) * SHAPES[schedule](fallen)
