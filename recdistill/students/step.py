"""What a training step of a student is: its batches, what does not compete in them, and their losses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recdistill.config.base import WEIGHT
from recdistill.config.distill import DistillConfig
from recdistill.config.student import StudentConfig
from recdistill.data.batches import Batch, BatchPart, DeviceBatch, batches, seen_items
from recdistill.data.flat_samples import FlatSamples
from recdistill.data.sequences import SequenceData
from recdistill.distillation.exclusion import Pairs
from recdistill.distillation.negatives import Negatives, NegativeSampler, random_numbers, sampled_negatives
from recdistill.distillation.objective import Objective, settings_of
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.sampled import of_drawn
from recdistill.distillation.settings import SAMPLED, ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS
from recdistill.students.process_random import ALONE_RANDOM, ProcessRandom
from recdistill.students.selection import Selection
from recdistill.students.student import Student
from recdistill.training.device import mixed_precision

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Ready:
    """A batch as the encoder and the losses read it.

    Attributes:
        batch: on the device.
        answers: the teacher's, on the device; None without a teacher.
        excluded: see `seen_mask`; on the CPU, where the parts of the loss's blocks are found, unless the batch was cut
            on the device.
    """

    batch: Batch
    answers: TeacherBatch | None
    excluded: Pairs | None


@dataclass(frozen=True, eq=False)
class FullStep:
    """The losses of a batch where every item competes, or one negative a sample.

    Attributes:
        config, data, model, objective, device, random: as of `loss_step`.
        among: see `negatives_among`.
    """

    config: StudentConfig
    data: SequenceData
    model: Student
    objective: Objective
    device: torch.device
    random: ProcessRandom
    among: Tensor | None

    def __call__(self, batch: Batch, answers: TeacherBatch | None) -> Losses:
        """The losses of a batch as of `loss_step`."""
        ready = self.ready(batch, answers)
        batch = ready.batch
        place = (batch.history, batch.length, batch.row, batch.column)
        scored: OutputLayer | Tensor
        with self.random.of_dropout(), mixed_precision(self.config.bf16, self.device):
            if self.model.scores_by_layer:
                states, scored = self.model.encoded(*place)
            else:
                states, scored = self.model.scored(*place)
        return self.losses(ready, states, scored)

    def ready(self, batch: Batch, answers: TeacherBatch | None) -> Ready:
        """What is found before the encoder, of a batch as of `loss_step`."""
        excluded = seen_mask(self.config, self.data, batch, self.objective.settings)
        return Ready(batch.to(self.device), None if answers is None else answers.to(self.device), excluded)

    def losses(self, ready: Ready, states: Tensor, scored: OutputLayer | Tensor) -> Losses:
        """The losses from the samples' states [S, D], and the layer that scores items or the logits [S, V]."""
        batch, objective, negative = ready.batch, self.objective, None
        if self.config.bf16:
            states, scored = states.float(), scored.float()
        if objective.settings.needs_negative:
            # Drawn after the student's dropout.
            negative = sampled_negatives(
                "bce",
                batch.histories(self.data.padding_id),
                batch.target,
                self.data.num_items,
                among=self.among,
                random=numbers_of(batch),
                options=objective.settings.negative_options,
            )
        answers, excluded = ready.answers, ready.excluded
        if isinstance(scored, OutputLayer):
            return objective.of_states(states, scored, batch.target, answers, negative=negative, excluded=excluded)
        losses: Losses = objective(scored, batch.target, states, answers, negative=negative, excluded=excluded)
        return losses


def loss_step(
    config: StudentConfig,
    data: SequenceData,
    model: Student,
    objective: Objective,
    selection: Selection | None,
    device: torch.device,
    random: ProcessRandom = ALONE_RANDOM,
    together: Callable[[FullStep, Ready], Losses] | None = None,
) -> Callable[[Batch], Losses]:
    """The losses of a batch, or of a process's part of one, as a function.

    Scores of all items for all samples are held only where the student makes its own, or a loss term reads them. The
    batch is on the CPU, or a `DeviceBatch` of ``device``. What follows from its items alone is found where it is, so
    that a step does not wait for a GPU.
    ``together`` takes the encoder's place for a student that is trained with others, see `together.Member.losses`.

    Raises InputError where the base loss does not fit the student or its loss terms.
    """
    if config.base_loss in SAMPLED:
        check_samples(config, model, objective)
        losses_of = sampled_step(config, data, model, objective, device, random)
    else:
        full = FullStep(config, data, model, objective, device, random, negatives_among(config, data, device))

        def losses_of(batch: Batch, answers: TeacherBatch | None) -> Losses:
            return full(batch, answers) if together is None else together(full, full.ready(batch, answers))

    def step(batch: Batch) -> Losses:
        answers = None if selection is None else selection.answers_of(batch)
        return losses_of(batch, answers)

    return step


def numbers_of(batch: Batch) -> Tensor:
    """Random numbers of the samples, of a part those that its samples have in the whole batch: int64 [S]."""
    if isinstance(batch, BatchPart):
        return random_numbers(batch.whole)[batch.place]
    return random_numbers(len(batch))


