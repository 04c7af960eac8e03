"""Measured paces of students and teachers, kept in the cache: what was timed once is not timed again."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch

from recdistill.config import BaselineConfig, DistillConfig, StudentConfig, TeacherConfig, narrow
from recdistill.config.base import Config
from recdistill.config.lineage import chosen, digest
from recdistill.data.downloads import cache_dir
from recdistill.data.sequences import SequenceData
from recdistill.steps.backbone import frozen_backbone
from recdistill.students.pace import StudentPace, student_pace
from recdistill.teachers.pace import TeacherPace, teacher_pace
from recdistill.whole_files import write_text

Pace = TypeVar("Pace", StudentPace, TeacherPace)
#: Raise it when what a pace says, or how it is measured, changes.
VERSION = 3
#: Of budgets that were reckoned by a pace once: they stay, so that the runs made with them are found.
OF_BUDGETS = 2
#: Options that change how long it takes and not what comes of it, or that a time must pay for.
TIMED = ("gradient_checkpointing", "contrast_token_budget", "ranked_users")


def pace_of_student(config: StudentConfig, data: SequenceData, *, distilled: bool) -> StudentPace | None:
    """That of the options' student, found or measured; None of one in closed form."""
    kind = DistillConfig if distilled else BaselineConfig
    options = narrow(config, kind)
    return kept(
        "distilled" if distilled else "student",
        options,
        data,
        StudentPace,
        lambda: student_pace(options, data, distilled=distilled),
    )


def pace_of_teacher(config: TeacherConfig, data: SequenceData) -> TeacherPace | None:
    """That of the options' teacher, found or measured; None of one behind a server."""
    options = narrow(config, TeacherConfig)
    return kept("teacher", options, data, TeacherPace, lambda: teacher_pace(options, frozen_backbone(options), data))


def kept(
    name: str, config: Config, data: SequenceData, kind: type[Pace], measure: Callable[[], Pace | None]
) -> Pace | None:
    """The pace in the cache, else the measured one, which is then kept."""
    path = pace_file(name, config, data)
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none yet, or another's
        print(f"timing some steps here, once: {name}", flush=True)
        found = measure()
    if found is not None:
        write_text(path, json.dumps(asdict(found)))
    return found


def pace_file(name: str, config: Config, data: SequenceData, version: int = VERSION) -> Path:
    """Where a pace is kept: by what it depends on, options, data and machine."""
    machine = [platform.node(), os.cpu_count(), torch.get_num_threads(), torch.cuda.device_count()]
    parts = {
        "version": version,
        "options": chosen(config, ("data", "result")),
        "device": config.value("device"),
        "fingerprint": data.fingerprint,
        "machine": machine,
    }
    given = {name: config.values().get(name) for name in TIMED}
    parts |= {"timed": {name: value for name, value in given.items() if value}} if any(given.values()) else {}
    return cache_dir() / "paces" / f"{name}-{digest(parts)}.json"
