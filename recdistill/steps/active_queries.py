"""``rounds``: a teacher that is asked again, each time about samples that the student it has taught so far doubts.

With ``query_share`` below 1 nobody is asked: the teacher's answers are dealt out as such rounds would have bought them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch

from recdistill.config import DistillConfig, TeacherConfig, changed, narrow
from recdistill.config.base import config_of
from recdistill.data.sequences import SequenceData
from recdistill.distillation.selection import query
from recdistill.errors import InputError
from recdistill.registry import POLICIES
from recdistill.runs.finished_runs import linked_run
from recdistill.runs.run import CONFIG_FILE, StepRun
from recdistill.runs.step_runs import runs_of_their_own, step_run
from recdistill.steps.inputs import frozen_student, kept_teacher, teacher_outputs_of
from recdistill.steps.student_start import measured
from recdistill.students.signals import signals_before_answers
from recdistill.teachers.outputs import TeacherOutputs, write_teacher_outputs
from recdistill.teachers.protocol import AsksQueries
from recdistill.teachers.scoring import Asking, make_outputs
from recdistill.training.device import device_of

#: Options by which a teacher is asked again; all others are those that it was made with.
ASKED_WITH = (
    "query_policy", "outputs_token_budget", "query_budget", "cost_budget", "price_prompt", "price_answer", "device",
    "plugin",
)  # fmt: skip


def asked_in_rounds(
    config: DistillConfig, data: SequenceData, first: StepRun, distil: Callable[[DistillConfig], StepRun]
) -> StepRun:
    """The run with the answers of all rounds, found or made.

    Args:
        config: options with ``rounds``, ``query_policy`` and the budget of a round.
        data: of the teacher.
        first: the teacher's own run, whose answers are those of the first round.
        distil: trains, or finds, the student of options without ``rounds``.

    Raises InputError where the teacher has answered for all samples before the last round.
    """
    answered = first
    for number in range(2, config.rounds + 1):
        with runs_of_their_own():
            student = distil(changed(student_of_round(config), rounds=1, teacher_run_id=answered.run_id))
            answered = asked_again(config, data, first, answered, student, number)
    return answered


def asked_again(
    config: DistillConfig, data: SequenceData, first: StepRun, before: StepRun, student: StepRun, number: int
) -> StepRun:
    """The run of a further round: the answers before it, and those to what its student asks.

    Args:
        config, data, first: as of `asked_in_rounds`.
        before: the run with the answers so far.
        student: distilled from these.
        number: of the round, from 2.
    """
    known, options = teacher_outputs_of(before, data), options_of_round(config, first)
    # The teacher is asked by its own rule, of which samples teach.
    if left_to_ask(known, data, options.exclude_seen) < 1:
        raise InputError(
            f"rounds={config.rounds}: after {number - 1} of them the teacher has answered for all "
            f"{len(known.sample):,} training samples; give fewer rounds, or a smaller budget for each"
        )
    frozen = linked_run(first, "backbone")
    upstream = {"backbone": frozen, "teacher": before, "student": student}
    opened = step_run("teacher", options, data=data, upstream=upstream, kept="results", contents={"round": number})
    with opened as run:
        if run.reused:
            return run
        device = device_of(options)
        made = kept_teacher(first, options, frozen_student(frozen, device), data)
        asking = Asking(frozen_student(student, device), known)
        started = time.perf_counter()
        found = make_outputs(made, options, run.work / "outputs", asking)
        assert found is not None
        whole = known.with_more(found)
        seconds = time.perf_counter() - started
        run.log_metrics({"outputs_seconds": seconds, "covered_share": whole.covered_share})
        run.log_metrics({"asked_samples": len(found.sample)})
        if isinstance(made, AsksQueries):
            run.log_metrics(made.metrics())
        run.tag_terms(whole.manifest.terms)
        run.log_folder("teacher_outputs", lambda folder: write_teacher_outputs(folder, whole))
        run.describe(
            f"Round {number} of {config.rounds}: the teacher {first.run_id} was asked about {len(found.sample):,} more "
            f"training samples, which {config.query_policy} chose by the student {student.run_id}. Rankings kept for "
            f"{whole.covered_share:.0%} of {len(data.train):,}."
        )
    return run


def student_of_round(config: DistillConfig) -> DistillConfig:
    """The options of the student whose doubts are asked about: measured, and kept for no other use."""
    own = measured(config) if config.refit else config
    return changed(own, register="", estimate=False, force=config.force)


def left_to_ask(known: TeacherOutputs, data: SequenceData, exclude_seen: bool) -> int:
    """How many training samples that teach have no answer."""
    trainable = data.trainable(exclude_seen)
    count = len(data.train) if trainable is None else len(trainable)
    answered = known.sample.numpy()
    return count - (len(answered) if trainable is None else int(np.isin(trainable, answered).sum()))


def share_of_answers(
    config: DistillConfig,
    data: SequenceData,
    teacher: StepRun,
    outputs: TeacherOutputs,
    distil: Callable[[DistillConfig], StepRun],
) -> TeacherOutputs:
    """The answers to the share ``query_share`` of the samples that ``outputs`` cover, by ``query_policy``.

    The first round looks at the backbone, each further one at the student distilled from the answers before it.

    Args:
        config: the options, with ``rounds``.
        data: of the teacher.
        teacher: its run.
        outputs: all of its answers.
        distil: as of `asked_in_rounds`.
    """
    rounds, device = config.rounds, device_of(config)
    known = torch.zeros(0, dtype=torch.int64)
    if rounds == 1:
        asking = frozen_student(linked_run(teacher, "backbone"), device)
    else:
        share = config.query_share * (rounds - 1) / rounds
        earlier = changed(student_of_round(config), rounds=rounds - 1, query_share=share)
        with runs_of_their_own():
            student = distil(changed(earlier, teacher_run_id=teacher.run_id))
        known = share_of_answers(earlier, data, teacher, outputs, distil).sample
        asking = frozen_student(student, device)
    count = max(1, round(config.query_share * len(outputs.sample))) - len(known)
    eligible = torch.zeros(len(data.train), dtype=torch.bool)
    eligible[outputs.sample] = True
    eligible[known] = False
    signals = signals_before_answers(asking, data, eligible, config.seed, config.exclude_seen)
    policy = config.query_policy
    asked = query(policy, signals, max(0, count), config.of_part(POLICIES, policy))
    return outputs.only(torch.cat([known, asked]))


def options_of_round(config: DistillConfig, first: StepRun) -> TeacherConfig:
    """The options that the teacher was made with, asked by the policy and within the budget at hand."""
    kept = config_of(TeacherConfig, json.loads(first.artifact(CONFIG_FILE).read_text(encoding="utf-8")))
    asked, of_policy = narrow(config, TeacherConfig).values(), POLICIES.options(config.query_policy)
    names = (*ASKED_WITH, *(() if of_policy is None else (one.name for one in fields(of_policy))))
    return changed(kept, force=config.force, **{name: asked[name] for name in names if name in asked})