def sampled_step(
    config: StudentConfig,
    data: SequenceData,
    model: Student,
    objective: Objective,
    device: torch.device,
    random: ProcessRandom,
) -> Callable[[Batch, TeacherBatch | None], Losses]:
    """The losses of a batch over drawn negatives: of the item table only the rows in use are read and learn."""
    among = negatives_among(config, data, torch.device("cpu"))
    counts = torch.as_tensor(data.item_count)
    sampler = NegativeSampler(config.negatives, config.negative_sampling, counts, among)
    padding = torch.tensor([data.padding_id])

    def step(batch: Batch, answers: TeacherBatch | None) -> Losses:
        negatives = negatives_of(config, sampler, batch)
        answers = None if answers is None else answers.filled(batch.target)
        used = [batch.history.flatten(), batch.target, negatives.items.flatten(), padding]
        if answers is not None:
            used.append(answers.candidates.flatten())
        ids = torch.cat(used).unique().to(device, non_blocking=True)
        excluded = seen_mask(config, data, batch, objective.settings)
        if excluded is not None and negatives.are_shared:
            excluded = of_drawn(excluded, negatives.items)
        batch, negatives = batch.to(device), negatives.to(device)
        answers = None if answers is None else answers.to(device)
        with random.of_dropout(), mixed_precision(config.bf16, device):
            states, output = model.encoded(batch.history, batch.length, batch.row, batch.column, ids)
        states = states.float() if config.bf16 else states
        return objective.of_states(states, output, batch.target, answers, excluded=excluded, negatives=negatives)

    return step


def negatives_of(config: StudentConfig, sampler: NegativeSampler, batch: Batch) -> Negatives:
    """The negatives of a batch, of a part those that its samples have in the whole batch; see `sampled`."""
    if config.base_loss != "gbce":
        return sampler.draw()
    if isinstance(batch, BatchPart):
        return sampler.draw_own(batch.whole).of(batch.place)
    return sampler.draw_own(len(batch))


def check_samples(config: StudentConfig, model: Student, objective: Objective) -> None:
    """Raise InputError where the losses of drawn negatives cannot be computed for this student."""
    what = f"base_loss={config.base_loss}"
    if not model.scores_by_layer:
        raise InputError(f"{what}: {config.student} makes scores of its own, of all items; use base_loss=ce")
    if objective.needs_logits:
        names = ", ".join(f"{name}_weight" for name in objective.terms)
        raise InputError(f"{what}: the scores of all items are not made, but {names} reads them; use base_loss=ce")


def check_divisible(config: StudentConfig) -> None:
    """Raise InputError where the losses of a batch are no means over its samples, so that processes cannot share it."""
    start = "start it in one process"
    if not isinstance(config, DistillConfig):
        return
    if settings_of(config).mixes_samples:
        raise InputError(f"release_compat=true: mixes all samples of a batch, which processes divide; {start}")
    for name in config.parts_in_use_of(LOSS_TERMS):
        if not LOSS_TERMS.declaration(name).about.get("mean_of_samples"):
            raise InputError(
                f"{name}_weight={config.value(name + WEIGHT)}: processes divide a batch, and the loss term is not "
                f"registered with mean_of_samples=True, as one that is a mean over samples; {start}"
            )


def negatives_among(config: StudentConfig, data: SequenceData, device: torch.device) -> Tensor | None:
    """The items that sampled negatives are drawn from; None for all."""
    learnt = data.learnt(config.exclude_seen)
    if not config.mask_untrained or config.pushes_untrained or learnt.all():
        return None
    return torch.as_tensor(learnt.nonzero()[0], device=device)


def student_batches(
    config: StudentConfig, data: SequenceData, causal: bool, device: torch.device | str = "cpu"
) -> Callable[[int], Iterator[Batch]]:
    """The batches of each epoch. A causal student answers ``window_stride`` samples a window, at most a batch.

    On a ``device`` that is not the CPU they are cut there (`DeviceBatch`), from the training samples' arrays, which are
    copied there now: the same numbers. Under drawn negatives they are on the CPU all the same, where the rows in use
    are found from them; and where several processes divide a batch, give them the CPU.
    """
    stride = max(1, min(config.window_stride or config.max_length, config.batch_size)) if causal else 1
    index = data.trainable(config.exclude_seen)
    cut_there = torch.device(device).type != "cpu" and config.base_loss not in SAMPLED
    flat = FlatSamples.of(data.train, device) if cut_there else None

    def of_epoch(epoch: int) -> Iterator[Batch]:
        return batches(
            data.train,
            length=config.max_length,
            batch_size=config.batch_size,
            stride=stride,
            padding_id=data.padding_id,
            seed=config.seed,
            epoch=epoch,
            index=index,
            flat=flat,
        )

    return of_epoch


def seen_mask(config: StudentConfig, data: SequenceData, batch: Batch, settings: ObjectiveSettings) -> Pairs | None:
    """The items that compete in no softmax and no top K: of each sample those of its whole history; None for none.

    Where they compete, a student learns first that they do not come again, which a ranking without them never asks.
    The pairs are where the batch is.
    """
    if not (config.mask_seen and config.exclude_seen and settings.masks_seen):
        return None
    if isinstance(batch, DeviceBatch):
        return batch.seen()
    return seen_items(data.train, batch.sample, batch.target.device)
