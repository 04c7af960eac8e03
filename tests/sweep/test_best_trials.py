"""The best trial of a study; a front of several objectives is in `test_answer`."""

import pytest
from small_sweep import run

from recdistill.errors import InputError
from recdistill.sweep.best_trials import best_trials
from recdistill.sweep.space import Space
from recdistill.sweep.study import OpenStudy


def test_the_best_is_the_best(opened: OpenStudy, space: Space) -> None:
    with pytest.raises(InputError, match="no trial is complete"):
        best_trials(opened.study, space)
    run(opened, space, 9)
    (best,) = best_trials(opened.study, space)
    assert best.value == max(trial.value for trial in opened.study.get_trials() if trial.value is not None)
