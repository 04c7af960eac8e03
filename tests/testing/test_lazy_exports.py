"""The suites are there by name, and imported when asked for."""

import subprocess
import sys

import pytest

import recdistill.testing


def test_nothing_heavy_is_imported_before_a_suite_is_asked_for():
    code = "import sys, recdistill.testing; print('torch' in sys.modules, 'pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", ["check_source", "check_split", "check_metric"])
def test_each_suite_is_a_function_of_its_module(name):
    assert getattr(recdistill.testing, name).__name__ == name
    assert name in dir(recdistill.testing)


def test_another_name_is_told_what_there_is():
    with pytest.raises(AttributeError, match="has no 'check_everything'; it has check_student"):
        recdistill.testing.check_everything  # noqa: B018
