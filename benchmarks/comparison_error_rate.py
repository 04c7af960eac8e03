"""How often ``compare`` is wrong: equal recommenders called different, and a real gain overlooked.

Run ``python benchmarks/comparison_error_rate.py`` (``--help`` lists the sizes). Ranks are drawn, not trained: each
user has a difficulty, each training a noise of its own for every user, so that HR@10 is near 0.2 and two seeds of
one setting differ as much as two small SASRec on MovieLens-100K do. Cases:

- ``same_one_seed``, ``same_five_seeds``: the same configuration with other seeds (A/A test), of one run and of five
  runs a side; correct is a report without any difference, in HR or in NDCG.
- ``same_shifted_seeds``: as before, and each training is also better or worse for all users alike.
- ``gain_five_seeds`` (943 users), ``gain_many_users`` (14,980 users, one seed): NDCG@10 is 10 % higher; correct is
  ``better``.

One JSON line last: of so many draws, how many were reported correctly in each case.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from recdistill.report.compared import EvaluatedRun, EvaluatedSamples, groups_of
from recdistill.report.results import MetricName, Results, compare_groups

METRIC = MetricName("test", "ndcg", 10)
ITEMS = 1682
# Log ranks. Means and spreads are such that HR@10, NDCG@10 and how far two seeds of one setting differ in both are
# those of a small SASRec on MovieLens-100K.
DIFFICULTY, SPREAD, NOISE = 4.3, 2.0, 0.6


@dataclass(frozen=True)
class Case:
    """What is drawn: users, seeds a side, spread of a shift by the seed, planted gain in log rank."""

    users: int
    seeds: int
    shift: float = 0.0
    gain: float = 0.0


def ranks(generator: np.random.Generator, difficulty: np.ndarray, shift: float, gain: float) -> np.ndarray:
    """Ranks int64 [N] of one trained model."""
    noise = generator.normal(0, NOISE, len(difficulty)) + generator.normal(0, shift)
    return np.clip(np.exp(difficulty - gain + noise), 1, ITEMS).astype(np.int64)


def difficulties(generator: np.random.Generator, users: int) -> np.ndarray:
    return generator.normal(DIFFICULTY, SPREAD, users)


def draw(case: Case, seed: int, resamples: int) -> Results:
    """Two recommenders of one draw, compared."""
    generator = np.random.default_rng(seed)
    difficulty = difficulties(generator, case.users)
    run = EvaluatedRun("", "backbone", "backbone", 0, {}, "same", "drawn", True, "")
    runs, drawn = [], {}
    for side, gain in (("one", 0.0), ("other", case.gain)):
        for number in range(case.seeds):
            name = f"{side}{number}"
            runs.append(replace(run, run_id=name, seed=number, settings={"side": side}))
            drawn[name] = ranks(generator, difficulty, case.shift, gain)
    samples = EvaluatedSamples(
        ranks=drawn,
        user=np.arange(case.users),
        history_length=generator.integers(1, 200, case.users),
        item_count=generator.poisson(30, case.users),
    )
    return compare_groups(groups_of(runs), samples, METRIC, resamples=resamples, seed=seed)


def nothing_found(results: Results) -> bool:
    return all(row.verdict == "unclear" for row in results.rows)


def gain_found(results: Results) -> bool:
    row = results.row_of(1)
    return row is not None and row.verdict == "better"


def planted_gain(share: float) -> float:
    """Gain in log rank that raises NDCG@10 by ``share``, by bisection on a large draw."""
    generator = np.random.default_rng(0)
    difficulty = difficulties(generator, 400_000)

    def ndcg(gain: float) -> float:
        drawn = ranks(np.random.default_rng(1), difficulty, 0.0, gain)
        return float(np.where(drawn <= 10, 1 / np.log2(drawn + 1), 0).mean())

    goal, low, high = ndcg(0.0) * (1 + share), 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if ndcg(middle) < goal else (low, middle)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description="Error rates of compare on drawn ranks.")
    parser.add_argument("--draws", type=int, default=100, help="draws of each case (default 100)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap and permutation draws (default 2000)")
    arguments = parser.parse_args()
    gain = planted_gain(0.1)
    cases: dict[str, tuple[Case, Callable[[Results], bool]]] = {
        "same_one_seed": (Case(943, 1), nothing_found),
        "same_five_seeds": (Case(943, 5), nothing_found),
        "same_shifted_seeds": (Case(943, 5, shift=0.1), nothing_found),
        "gain_five_seeds": (Case(943, 5, gain=gain), gain_found),
        "gain_many_users": (Case(14_980, 1, gain=gain), gain_found),
    }
    correct = {}
    for name, (case, right) in cases.items():
        drawn = tqdm(range(arguments.draws), desc=name, leave=False)
        correct[name] = sum(right(draw(case, seed, arguments.resamples)) for seed in drawn)
        print(f"{name:<20}{correct[name]:>5} of {arguments.draws} reported correctly")
    print(json.dumps({"draws": arguments.draws} | correct))


if __name__ == "__main__":
    main()
