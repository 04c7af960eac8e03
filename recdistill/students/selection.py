"""Which samples a student is distilled on, chosen again every few epochs."""

from collections.abc import Callable

import torch
from torch import Tensor

from recdistill.config.distill import DistillConfig
from recdistill.data.batches import Batch, DeviceBatch
from recdistill.data.notices import notice
from recdistill.data.sequences import SequenceData
from recdistill.distillation.selection import SelectionSignals, overlap, seed_of_epoch, select
from recdistill.distillation.teacher_answers import TeacherAnswers, TeacherBatch
from recdistill.registry import LOSS_TERMS, POLICIES
from recdistill.students.signals import signals_of_student
from recdistill.students.student import Student
from recdistill.training.distributed import ALONE, Processes
from recdistill.training.fit import Metrics

SELECTED = "selected"
#: A teacher's rankings with their distances lie on the device of the batches up to so many bytes, beyond on the CPU.
MOST_BYTES = 2**30
CPU = torch.device("cpu")


class Selection:
    """The samples that are distilled, chosen by a policy; ``memory`` holds them and goes into the checkpoint.

    Args:
        config: policy, fraction, refresh interval, temperature, seed.
        data: the training samples, N.
        model: the student whose signals the policy reads.
        teacher: its answers; the policy chooses among the samples that they cover.
        keep: called with the epoch and the mask bool [N] at each selection.
        processes: that train together; the main one chooses.
    """

    def __init__(
        self,
        config: DistillConfig,
        data: SequenceData,
        model: Student,
        teacher: TeacherAnswers,
        keep: Callable[[int, Tensor], None],
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.data, self.model, self.teacher, self.keep = config, data, model, teacher, keep
        self.processes = processes
        self._answers_there: TeacherAnswers | None = None
        self._selected_there: tuple[Tensor, Tensor] | None = None
        self.answered = teacher.covered
        trainable = data.trainable(config.exclude_seen)
        if trainable is not None:
            # Files may have answers for samples of no batch, too.
            learnt = torch.zeros_like(self.answered).index_fill_(0, torch.from_numpy(trainable), value=True)
            self.answered = self.answered & learnt
        self.memory = {SELECTED: self.answered.clone()}
        reads_answers = config.lam > 0 or config.parts_in_use_of(LOSS_TERMS)
        if reads_answers and processes.is_main and not bool(self.answered.any()):
            notice(
                f"the teacher's answers cover {int(teacher.covered.sum()):,} of {len(data.train):,} training samples, "
                "none that is learnt from: no ranking or state is distilled; give a teacher that answers for some"
            )

    @property
    def selected(self) -> Tensor:
        """The samples distilled now, bool [N]."""
        return self.memory[SELECTED]

    def answers(self, sample: Tensor, device: torch.device) -> TeacherBatch:
        """The teacher's answers for the samples of a batch, [S] on the CPU, with which of them are distilled."""
        return self.teacher.batch(sample, self.selected[sample], device)

    def answers_of(self, batch: Batch) -> TeacherBatch:
        """`answers` for a batch: on its device where it was cut there and they fit (`MOST_BYTES`), else on the CPU.

        Which samples are distilled is found on the CPU in any case (`TeacherBatch.row`), so that no device is asked.
        """
        if not isinstance(batch, DeviceBatch) or self.teacher.ranking_bytes > MOST_BYTES:
            return self.answers(batch.sample, CPU)
        device = batch.there.device
        if self._answers_there is None:
            self._answers_there = self.teacher.ranking_on(device)
        # Another tensor at each selection, and where a checkpoint is read.
        if self._selected_there is None or self._selected_there[0] is not self.selected:
            self._selected_there = self.selected, self.selected.to(device, non_blocking=True)
        row = self.selected[batch.sample].nonzero().squeeze(1)
        return self._answers_there.batch_there(batch.sample, batch.there, self._selected_there[1], row)

    def begin_epoch(self, epoch: int) -> Metrics:
        """Choose where the epoch asks for it.

        Returns the share of the samples that is distilled and, of a second or later selection, the share of the
        chosen samples that were chosen before.
        """
        config = self.config
        takes_all = config.selection_policy == "all" and config.selection_fraction == 1
        if takes_all or epoch % config.refresh_interval:
            return {"train/distilled_share": float(self.selected.float().mean())}
        chosen = self.processes.from_main(lambda: self.chosen(epoch))
        metrics = {"train/distilled_share": float(chosen.float().mean())}
        if epoch:
            metrics["train/selection_overlap"] = overlap(self.selected, chosen)
        self.memory[SELECTED] = chosen
        if self.processes.is_main:
            self.keep(epoch, chosen)
        return metrics

    def chosen(self, epoch: int) -> Tensor:
        """The samples that the policy takes in an epoch, bool [N]."""
        config, policy = self.config, self.config.selection_policy
        options = config.of_part(POLICIES, policy)
        return select(policy, self.signals(), config.selection_fraction, seed_of_epoch(config.seed, epoch), options)

    def signals(self) -> SelectionSignals:
        """What the policy reads, of the student as it is."""
        teacher = self.teacher
        student, log_probs = signals_of_student(
            self.model, self.data, self.answered, teacher.ranking, self.config.seed, self.config.exclude_seen
        )
        return SelectionSignals(
            **vars(student),
            candidates=teacher.ranking,
            distance=teacher.distance,
            candidate_log_probs=log_probs,
            temperature=self.config.temperature,
        )
