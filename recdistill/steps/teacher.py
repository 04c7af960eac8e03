"""``teacher``: iLoRA (NeurIPS 2024) trained over an LLM, and what it leaves for students."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.config import StudentConfig, DataConfig, TeacherConfig, narrow, own_fields
from recdistill.data.batches import Batch, batches
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.steps.backbone import backbone, key_of_backbone
from recdistill.data.contents import contents_of
from recdistill.steps.gate_report import log_gate
from recdistill.steps.generative_scoring import GenerativeScorer
from recdistill.steps.inputs import data_of, device_of, frozen_student
from recdistill.teachers.ilora.llm_source import load_llm
from recdistill.teachers.ranking.prompt_length import check_prompts
from recdistill.steps.results import log_results
from recdistill.steps.selection import policy_contents
from recdistill.steps.teacher_generative import answers_judged, generative_at_work, log_answers
from recdistill.steps.teacher_scoring import Scorer, make_outputs
from recdistill.steps.teaching import Lesson, Scoring, curve_of
from recdistill.students.student import Student
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.gate import gate_metrics
from recdistill.teachers.ranking.model import BackboneTables, RankingModel, TeacherShape, build_ranking_model
from recdistill.teachers.outputs import write_teacher_outputs
from recdistill.runs.step_runs import StepRun, find_finished, find_kind, finished_run, key_of, kind_of, step_run
from recdistill.training.distributed import ALONE, Processes, join
from recdistill.training.fit import Progress, TrainingPlan, fit

EFFORT = ("token_budget", "outputs_token_budget")
SETTINGS = [name for name in own_fields(TeacherConfig, DataConfig) if not name.endswith(("_run_id", "_file"))]
SETTINGS += ["exclude_seen", "mask_seen"]
CODE = ["data", "students", "teacher", "distill", "evaluation", "training", "teacher_outputs.py"]
CODE += ["steps/teacher.py", "steps/teacher_scoring.py", "steps/results.py", "steps/llm.py", "steps/selection.py"]
CODE += ["steps/teaching.py", "steps/teacher_generative.py", "steps/generative_scoring.py"]
LEAST_RATE = 0.01


def teacher(config: TeacherConfig) -> StepRun:
    """Train, or find, the teacher of the options, and have it score training samples and the catalogue.

    Started by ``accelerate launch`` or torchrun, several processes train and score together; the main one has the run.
    """
    processes = join(device_of(config))
    data = processes.main_first(lambda: data_of(config))
    frozen = processes.from_main(lambda: find_backbone(config, data))
    opened = step_run(
        "teacher",
        config,
        data=data,
        settings=SETTINGS,
        code=CODE,
        upstream={"backbone": frozen},
        effort=EFFORT,
        content=processes.from_main(lambda: teacher_contents(config)),
    )
    with processes.main_enters(opened) as run:
        if run.reused:
            return run
        student = processes.main_first(lambda: frozen_student(frozen, processes.device))
        if not student.causal:
            raise InputError(
                f"backbone_run_id={frozen.run_id}: is a {type(student).__name__.lower()}, whose states look at the "
                "whole window; choose a sasrec or gru4rec run"
            )
        writes, whole = config.teacher == "generative", not processes.sharded
        if config.load_in_4bit and not whole:
            raise InputError("load_in_4bit=true: its weights cannot be divided over processes; leave --use_fsdp out")
        llm = processes.main_first(
            lambda: load_llm(
                config.llm, processes.device, move=whole, causal_lm=writes, load_in_4bit=config.load_in_4bit
            )
        )
        processes.shard(llm.model)
        torch.manual_seed(config.seed)
        make: Callable[..., tuple[Scoring, Lesson[Any]]] = generative_at_work if writes else ranking_at_work
        scorer, lesson = make(config, llm, student, data, processes)
        progress = train(config, scorer, lesson, run)
        started = time.perf_counter()
        outputs = make_outputs(scorer, config, llm.name, run.work / "outputs")
        outputs_seconds = time.perf_counter() - started
        validation, test, seconds = scorer.ranks()
        answered = answers_judged(scorer) if isinstance(scorer, GenerativeScorer) else None
        if outputs is None:
            return run
        run.log_metrics({"outputs_seconds": outputs_seconds, "covered_share": outputs.covered_share})
        log_results(run, data, validation, test, progress.epoch)
        evaluated = len(data.validation) + len(data.test)
        run.log_metrics({"train_seconds": progress.seconds, "ms_per_1000_recommendations": 1e6 * seconds / evaluated})
        if answered is not None:
            log_answers(run, answered)
        log_gate(run, scorer)
        run.log_folder("teacher", scorer.teacher.save)
        run.log_folder("teacher_outputs", lambda folder: write_teacher_outputs(folder, outputs))
        run.describe(described(config, data, outputs.covered_share, run, frozen))
    return run


def ranking_at_work(
    config: TeacherConfig, llm: BaseLLM, student: Student, data: SequenceData, processes: Processes
) -> tuple[Scorer, Lesson[Batch]]:
    """A fresh ranking teacher beside its backbone, and what it learns from. Raises InputError."""
    model = build_ranking_model(llm, shape_of(config), data.titles, tables_of(student)).to(processes.device)
    model.in_one_pass = processes.sharded
    scorer = scorer_of(config, model, student, data, processes)
    check_prompts(config, scorer, llm.most_tokens)
    return scorer, ranking_lesson(config, scorer)


def ranking_lesson(config: TeacherConfig, scorer: Scorer) -> Lesson[Batch]:
    """Next-item cross-entropy over the catalogue, less the history where that is left out of rankings."""
    model = scorer.teacher

    def step(batch: Batch) -> dict[str, Tensor]:
        logits, _ = scorer.score(batch)
        if config.mask_seen:
            logits = scorer.exclude(logits, scorer.data.train, batch.sample, batch.target)
        total = F.cross_entropy(logits, batch.target.to(logits.device))
        return {"total": total} | gate_metrics(model.sample_gates)

    def size(batch: Batch) -> dict[str, int]:
        return {"samples": len(batch), "tokens": scorer.num_tokens(scorer.data.train, batch)}

    return Lesson(lambda: training_batches(config, scorer.data, scorer), step, size, Batch.part)


def train(config: TeacherConfig, scorer: Scoring, lesson: Lesson[Any], run: StepRun) -> Progress:
    """Fit within the token budget, the gate at a rate of its own."""
    model = scorer.teacher
    points, batches_a_point = curve_of(config)

    def of_point(point: int) -> Iterator[Any]:
        return islice(lesson.batches(), point * batches_a_point, (point + 1) * batches_a_point)

    gate = [parameter for parameter in model.gate.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in gate}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": others, "lr": config.llm_learning_rate},
        {"params": gate, "lr": config.llm_learning_rate * config.gate_scale},
    ]
    plan = TrainingPlan(
        parameters=model.trained(),
        optimizer=torch.optim.Adam(groups, weight_decay=config.llm_weight_decay),
        batches=of_point,
        step=lesson.step,
        num_batches=batches_a_point,
        module=model,
        epochs=points,
        learning_rate=lambda done, total: rate_share(done, total, config.warmup),
        clip=config.gradient_clip,
        accumulation=config.accumulation,
        processes=scorer.processes,
        divide=lesson.divide,
        size=lesson.size,
        label="teacher, part",
    )
    return fit(plan, run.work / "teacher.safetensors", run.log_metrics)


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
        plain_titles=config.plain_titles,
        gate_per_layer=config.gate_per_layer,
    )


def scorer_of(
    config: TeacherConfig, model: RankingModel, student: Student, data: SequenceData, processes: Processes = ALONE
) -> Scorer:
    """The teacher beside its backbone, on this data, its work shared by these processes."""
    return Scorer(model, student, data, config.teacher_history, config.teacher_window, config.exclude_seen, processes)


def tables_of(student: Student) -> BackboneTables:
    """What the teacher takes from the frozen SASRec, beside its states."""
    return BackboneTables(student.item_table().detach(), *student.output_layer())


def described(config: TeacherConfig, data: SequenceData, covered: float, run: StepRun, frozen: StepRun) -> str:
    """The run's description: what was trained on what, and its result beside its backbone's."""
    metrics, before = run.metrics(), frozen.metrics()["test/ndcg_at_10"]
    own = metrics["test/ndcg_at_10"]
    text = (
        f"iLoRA ({config.experts} experts, rank {config.lora_rank}, {config.gate} gate) over {config.llm} on "
        f"{data.name} ({data.split}), {config.token_budget:,} training tokens. Test NDCG@10 {own:.4f}, its frozen "
        f"SASRec {before:.4f}. Rankings kept for {covered:.0%} of {len(data.train):,} training samples."
    )
    if config.teacher == "generative":
        valid, right = metrics["test/valid_ratio"], metrics["test/hit_ratio_at_1"]
        text += f" Answering {config.answer}, {valid:.0%} of its test answers are valid, {right:.0%} of these right."
    return text


def teacher_contents(config: TeacherConfig) -> dict[str, str]:
    """Digests of the files that the teacher's result depends on."""
    return contents_of(config, "llm") | policy_contents(config, config.query_policy)


def default_backbone(config: DataConfig) -> StudentConfig:
    """The frozen SASRec's options: the defaults, on this data and seed. Options of a student do not change it."""
    shared = {name: getattr(config, name) for name in own_fields(DataConfig)}
    return StudentConfig(**(shared | {"force": False}))


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
    content = teacher_contents(wanted)
    if not config.backbone_run_id:
        frozen = find_finished(key_of_backbone(default_backbone(config), data.fingerprint))
        if frozen is not None:
            upstream = {"backbone": StepRun(frozen.info.run_id, frozen.data.tags["recdistill.key"], "", reused=True)}
            exact = find_finished(key_of("teacher", wanted, data.fingerprint, SETTINGS, CODE, upstream, content))
            if exact is not None:
                return finished_run(exact.info.run_id, "teacher", data.fingerprint)
        unasked = TeacherConfig()
        if all(getattr(wanted, name) == getattr(unasked, name) for name in EFFORT):
            near = find_kind(kind_of("teacher", wanted, data.fingerprint, SETTINGS, CODE, EFFORT, content))
            if near is not None:
                print(f"teacher: run {near.run_id}, the newest that fits", flush=True)
                return near
    return teacher(wanted)
