"""What every test starts from: MLflow's experiment 0, whatever the store; `runs/test_experiment.py` has others."""

import os

import pytest

os.environ["MLFLOW_EXPERIMENT_ID"] = "0"
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)
#: What takes long to make and is made once a process: the files that need it go to the same one.
SHARED = ("finished_main", "taught_place")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup``, one process has all tests of a file, and all files that share what takes long."""
    if not items or not items[0].config.pluginmanager.hasplugin("xdist"):
        return
    needed: dict[str, set[str]] = {}
    for item in items:
        needed.setdefault(item.location[0], set()).update(getattr(item, "fixturenames", ()))
    for item in items:
        file = item.location[0]
        group = next((name for name in SHARED if name in needed[file]), file)
        item.add_marker(pytest.mark.xdist_group(group))
