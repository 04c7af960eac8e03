"""How fast a student trains on this machine, from some of its steps."""

import time
from dataclasses import dataclass
from itertools import islice

import torch

from recdistill.config.base import changed, option_table
from recdistill.config.student import StudentConfig
from recdistill.config.views import OWN_OPTIONS
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.registry import LOSS_TERMS, STUDENTS
from recdistill.students.build import shape_of
from recdistill.students.measure import ranks_of
from recdistill.students.recommender import ClosedForm
from recdistill.students.training import student_plan
from recdistill.training.device import device_of
from recdistill.training.recorder import NoRecorder

#: Steps that are timed, at least and at most, and the seconds after which no further one begins.
LEAST_STEPS, MOST_STEPS, SECONDS = 2, 20, 3.0
#: Validation samples that are ranked, at most.
RANKED = 512
#: Samples with made-up answers of a teacher, and its width.
ANSWERED, WIDTH = 4096, 576


@dataclass(frozen=True)
class StudentPace:
    """What a student's training takes.

    Attributes:
        epoch_seconds: of an epoch with its validation.
        rank_seconds: of a sample that is ranked.
    """

    epoch_seconds: float
    rank_seconds: float

    def seconds(self, epochs: int, samples: int) -> float:
        """Of so many epochs, and of ranking so many samples in the end."""
        return epochs * self.epoch_seconds + samples * self.rank_seconds


def student_pace(config: StudentConfig, data: SequenceData, *, distilled: bool) -> StudentPace | None:
    """Time some steps of a training with fresh parameters; None for a recommender in closed form.

    ``distilled`` has it learn from made-up answers of a teacher, which cost what real ones do. The random number
    generator of torch is left as it was.
    """
    kind = STUDENTS.get(config.student)
    if issubclass(kind, ClosedForm):
        return None
    device = device_of(config)
    if config.starts_from_texts:
        table = option_table(type(config))
        # A narrow table of texts costs less than the drawn one; reading the texts would cost more than the timing.
        config = changed(config, item_init="random", **{name: table[name].default for name in OWN_OPTIONS})
    with torch.random.fork_rng():
        teacher = made_up_answers(config, data) if distilled else None
        model, plan = student_plan(config, data, shape_of(config), teacher, NoRecorder())
        if plan.begin_epoch is not None:
            plan.begin_epoch(0)
        model.train()
        taken: list[float] = []
        for batch in islice(plan.batches(0), MOST_STEPS):
            started = time.perf_counter()
            plan.optimizer.zero_grad()
            plan.step(batch)["total"].backward()
            plan.optimizer.step()
            taken.append(time.perf_counter() - started)
            if len(taken) >= LEAST_STEPS and sum(taken) > SECONDS:
                break
        model.eval()
        some = data.validation.subset(range(min(RANKED, len(data.validation))))
        started = time.perf_counter()
        ranks_of(model, some, config.exclude_seen, device)
        rank_seconds = (time.perf_counter() - started) / max(1, len(some))
    # The first step also warms up.
    steady = taken[1:] or taken
    step_seconds = sum(steady) / max(1, len(steady))
    return StudentPace(plan.num_batches * step_seconds + len(data.validation) * rank_seconds, rank_seconds)


def made_up_answers(config: StudentConfig, data: SequenceData) -> TeacherAnswers:
    """Answers of no teacher for some training samples, of the shapes of real ones."""
    candidates = min(int(config.value("candidate_topk")), data.num_items)
    count = len(data.train)
    covered = torch.zeros(count, dtype=torch.bool)
    sample = torch.randperm(count)[:ANSWERED].sort().values
    covered[sample] = True
    return TeacherAnswers(
        covered=covered,
        ranking=torch.randint(data.num_items, (count, candidates)),
        distance=torch.rand(count, candidates).sort(dim=1).values,
        item_embedding=torch.nn.functional.normalize(torch.randn(data.num_items, WIDTH), dim=1),
        sample=sample,
        # Loss terms alone read states.
        sequence_embedding=torch.randn(len(sample), WIDTH) if config.parts_in_use_of(LOSS_TERMS) else None,
        covered_share=len(sample) / max(1, count),
    )
