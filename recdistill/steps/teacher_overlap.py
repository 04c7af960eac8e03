"""How much of what the teacher puts first its student puts first, too; and did before it was distilled."""

import numpy as np
import torch

from recdistill.data.sequences import SequenceData
from recdistill.evaluation.overlap import top_k_overlap
from recdistill.students.measure import ranked
from recdistill.students.student import Student
from recdistill.teachers.outputs import TeacherOutputs
from recdistill.training.fit import Metrics

K = 10
# So many give the share to a percent, in a second or two.
MOST_SAMPLES = 2000
OWN, TWIN = f"distill/teacher_overlap_at_{K}", f"distill/twin_teacher_overlap_at_{K}"


def teacher_overlaps(
    model: Student,
    baseline: Student | None,
    data: SequenceData,
    outputs: TeacherOutputs,
    exclude_seen: bool,
    device: torch.device,
) -> Metrics:
    """Share of the teacher's 10 best items that are among a student's 10 best, mean over training samples.

    At most 2,000 of those that the teacher scored, the same for all of its students.

    Args:
        model: the distilled student.
        baseline: the undistilled one, where there is one.
        data: of the samples.
        outputs: the teacher's.
        exclude_seen: whether students leave out the items of a history; the teacher did as its own run says.
        device: of both students.

    Returns one metric or two; none where the teacher scored no sample or kept fewer than 10 items.
    """
    covered = len(outputs.sample)
    if not covered or outputs.top_n < K:
        return {}
    chosen = np.sort(np.random.default_rng(0).choice(covered, min(covered, MOST_SAMPLES), replace=False))
    samples, wanted = data.train.subset(outputs.sample.numpy()[chosen]), outputs.ranking[torch.from_numpy(chosen), :K]
    students = {OWN: model} | ({} if baseline is None else {TWIN: baseline})
    return {
        name: top_k_overlap(wanted, ranked(student, samples, exclude_seen, device, keep=K).best)
        for name, student in students.items()
    }


def overlaps_described(overlaps: Metrics) -> str:
    """A sentence for a run's description, a blank before it; '' where there is nothing to say."""
    if OWN not in overlaps:
        return ""
    before = f", {overlaps[TWIN]:.1%} of the undistilled one's" if TWIN in overlaps else ""
    return f" Of the teacher's {K} best items {overlaps[OWN]:.1%} are among the student's {K} best{before}."
