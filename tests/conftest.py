"""What every test starts from: MLflow's experiment 0 (`runs/test_experiment.py` has others) and the parts before it.

And which process runs which tests, where several do (``--dist loadfile``).
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from registered_parts import registries_restored

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

os.environ["MLFLOW_EXPERIMENT_ID"] = "0"
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)

#: Files whose tests look at the same finished path, which is made once in each process that has one of them.
FINISHED_PATH = ("steps/test_main.py", "steps/test_evaluate.py", "steps/test_examples.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "LoadFileScheduling | None":
    """A file's tests go to one process, and those of `FINISHED_PATH` to the same one."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "finished path" if file.endswith(FINISHED_PATH) else file

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _parts_are_those_before() -> Iterator[None]:
    """What a test registers is gone after it: the next one in this process counts the names of all parts."""
    with registries_restored():
        yield
