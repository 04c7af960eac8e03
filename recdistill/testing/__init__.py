"""Contract suites: what a student, source, split, metric, policy, loss term, gate, teacher or view has to keep to.

Each is a plain function that takes the registered part or its name, runs it on small data, and raises AssertionError
with a sentence that says what is wrong and what to do. They need no pytest::

    from recdistill.testing import check_metric

    def test_my_metric():
        check_metric("my_metric")
"""

import importlib
from typing import Any

_MODULES = {
    "check_student": "students",
    "check_source": "sources",
    "check_split": "splits",
    "check_metric": "metrics",
    "check_policy": "policies",
    "check_loss_term": "loss_terms",
    "check_gate": "gates",
    "check_teacher": "teachers",
    "check_view": "views",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """A suite, its module imported when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"recdistill.testing has no {name!r}; it has {', '.join(_MODULES)}")
    return getattr(importlib.import_module(f"recdistill.testing.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The suites' names."""
    return sorted(_MODULES)
