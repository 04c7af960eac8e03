"""The study of a sweep: all that its trials depend on, its name, and how it is found or made."""

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from optuna.study import Study

from recdistill.config import DistillConfig, SweepConfig, TeacherConfig, narrow, option_table
from recdistill.config.contents import content_digest, existing
from recdistill.config.lineage import digest, key_parts
from recdistill.config.own_files import part_digest
from recdistill.config.steps import REVISIONS
from recdistill.errors import InputError
from recdistill.registry import METRICS
from recdistill.sweep.space import Space, example_configs
from recdistill.sweep.study import StudyPlace, open_study
from recdistill.sweep.trainings import IDENTITY, stale_trial_ended

#: Attribute of a study: all that its trials depend on.
DESCRIPTION = "description"
NAME_LENGTH = 8
POLL_SECONDS = 0.1


def description(base: DistillConfig, space: Space, fingerprint: str, contents: Mapping[str, str] | None = None) -> str:
    """All that the values of a study's trials depend on, as JSON.

    It is made of what the keys of the trials' own runs are made of, and of what the space may change. ``contents`` are
    what they read beside options and data.
    """
    described = {
        "space": space.described(),
        "distill": key_parts("distill", base, fingerprint),
        "teacher": key_parts("teacher", narrow(base, TeacherConfig), fingerprint),
        "revisions": {name: REVISIONS[name] for name in ("sweep", "backbone")},
        "files": searched_files(base, space),
    }
    return json.dumps(described | ({"contents": dict(contents)} if contents else {}), sort_keys=True)


def searched_files(base: DistillConfig, space: Space) -> dict[str, str]:
    """Digests of the files that a trial may use by a searched value: paths, and users' modules of searched parts."""
    table = option_table(type(base))
    found = {}
    for parameter in space.parameters:
        for value in parameter.choices if table[parameter.name].metadata["content"] else ():
            path = existing(table[parameter.name], value)
            if path is not None:
                found[f"{parameter.name} {value}"] = content_digest(parameter.name, path)
    parts = {part for config in example_configs(space, base) for part in config.parts_in_use()}
    # What trials are ranked by, by another formula, is another study.
    ranked_by = {measured(one.metric) for one in space.objectives}
    parts |= {(METRICS, name) for name in METRICS.names() if name in ranked_by}
    for registry, name in parts:
        declared = registry.declaration(name)
        if not declared.is_ours:
            found[f"{registry.kind} {name}"] = part_digest(declared)
    return found


def measured(objective: str) -> str:
    """The metric of an objective: ``ndcg`` of ``val/ndcg_at_10``."""
    return objective.rpartition("/")[2].partition("_at_")[0]


def find_or_make_study(
    config: SweepConfig, space: Space, base: DistillConfig, url: str, described: str
) -> tuple[Study, StudyPlace]:
    """The study of this name, or of the name made from its description; a new one with ``force``.

    Raises InputError where the storage cannot be used, or the study is of another description.
    """
    made_name = f"{Path(config.space).stem}-{digest({'study': described})[:NAME_LENGTH]}"
    count = 1
    while True:
        name = (config.study or made_name) + (f"-{count}" if count > 1 else "")
        place = StudyPlace(url, name, config.heartbeat_seconds, config.grace_seconds)
        opened = open_study(place, space, base.seed, most_epochs(space, base), on_stale=stale_trial_ended, create=True)
        if opened.created:
            prepare_study(opened.study, space, base, described)
            return opened.study, place
        if not config.force:
            await_study(opened.study, space, base, described, config.grace_seconds)
            return opened.study, place
        if config.study:
            raise InputError(f"study={name}: is there already; force=true needs a new name")
        count += 1


def prepare_study(study: Study, space: Space, base: DistillConfig, described: str) -> None:
    """Describe a new study and queue the default configuration; also where a killed process began to.

    The identity is written last: a study that has one is complete.
    """
    study.set_user_attr(DESCRIPTION, described)
    first = space.defaults(base)
    if first is None:
        print(f"{space.path} does not hold the default configuration: it is no trial", flush=True)
    elif not study.get_trials(deepcopy=False):
        study.enqueue_trial(first)
    study.set_user_attr(IDENTITY, new_identity())


def new_identity() -> str:
    """A unique text, which the runs of a study carry: another study may have its name, in another storage."""
    return uuid.uuid4().hex


def await_study(study: Study, space: Space, base: DistillConfig, described: str, grace_seconds: float) -> None:
    """Wait until another process has prepared the study; prepare it where that process does not within its grace.

    Raises InputError where the study is of another description.
    """
    deadline = time.monotonic() + grace_seconds
    while IDENTITY not in study.user_attrs:
        if time.monotonic() > deadline:
            check_same(study, described)
            prepare_study(study, space, base, described)
        time.sleep(POLL_SECONDS)
    check_same(study, described)


def check_same(study: Study, described: str) -> None:
    """Raise InputError where the study searches something else."""
    if study.user_attrs.get(DESCRIPTION, described) != described:
        raise InputError(
            f"study={study.study_name}: was made for another space, data or options; give another name, or none"
        )


def most_epochs(space: Space, base: DistillConfig) -> int:
    """Epochs that a trial may have."""
    found = [value for p in space.parameters if p.name == "epochs" for value in p.examples()]
    return int(max(found, default=base.epochs))
