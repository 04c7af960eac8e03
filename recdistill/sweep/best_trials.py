"""The best trials of a study: the best one, or the Pareto front."""

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recdistill.errors import InputError
from recdistill.sweep.space import Space


def best_trials(study: Study, space: Space, first: int = 0) -> list[FrozenTrial]:
    """The best complete trial, or those of the Pareto front, best by the objective at position ``first`` first.

    Raises InputError where no trial is complete.
    """
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        raise InputError(f"study={study.study_name}: no trial is complete, so there is no best one; add trials")
    if len(space.objectives) == 1:
        return [study.best_trial]
    sign = -1.0 if space.objectives[first].direction == "maximize" else 1.0
    return sorted(study.best_trials, key=lambda trial: (sign * trial.values[first], trial.number))
