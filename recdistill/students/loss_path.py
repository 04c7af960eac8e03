"""Which way a student's loss is computed: it follows from base loss, student, loss terms and the catalogue's size.

What is computed is never changed: scores of all items are held, or made block by block with the same result. The loss
over drawn negatives is another objective, which only ``base_loss`` chooses; a line names it where it would pay.
"""

from typing import Literal

from recdistill.config.student import StudentConfig
from recdistill.data.notices import notice
from recdistill.distillation.objective import Objective
from recdistill.distillation.settings import SAMPLED
from recdistill.students.student import Student

#: ``own negatives``: many of each sample's own. ``one negative``: no sum over items.
#: ``all scores``: [S, V] is held. ``blocks``: it never is.
LossPath = Literal["shared negatives", "own negatives", "one negative", "blocks", "all scores"]
#: From so many items on the full softmax is most of a training's time; see docs/SCALE.md.
LARGE_CATALOGUE = 100_000
#: Scores of a batch that are worth a word, in bytes.
MANY_BYTES = 2**30
GIB = 2**30
#: Scores of a validation that take minutes, which an epoch may not.
MANY_SCORES = 10**11


def loss_path(config: StudentConfig, model: Student, objective: Objective, distilled: bool) -> LossPath:
    """How the losses of a batch are computed; ``distilled``: with a teacher."""
    if config.base_loss in SAMPLED:
        return "own negatives" if config.base_loss == "gbce" else "shared negatives"
    if objective.needs_logits or not model.scores_by_layer:
        return "all scores"
    settings = objective.settings
    # The robust term, and what a candidate's rank in the student weighs, are over all items.
    ranked = distilled and settings.finds_best
    return "blocks" if settings.needs_softmax or settings.alpha or ranked else "one negative"


def held_bytes(config: StudentConfig, num_items: int) -> int:
    """Bytes of a batch's scores of all items, with their gradient, where they are held."""
    return 2 * 4 * config.batch_size * num_items


def say_what_would_pay(config: StudentConfig, path: LossPath, num_items: int) -> None:
    """Say a line where the catalogue is too large for the loss, and what to set."""
    advice = "set base_loss=sampled, whose cost does not grow with the catalogue"
    if path == "all scores" and held_bytes(config, num_items) >= MANY_BYTES:
        notice(
            f"base_loss={config.base_loss}: holds scores of {num_items:,} items for {config.batch_size:,} samples, "
            f"{held_bytes(config, num_items) / GIB:.1f} GiB a step, as the student or a loss term reads them; "
            f"leave that term out, lower batch_size, or {advice}"
        )
    elif path in ("blocks", "all scores") and num_items >= LARGE_CATALOGUE:
        notice(
            f"base_loss={config.base_loss}: every step scores {num_items:,} items for {config.batch_size:,} samples; "
            f"{advice}"
        )


def say_long_validation(config: StudentConfig, samples: int, num_items: int) -> None:
    """Say a line where ranking all validation samples after each epoch takes many minutes, and what to set."""
    if not config.validation_samples and samples * num_items >= MANY_SCORES:
        notice(
            f"validation_samples=0: every epoch ends with {samples:,} samples ranked among {num_items:,} items; "
            "validation_samples=20000 is enough to choose an epoch by"
        )
