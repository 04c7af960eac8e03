"""Turn a slow LLM recommender into a small one that can be served. See docs/PYTHON.md.

Names are imported when they are first used, so that ``import recdistill`` costs nothing.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from recdistill.freed_memory import keep_freed_memory

if TYPE_CHECKING:
    from recdistill.api import (
        FittedStudent,
        TrainedStudent,
        TrainedTeacher,
        compare,
        compare_runs,
        distill,
        load_data,
        load_frame,
        load_run,
        load_student,
        newest_run,
        train_student,
        train_teacher,
    )
    from recdistill.config.option import option
    from recdistill.data.interactions import Interactions
    from recdistill.data.sequences import SequenceData
    from recdistill.distillation.selection import SelectionSignals, StudentSignals
    from recdistill.errors import InputError
    from recdistill.registry import GATES, LOSS_TERMS, METRICS, POLICIES, SOURCES, SPLITS, STUDENTS, TEACHERS, VIEWS
    from recdistill.students.recommender import ClosedForm, Recommender
    from recdistill.students.student import Student
    from recdistill.teachers.outputs import TeacherOutputs

# Read when torch loads: threads that spin while they wait make each other many times slower where cores are shared;
# a few microseconds of it spare the small students most of the waking up.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Read at the first product: oneDNN keeps so many compiled products, each of one shape. The prompts of an LLM have more
# shapes than its own 1,024, and would have them compiled again in every step.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
keep_freed_memory()

_REGISTRIES = ("GATES", "LOSS_TERMS", "METRICS", "POLICIES", "SOURCES", "SPLITS", "STUDENTS", "TEACHERS", "VIEWS")
_FUNCTIONS = ("compare", "compare_runs", "distill", "load_data", "load_frame", "load_run", "load_student", "newest_run")
_TRAINING = ("train_student", "train_teacher")
_TRAINED = ("FittedStudent", "TrainedStudent", "TrainedTeacher")
#: Module of each public name.
_PLACES = dict.fromkeys(_REGISTRIES, "registry") | dict.fromkeys((*_FUNCTIONS, *_TRAINING, *_TRAINED), "api")
_PLACES |= {
    "ClosedForm": "students.recommender",
    "InputError": "errors",
    "Interactions": "data.interactions",
    "Recommender": "students.recommender",
    "SelectionSignals": "distillation.selection",
    "SequenceData": "data.sequences",
    "Student": "students.student",
    "StudentSignals": "distillation.selection",
    "TeacherOutputs": "teachers.outputs",
    "option": "config.option",
}

__all__ = [
    "GATES",
    "LOSS_TERMS",
    "METRICS",
    "POLICIES",
    "SOURCES",
    "SPLITS",
    "STUDENTS",
    "TEACHERS",
    "VIEWS",
    "ClosedForm",
    "FittedStudent",
    "InputError",
    "Interactions",
    "Recommender",
    "SelectionSignals",
    "SequenceData",
    "Student",
    "StudentSignals",
    "TeacherOutputs",
    "TrainedStudent",
    "TrainedTeacher",
    "compare",
    "compare_runs",
    "distill",
    "load_data",
    "load_frame",
    "load_run",
    "load_student",
    "newest_run",
    "option",
    "train_student",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'recdistill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"recdistill.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
