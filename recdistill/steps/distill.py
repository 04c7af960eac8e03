"""``distill``: a student trained with DLLM2Rec (RecSys 2024) from a teacher's outputs."""

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recdistill.config import StudentConfig, DistillConfig, TeacherConfig, narrow, own_fields
from recdistill.data.batches import Batch
from recdistill.data.sequences import SequenceData
from recdistill.distill.losses import output_embedding_distillation
from recdistill.distill.negatives import sampled_negatives
from recdistill.distill.objective import dllm2rec_loss
from recdistill.distill.propensity import propensity
from recdistill.errors import InputError
from recdistill.steps.backbone import key_of_backbone
from recdistill.steps.inputs import data_of, device_of, frozen_student, imported_teacher, teacher_outputs_of
from recdistill.steps.selection import Selection, policy_contents
from recdistill.steps.student import STUDENT_CODE, STUDENT_SETTINGS, Report, masked, shape_of, train_student
from recdistill.steps.teacher import find_teacher
from recdistill.steps.teacher_overlap import overlaps_described, teacher_overlaps
from recdistill.students.build import build_student
from recdistill.students.projection import projection_layer
from recdistill.students.student import Student
from recdistill.teachers.outputs import TeacherOutputs
from recdistill.runs.step_runs import StepRun, find_finished, finished_run, step_run
from recdistill.runs.served_model import register_student

OWN = own_fields(DistillConfig, StudentConfig, TeacherConfig)
SETTINGS = [*STUDENT_SETTINGS, *(name for name in OWN if name not in ("teacher_run_id", "teacher_files"))]
WIDE = 1024
SELECTION = "selection"
CODE = [*STUDENT_CODE, "teacher_outputs.py", "steps/distill.py", "steps/selection.py", "steps/teacher_overlap.py"]


def distill(config: DistillConfig, *, report: Report | None = None) -> StepRun:
    """Distil, or find, the student of the options; ``report`` as in `steps.student.train_student`."""
    data = data_of(config)
    teacher, outputs = teacher_of(config, data)
    opened = step_run(
        "distill",
        config,
        data=data,
        settings=SETTINGS,
        code=CODE,
        upstream={"teacher": teacher},
        # A trial keeps less than a run, and is not found in its place.
        content=policy_contents(config, config.selection_policy) | ({} if report is None else {"kept": "trial"}),
    )
    with opened as run:
        if not run.reused:
            if report is not None:
                run.tag("kept", "trial")
            train(config, data, outputs, run, report)
    if config.register:
        register_student(run.run_id, config.register)
    return run


def train(
    config: DistillConfig, data: SequenceData, outputs: TeacherOutputs, run: StepRun, report: Report | None
) -> None:
    """Fit the student by the objective of DLLM2Rec, and say what it gained."""
    device = device_of(config)
    torch.manual_seed(config.seed)
    embedding = outputs.item_embedding
    # Reading the table of a large LLM is most of a step: half the bytes.
    in_bf16 = embedding.shape[1] > WIDE
    model = build_student(shape_of(config), data.num_items, embedding, config.ed_weight, in_bf16).to(device)
    covered, ranking, distance = outputs.by_sample(config.candidate_topk)
    log_selections(run)
    selection = Selection(config, data, model, covered, ranking, distance, partial(keep_selection, run))
    weight = propensity(torch.as_tensor(data.item_count)).float().to(device)
    to_teacher = state_projection(config, outputs, model)

    def step(batch: Batch) -> dict[str, Tensor]:
        sample, batch = batch.sample, batch.to(device)
        states, logits = model.scored(batch.history, batch.length, batch.row, batch.column)
        distilled = selection.selected[sample].to(device)
        losses = dllm2rec_loss(
            logits,
            batch.target,
            propensity=weight,
            alpha=config.alpha,
            beta=config.beta,
            base_loss=config.base_loss,
            negative=sampled_negatives(
                config.base_loss, batch.histories(data.padding_id), batch.target, data.num_items
            ),
            lam=config.lam,
            candidates=ranking[sample].to(device),
            distance=distance[sample].to(device),
            gamma_position=config.gamma_position,
            gamma_confidence=config.gamma_confidence,
            gamma_consistency=config.gamma_consistency,
            temperature=config.temperature,
            distilled=distilled,
            release_compat=config.release_compat,
            ranking_loss=config.ranking_loss,
            excluded=masked(config, data, batch),
        )
        if to_teacher is not None:
            wanted = sequence_embedding(outputs, sample).to(device)
            # As the ranking term: a mean over all samples, 0 for those that are not distilled.
            losses["output"] = distilled.float().mean() * output_embedding_distillation(
                to_teacher(states[distilled]), wanted[distilled], config.output_loss
            )
            losses["total"] = losses["total"] + config.output_weight * losses["output"]
        return losses

    progress = train_student(
        config, data, model, run, step,
        begin_epoch=selection.begin_epoch, memory=selection.memory, extra=to_teacher, report=report,
    )  # fmt: skip
    twin = find_finished(key_of_backbone(narrow(config, StudentConfig), data.fingerprint))
    if twin is not None:
        run.tag("twin_run_id", twin.info.run_id)
    run.log_metrics({"teacher_covered_share": outputs.covered_share})
    text = described(config, data, outputs, run, progress.best_epoch, None if twin is None else twin.data.metrics)
    if report is None:
        undistilled = None if twin is None else frozen_student(finished_run(twin.info.run_id, "backbone"), device)
        overlaps = teacher_overlaps(model, undistilled, data, outputs, config.exclude_seen, device)
        run.log_metrics(overlaps)
        text += overlaps_described(overlaps)
    run.describe(text)


