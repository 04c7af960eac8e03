"""``teacher``: iLoRA (NeurIPS 2024) trained over an LLM, and the outputs that students learn from."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recdistill.config import DistillConfig, TeacherConfig, changed, narrow
from recdistill.config.base import option_table
from recdistill.config.lineage import near_key, run_key
from recdistill.config.teacher import reads_llm
from recdistill.data.sequences import SequenceData
from recdistill.data.some_users import of_some_users
from recdistill.errors import InputError
from recdistill.evaluation.rank_metrics import metrics_from_ranks
from recdistill.evaluation.rank_table import common_samples, sample_table
from recdistill.evaluation.some_users import apart, over_all
from recdistill.registry import LOSS_TERMS
from recdistill.report.gate_figure import gate_figure
from recdistill.runs.datasets import measured_on
from recdistill.runs.finished_runs import find_finished, find_near, finished_run
from recdistill.runs.logged_models import log_teacher, new_mark
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.backbone import backbone, finished_baseline, frozen_backbone
from recdistill.steps.inputs import data_of, frozen_student, imported_teacher, texts_in_key
from recdistill.steps.results import log_results
from recdistill.steps.time_budget import within_time
from recdistill.students.student import Student
from recdistill.teachers.checks import check_teacher
from recdistill.teachers.gate_tables import gate_tables
from recdistill.teachers.outputs import write_teacher_outputs
from recdistill.teachers.protocol import AsksQueries, JudgedAnswers, Teacher, text_tokens_of
from recdistill.teachers.scoring import TEXTS_FOLDER, make_outputs
from recdistill.teachers.shards import seconds_on_disk
from recdistill.teachers.training import train_teacher
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes, join

#: The option of teachers that read the items' texts.
TEXT = "teacher_text"
#: The metric of what reading them costs.
TEXT_TOKENS = "teacher/text_tokens"


def teacher(config: TeacherConfig) -> StepRun:
    """Train, or find, the teacher of the options, and have it score training samples and the catalogue.

    Started by ``accelerate launch`` or torchrun, several processes train and score together; the main one has the run.
    """
    processes = join(device_of(config))
    processes.from_main(lambda: check_teacher(config))
    data = processes.main_first(lambda: data_of(config))
    of_some_users(data, config.ranked_users)
    config = processes.from_main(lambda: within_time(config))
    frozen = processes.from_main(lambda: find_backbone(config, data))
    contents = texts_read(config, data)
    opened = step_run("teacher", config, data=data, upstream={"backbone": frozen}, contents=contents)
    with processes.main_enters(opened) as run:
        if not run.reused:
            student = processes.main_first(lambda: frozen_student(frozen, processes.device))
            taught(config, data, student, run, frozen, processes)
    return run


def taught(
    config: TeacherConfig, data: SequenceData, student: Student, run: StepRun, frozen: StepRun, processes: Processes
) -> None:
    """Train the teacher, have it score, and keep what students and readers need; the main process logs."""
    # The held-out samples that it ranks, and answers in words.
    asked = of_some_users(data, config.ranked_users)
    # Read before the training: a tracking server may be lost by its end.
    of_backbone = processes.from_main(lambda: ndcg_of(frozen, data, asked))
    made, progress = train_teacher(config, asked, student, recorder=run, processes=processes)
    # A killed scoring's seconds count.
    scored = run.work / "outputs"
    before, started = seconds_on_disk(scored) + seconds_on_disk(scored / TEXTS_FOLDER), time.perf_counter()
    outputs = make_outputs(made, config, scored)
    outputs_seconds = before + time.perf_counter() - started
    ranked = made.ranks(run.work / "ranks")
    answered = made.answers()
    if outputs is None:
        return
    mark = new_mark()
    log_teacher(run.run_id, mark)
    measured = {"outputs_seconds": outputs_seconds, "covered_share": outputs.covered_share}
    read = text_tokens_of(made)
    measured |= {} if read is None else {TEXT_TOKENS: float(read)}
    run.log_metrics(measured | {"train_seconds": progress.seconds}, model=mark)
    run.tag_terms(outputs.manifest.terms)
    if isinstance(made, AsksQueries):
        run.log_metrics(made.metrics())
    if ranked is not None:
        validation, test, seconds = ranked
        seen = config.exclude_seen
        log_results(run, data, validation, test, progress.epoch, exclude_seen=seen, model=mark, asked=asked)
        evaluated = len(asked.validation) + len(asked.test)
        run.log_metrics({"ms_per_1000_recommendations": 1e6 * seconds / evaluated}, model=mark)
    if answered is not None:
        if asked is not data:
            answered = replace(answered, metrics=apart(answered.metrics))
        log_answers(run, answered, model=mark, datasets=measured_on(data) if asked is data else None)
    log_gate(run, made, data)
    run.log_folder("teacher", made.save)
    run.log_folder("teacher_outputs", lambda folder: write_teacher_outputs(folder, outputs))
    run.describe(described(config, data, outputs.covered_share, run, of_backbone))


def log_answers(
    run: StepRun, answered: JudgedAnswers, *, model: str = "", datasets: Mapping[str, tuple[str, str]] | None = None
) -> None:
    """Log the metrics of written answers, and keep these as ``answers/val.parquet`` and ``answers/test.parquet``.

    ``model`` and ``datasets`` as of `StepRun.log_metrics`.
    """
    run.log_metrics(answered.metrics, model=model, datasets=datasets)
    run.log_folder("answers", lambda folder: write_tables(folder, answered.tables))


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """A Parquet file for each table."""
    folder.mkdir()
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)


def log_gate(run: StepRun, made: Teacher, data: SequenceData) -> None:
    """Keep `gate_tables` as ``gate/weights.parquet`` and ``gate/weights.csv``, and a picture of the second.

    A teacher without a gate has none.
    """
    tables = gate_tables(made, data)
    if tables is None:
        return
    users, clusters = tables
    picture = gate_figure(clusters, "Mean gate weights by cluster of users")

    def write(folder: Path) -> None:
        folder.mkdir()
        users.to_parquet(folder / "weights.parquet", index=False)
        clusters.to_csv(folder / "weights.csv", index=False)

    def draw(folder: Path) -> None:
        folder.mkdir()
        (folder / "gate_weights.png").write_bytes(picture)

    run.log_folder("gate", write)
    run.log_folder("figures", draw)


def ndcg_of(frozen: StepRun, data: SequenceData, asked: SequenceData) -> float:
    """NDCG@10 of a finished run on the test samples of ``asked``."""
    if asked is data:
        return frozen.metrics()["test/ndcg_at_10"]
    ranks = pd.read_parquet(frozen.artifact("ranks/test.parquet"))
    places, _ = common_samples([ranks, sample_table(asked.test, data)])
    return metrics_from_ranks(torch.from_numpy(ranks["rank"].to_numpy(np.int64)[places]))["ndcg_at_10"]


def described(config: TeacherConfig, data: SequenceData, covered: float, run: StepRun, before: float) -> str:
    """The run's description: what was trained on what, and its result beside its backbone's on the same samples."""
    metrics = run.metrics()
    kept = f"Rankings kept for {covered:.0%} of {len(data.train):,} training samples."
    of_some = over_all(metrics)
    users = f", of {of_some['test/users']:,.0f} users" if of_some else ""
    metrics = of_some or metrics
    if "test/ndcg_at_10" not in metrics:
        return f"{config.value('endpoint_model')} behind a server, on {data.name} ({data.split}). {kept}"
    own = metrics["test/ndcg_at_10"]
    result = f"Test NDCG@10{users} {own:.4f}, its frozen SASRec {before:.4f}. {kept}"
    if not reads_llm(config.teacher):
        return f"teacher={config.teacher} on {data.name} ({data.split}), without an LLM. {result}"
    text = (
        f"iLoRA ({config.experts} experts, rank {config.lora_rank}, {config.gate} gate) over {config.llm} on "
        f"{data.name} ({data.split}), a budget of {config.token_budget:,} training tokens. {result}"
    )
    if "test/valid_ratio" in metrics:
        valid, right = metrics["test/valid_ratio"], metrics["test/hit_ratio_at_1"]
        how = config.value("answer")
        text += f" Answering {how}, {valid:.0%} of its test answers are valid, {right:.0%} of these right."
    return text


def find_backbone(config: TeacherConfig, data: SequenceData) -> StepRun:
    """The frozen SASRec: the run named, else one of the same seed, found or made."""
    if config.backbone_run_id:
        return finished_run(config.backbone_run_id, "backbone", data.fingerprint)
    return backbone(frozen_backbone(config))


def wanted_teacher(config: TeacherConfig) -> TeacherConfig:
    """The options of the teacher to learn from; it keeps its states of samples where a loss term reads them."""
    reads_states = any(
        LOSS_TERMS.declaration(name).about.get("needs_states") for name in config.parts_in_use_of(LOSS_TERMS)
    )
    kept = config.sequence_embeddings or reads_states
    return narrow(config, TeacherConfig, force=False, sequence_embeddings=kept)


def teacher_run(config: DistillConfig) -> StepRun:
    """The teacher that the options name, or one of these options found or made; several processes call it together."""
    if config.teacher_run_id:
        fingerprint = data_of(config).fingerprint
        return join(device_of(config)).from_main(lambda: finished_run(config.teacher_run_id, "teacher", fingerprint))
    return teacher(changed(wanted_teacher(config), force=config.force))


def check_teacher_of(config: DistillConfig, data: SequenceData) -> None:
    """Raise InputError, before any work, where the teacher that students are to learn from cannot be had.

    Its files, or the runs that are named, must be there and of this data, its LLM as `check_teacher` wants it.
    """
    if config.teacher_files and config.teacher_run_id:
        raise InputError("teacher_files, teacher_run_id: give one of them, not both")
    if config.teacher_files:
        imported_teacher(config.teacher_files, data)
    elif config.teacher_run_id:
        finished_run(config.teacher_run_id, "teacher", data.fingerprint)
    else:
        check_teacher(config)
        of_some_users(data, config.ranked_users)
        if config.backbone_run_id:
            finished_run(config.backbone_run_id, "backbone", data.fingerprint)


def texts_read(config: TeacherConfig, data: SequenceData) -> dict[str, str]:
    """What a teacher's key has of the items' texts; nothing of a teacher that reads none."""
    return texts_in_key(config, data) if TEXT in config.values() else {}


def find_teacher(config: TeacherConfig, run_id: str, data: SequenceData) -> StepRun:
    """The teacher to learn from; several processes of a launch make it together.

    The run named; else one of exactly these options; else, where no budget is asked for, the newest that differs in
    seed, budgets and backbone alone; else a new one.
    """
    processes = join(device_of(config))
    known = processes.from_main(lambda: known_teacher(config, run_id, data))
    return teacher(wanted_teacher(config)) if known is None else known


def known_teacher(config: TeacherConfig, run_id: str, data: SequenceData) -> StepRun | None:
    """The finished run of `find_teacher`; None where one must be made."""
    if run_id:
        return finished_run(run_id, "teacher", data.fingerprint)
    wanted = wanted_teacher(config)
    if not config.backbone_run_id:
        found = finished_baseline(changed(frozen_backbone(config), force=False))
        if found:
            frozen = finished_run(found, "backbone")
            key = run_key("teacher", wanted, data.fingerprint, {"backbone": frozen.key}, texts_read(wanted, data))
            exact = find_finished(key, {"backbone": frozen})
            if exact is not None:
                return finished_run(exact.info.run_id, "teacher", data.fingerprint)
        # A teacher with these budgets was asked for by nobody: the newest of any budgets will do.
        table, values = option_table(TeacherConfig), wanted.values()
        budgets = [name for name in values if table[name].role == "budget"]
        if all(values[name] == table[name].default for name in budgets):
            near = find_near(near_key("teacher", wanted, data.fingerprint, texts_read(wanted, data)))
            if near is not None:
                print(f"teacher: run {near.run_id}, the newest that fits", flush=True)
                return near
    return None
