"""``teacher``: iLoRA (NeurIPS 2024) trained over an LLM, and what it leaves for students."""

import math
import time
from collections.abc import Iterator
from itertools import count, islice

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.config import BackboneConfig, DataConfig, TeacherConfig, narrow, own_fields
from recdistill.data.batches import Batch, batches
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.steps.backbone import backbone, key_of_backbone
from recdistill.steps.inputs import data_of, device_of, frozen_student
from recdistill.steps.llm import load_llm
from recdistill.steps.student import log_results
from recdistill.steps.teacher_scoring import Scorer, make_outputs, ranks_of_samples
from recdistill.students.student import Student
from recdistill.teacher.ranking_teacher import BackboneTables, RankingTeacher, TeacherShape, build_ranking_teacher
from recdistill.teacher_outputs import write_teacher_outputs
from recdistill.tracking.runs import StepRun, find_finished, find_kind, finished_run, key_of, kind_of, step_run
from recdistill.training.fit import Progress, Recipe, fit

EFFORT = ("token_budget", "outputs_token_budget")
SETTINGS = [name for name in own_fields(TeacherConfig, DataConfig) if not name.endswith("_run_id")] + ["exclude_seen"]
CODE = ["data", "students", "teacher", "distill", "evaluation", "training", "teacher_outputs.py"]
CODE += ["steps/teacher.py", "steps/teacher_scoring.py", "steps/llm.py", "steps/selection.py"]
CURVE_POINTS = 20
LEAST_RATE = 0.01


def teacher(config: TeacherConfig) -> StepRun:
    """Train, or find, the teacher of the options, and have it score training samples and the catalogue."""
    data = data_of(config)
    frozen = find_backbone(config, data)
    with step_run(
        "teacher", config, data=data, settings=SETTINGS, code=CODE, upstream={"backbone": frozen}, effort=EFFORT
    ) as run:
        if run.reused:
            return run
        device = device_of(config)
        student = frozen_student(frozen, device)
        if not student.causal:
            raise InputError(
                f"backbone_run_id={frozen.run_id}: is a {type(student).__name__.lower()}, whose states look at the "
                "whole window; choose a sasrec or gru4rec run"
            )
        llm = load_llm(config.llm, device)
        torch.manual_seed(config.seed)
        model = build_ranking_teacher(llm, shape_of(config), data.titles, tables_of(student)).to(device)
        scorer = scorer_of(config, model, student, data)
        progress = train(config, data, scorer, run)
        started = time.perf_counter()
        outputs = make_outputs(scorer, config, llm.name, run.work / "outputs")
        run.log_metrics({"outputs_seconds": time.perf_counter() - started, "covered_share": outputs.covered_share})
        validation, test, seconds = ranks_of_samples(scorer)
        log_results(run, data, validation, test, progress.epoch)
        evaluated = len(validation) + len(test)
        run.log_metrics(
            {"train_seconds": progress.seconds, "ms_per_1000_recommendations": 1e6 * seconds / evaluated},
            progress.epoch,
        )
        run.log_folder("teacher", model.save)
        run.log_folder("teacher_outputs", lambda folder: write_teacher_outputs(folder, outputs))
        run.describe(described(config, data, outputs.covered_share, run, frozen))
    return run


def train(config: TeacherConfig, data: SequenceData, scorer: Scorer, run: StepRun) -> Progress:
    """Fit within the token budget by next-item cross-entropy over the whole catalogue."""
    model = scorer.teacher
    steps = math.ceil(config.token_budget / config.tokens_per_batch)
    points = min(CURVE_POINTS, steps)
    steps_a_point = math.ceil(steps / points) if points else 1

    def step(batch: Batch) -> dict[str, Tensor]:
        logits, _ = scorer.score(batch)
        return {"total": F.cross_entropy(logits, batch.target.to(logits.device))}

    def of_point(point: int) -> Iterator[Batch]:
        return islice(training_batches(config, data, scorer), point * steps_a_point, (point + 1) * steps_a_point)

    gate = [parameter for parameter in model.gate.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in gate}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": others, "lr": config.llm_learning_rate},
        {"params": gate, "lr": config.llm_learning_rate * config.gate_scale},
    ]
    recipe = Recipe(
        parameters=model.trained(),
        optimizer=torch.optim.Adam(groups, weight_decay=config.llm_weight_decay),
        batches=of_point,
        step=step,
        num_batches=steps_a_point,
        module=model,
        epochs=math.ceil(steps / steps_a_point),
        learning_rate=lambda done, total: rate_share(done, total, config.warmup),
        clip=config.gradient_clip,
        label="teacher, part",
    )
    return fit(recipe, run.work / "teacher.safetensors", run.log_metrics)