def teacher_of(config: DistillConfig, data: SequenceData) -> tuple[StepRun, TeacherOutputs]:
    """The teacher of the options, and what it left: of a run that is named, found or made, or of DLLM2Rec's files."""
    if config.teacher_files:
        if config.teacher_run_id:
            raise InputError("teacher_files, teacher_run_id: give one of them, not both")
        folder = str(Path(config.teacher_files).expanduser().resolve())
        imported = imported_teacher(folder, data.fingerprint, data.num_items, len(data.train), data.split)
        return imported.run, imported.outputs
    found = find_teacher(config, config.teacher_run_id, data)
    return found, teacher_outputs_of(found, data)


def state_projection(config: DistillConfig, outputs: TeacherOutputs, model: Student) -> nn.Linear | None:
    """From the student's states to the teacher's, for the output-level embedding distillation; None where unused."""
    if not config.output_weight:
        return None
    if outputs.sequence_embedding is None:
        raise InputError(
            f"output_weight={config.output_weight}: this teacher kept no sequence embeddings; "
            "make one with sequence_embeddings=true, or set output_weight=0"
        )
    return projection_layer(model.state_size, outputs.sequence_embedding.shape[1])


def sequence_embedding(outputs: TeacherOutputs, sample: Tensor) -> Tensor:
    """The teacher's states [S, F] of samples [S]; anything where it has none."""
    assert outputs.sequence_embedding is not None
    place = torch.searchsorted(outputs.sample, sample).clamp(max=len(outputs.sample) - 1)
    return outputs.sequence_embedding[place]


def keep_selection(run: StepRun, epoch: int, mask: Tensor) -> None:
    """Keep which samples were chosen, as ``selection/epoch-012.safetensors``, and beside the checkpoint."""
    name = f"epoch-{epoch:03d}.safetensors"
    kept = run.work / SELECTION
    kept.mkdir(parents=True, exist_ok=True)
    save_file({"sample": mask.nonzero().squeeze(1)}, kept / name)
    run.log_file(kept / name, SELECTION)


def log_selections(run: StepRun) -> None:
    """What a killed run had chosen belongs to the one that goes on from it."""
    for path in sorted((run.work / SELECTION).glob("*.safetensors")):
        run.log_file(path, SELECTION)


def described(
    config: DistillConfig,
    data: SequenceData,
    outputs: TeacherOutputs,
    run: StepRun,
    best_epoch: int,
    twin: dict[str, float] | None,
) -> str:
    """The run's description: what was learnt from whom, and what it gained."""
    ndcg = run.metrics()["test/ndcg_at_10"]
    text = (
        f"{config.student} on {data.name} ({data.split}), distilled from {outputs.manifest.llm}, whose rankings cover "
        f"{outputs.covered_share:.0%} of {len(data.train):,} training samples: lam {config.lam:g}, alpha "
        f"{config.alpha:g}, ed_weight {config.ed_weight:g}, temperature {config.temperature:g}, "
        f"{config.selection_policy} samples. Best epoch {best_epoch + 1}, test NDCG@10 {ndcg:.4f}"
    )
    if twin is None:
        return f"{text}; no undistilled run of the same settings to compare with."
    before = twin["test/ndcg_at_10"]
    return f"{text}, undistilled {before:.4f} ({(ndcg / before - 1) if before else 0:+.1%}, one seed)."
