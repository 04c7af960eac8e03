from collections.abc import Callable

import numpy as np
import pytest

from recdistill.report.compared import EvaluatedRun, EvaluatedSamples, groups_of
from recdistill.report.results import MetricName, Results, compare_groups

USERS = 300


@pytest.fixture
def make_run() -> Callable[..., EvaluatedRun]:
    def make(run_id: str, step: str = "distill", **changes: object) -> EvaluatedRun:
        values: dict = {"name": step, "seed": 1, "settings": {"lam": 0.5}, "fingerprint": "a" * 64, "baseline_id": ""}
        values |= {"data": "drawn, leave-one-out", "exclude_seen": True}
        return EvaluatedRun(run_id=run_id, step=step, **(values | changes))

    return make


@pytest.fixture
def samples() -> EvaluatedSamples:
    """Ranks of 'plain', of 'same' (as good), of 'good', and of their other seeds 'plain2' and 'good2'."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(2.5, 1, USERS)

    def ranks(gain: float) -> np.ndarray:
        return np.clip(np.exp(difficulty - gain + generator.normal(0, 0.3, USERS)), 1, None).astype(np.int64)

    gains = {"plain": 0, "same": 0, "good": 0.6, "plain2": 0, "good2": 0.6, "bad": -0.8}
    return EvaluatedSamples(
        ranks={name: ranks(gain) for name, gain in gains.items()},
        user=np.arange(USERS),
        history_length=generator.integers(1, 100, USERS),
        item_count=generator.poisson(2, USERS),
    )


@pytest.fixture
def results(make_run: Callable[..., EvaluatedRun], samples: EvaluatedSamples) -> Results:
    """Two seeds of a distilled student that is better than its twin, another that is not, and one that is worse."""
    runs = [
        make_run("good", baseline_id="plain", settings={"lam": 0.7}),
        make_run("good2", baseline_id="plain2", settings={"lam": 0.7}, seed=2),
        make_run("same", baseline_id="plain", settings={"lam": 0.1}),
        make_run("bad", baseline_id="plain", settings={"lam": 9.0}),
        make_run("plain", step="backbone", settings={}),
        make_run("plain2", step="backbone", settings={}, seed=2),
    ]
    return compare_groups(groups_of(runs), samples, MetricName("test", "ndcg", 10), resamples=500)
