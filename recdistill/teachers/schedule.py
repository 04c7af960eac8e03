"""The steps of a teacher's training within its token budget, and the learning rate at each."""

import math

from recdistill.config import TeacherConfig

CURVE_POINTS = 20
LEAST_RATE = 0.01


def curve_of(config: TeacherConfig) -> tuple[int, int]:
    """Points of the training curve, and batches up to each, within the token budget."""
    steps = math.ceil(config.token_budget / (config.accumulation * config.tokens_per_batch))
    steps_a_point = max(1, math.ceil(steps / CURVE_POINTS))
    return math.ceil(steps / steps_a_point), config.accumulation * steps_a_point


def rate_share(done: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: up in a line, then down in half a cosine, both from and to 1 % (iLoRA).

    Args:
        done: steps before this one.
        total: steps of the whole training.
        warmup: share of the steps with rising learning rate.
    """
    rising = warmup * total
    if done < rising:
        return LEAST_RATE + (1 - LEAST_RATE) * done / rising
    fallen = (done - rising) / max(1.0, total - rising)
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))