def training_batches(config: TeacherConfig, data: SequenceData, scorer: Scorer) -> Iterator[Batch]:
    """Batches of about ``tokens_per_batch`` tokens, pass after pass."""
    samples = max(1, round(config.tokens_per_batch / scorer.tokens_a_sample(config.packing)))
    for epoch in count():
        yield from batches(
            data.train,
            length=scorer.window,
            batch_size=max(samples, scorer.stride) if config.packing else samples,
            stride=scorer.stride if config.packing else 1,
            padding_id=data.padding_id,
            seed=config.seed,
            epoch=epoch,
        )


def rate_share(done: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: up in a line, then down in half a cosine, both from and to 1 % (iLoRA)."""
    rising = warmup * total
    if done < rising:
        return LEAST_RATE + (1 - LEAST_RATE) * done / rising
    fallen = (done - rising) / max(1.0, total - rising)
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


def shape_of(config: TeacherConfig) -> TeacherShape:
    """The ranking teacher of the options."""
    return TeacherShape(
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        experts=config.experts,
        gate=config.gate,
        residual=config.backbone_residual,
        packing=config.packing,
        context=config.teacher_history,
    )


def scorer_of(config: TeacherConfig, model: RankingTeacher, student: Student, data: SequenceData) -> Scorer:
    """The teacher beside its backbone, on this data."""
    return Scorer(model, student, data, config.teacher_history, config.teacher_window, config.exclude_seen)


def tables_of(student: Student) -> BackboneTables:
    """What the teacher takes from the frozen SASRec, beside its states."""
    return BackboneTables(student.item_table().detach(), *student.output_layer())


def described(config: TeacherConfig, data: SequenceData, covered: float, run: StepRun, frozen: StepRun) -> str:
    """The run's description: what was trained on what, and its result beside its backbone's."""
    own, before = (of.metrics()["test/ndcg_at_10"] for of in (run, frozen))
    return (
        f"iLoRA ({config.experts} experts, rank {config.lora_rank}, {config.gate} gate) over {config.llm} on "
        f"{data.name} ({data.split}), {config.token_budget:,} training tokens. Test NDCG@10 {own:.4f}, its frozen "
        f"SASRec {before:.4f}. Rankings kept for {covered:.0%} of {len(data.train):,} training samples."
    )


def default_backbone(config: DataConfig) -> BackboneConfig:
    """The frozen SASRec's options: the defaults, on this data and seed. Options of a student do not change it."""
    shared = {name: getattr(config, name) for name in own_fields(DataConfig)}
    return BackboneConfig(**(shared | {"force": False}))


def find_backbone(config: TeacherConfig, data: SequenceData) -> StepRun:
    """The frozen SASRec: the run named, else one of the same seed, found or made."""
    if config.backbone_run_id:
        return finished_run(config.backbone_run_id, "backbone", data.fingerprint)
    return backbone(default_backbone(config))


def find_teacher(config: TeacherConfig, run_id: str, data: SequenceData) -> StepRun:
    """The teacher to learn from.

    The run named; else one of exactly these options; else, where no budget is asked for, the newest that differs in
    seed, budgets and backbone alone; else a new one.
    """
    if run_id:
        return finished_run(run_id, "teacher", data.fingerprint)
    wanted = narrow(config, TeacherConfig, force=False)
    if not config.backbone_run_id:
        frozen = find_finished(key_of_backbone(default_backbone(config), data.fingerprint))
        if frozen is not None:
            upstream = {"backbone": StepRun(frozen.info.run_id, frozen.data.tags["recdistill.key"], "", reused=True)}
            exact = find_finished(key_of("teacher", wanted, data.fingerprint, SETTINGS, CODE, upstream))
            if exact is not None:
                return finished_run(exact.info.run_id, "teacher", data.fingerprint)
        unasked = TeacherConfig()
        if all(getattr(wanted, name) == getattr(unasked, name) for name in EFFORT):
            near = find_kind(kind_of("teacher", wanted, data.fingerprint, SETTINGS, CODE, EFFORT))
            if near is not None:
                print(f"teacher: run {near.run_id}, the newest that fits", flush=True)
                return near
    return teacher(wanted)
