"""The examples in docstrings run."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import recdistill.data
import recdistill.evaluation
from recdistill.registry import METRICS

MODULES = [
    module.name
    for room in (recdistill.data, recdistill.evaluation)
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_has_an_example(name):
    metric = METRICS.get(name)
    found = doctest.DocTestFinder(recurse=False).find(metric, name, globs={})
    assert found[0].examples, f"give {inspect.getsourcefile(metric)} an example"


def test_an_example_that_is_wrong_fails(tmp_path, monkeypatch):
    (tmp_path / "wrong_example.py").write_text('"""\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert doctest.testmod(importlib.import_module("wrong_example"), verbose=False).failed == 1
