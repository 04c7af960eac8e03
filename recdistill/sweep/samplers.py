"""How the values of a study's trials are drawn, and when a trial is given up.

A trial's values depend on the sweep's seed, the trial's number and the trials before it, and not on the process that
draws them: workers never draw the same values twice, and a sweep that was stopped goes on as it would have. With
``qmc`` the storage hands out the points of one sequence without a lock, so that workers who ask at once may draw the
same one.
"""

from typing import Any, assert_never

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recdistill.sweep.space import Space


class SeededByTrial(BaseSampler):
    """The space's sampler, built anew for each trial with a seed made from the sweep's and the trial's number."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed
        self.inner = build_sampler(space, seed, 0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner = build_sampler(self.space, self.seed, trial.number)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)


def build_sampler(space: Space, seed: int, number: int) -> BaseSampler:
    """The sampler of a trial."""
    chosen, single = space.sampler, len(space.objectives) == 1
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    match chosen.name:
        case "random":
            return RandomSampler(seed=own_seed)
        case "nsga2":
            return NSGAIISampler(seed=own_seed, population_size=max(2, chosen.startup_trials))
        case "qmc":
            # The storage hands out the points of one sequence: its seed is the same for all trials.
            rest = RandomSampler(seed=own_seed)
            return QMCSampler(seed=seed, scramble=True, independent_sampler=rest, warn_independent_sampling=False)
        case "tpe":
            # Groups draw conditional parameters jointly with those they come with; the lie keeps workers apart.
            return TPESampler(
                seed=own_seed,
                n_startup_trials=chosen.startup_trials,
                multivariate=single,
                group=single and any(parameter.only for parameter in space.parameters),
                constant_liar=True,
            )
    assert_never(chosen.name)


def build_pruner(space: Space, epochs: int) -> BasePruner:
    """The pruner, for trials of at most ``epochs`` epochs; epochs count from 0."""
    chosen = space.pruner
    match chosen.name:
        case "none":
            return NopPruner()
        case "median":
            return MedianPruner(n_startup_trials=chosen.startup_trials, n_warmup_steps=chosen.warmup_epochs)
        case "hyperband":
            return HyperbandPruner(chosen.min_epochs, max(epochs, chosen.min_epochs), chosen.reduction)
    assert_never(chosen.name)
