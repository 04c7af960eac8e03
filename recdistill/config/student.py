"""Options of a student, and of the step that trains one without a teacher."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from recdistill.config.base import MENDED
from recdistill.config.data import TrainingConfig
from recdistill.config.option import option
from recdistill.config.views import DEFAULT_VIEWS, OR, OWN_OPTIONS, READING, ViewsConfig
from recdistill.errors import InputError
from recdistill.registry import STUDENTS, VIEWS

BaseLoss = Literal["ce", "bce", "sampled", "gbce"]
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class StudentConfig(TrainingConfig, ViewsConfig):
    """Options of ``a student``, in every step that trains one."""

    section: ClassVar[str] = "student"

    student: str = option("sasrec", "the recommender", common=True, choices=STUDENTS)
    hidden_size: int = option(64, "size of item embeddings and states", least=1)
    dropout: float = option(0.5, "dropout of the student", least=0, most=0.99)
    max_length: int = option(50, "history items a student reads", least=1)
    output: Literal["tied", "linear"] = option("tied", "score by the item embeddings, or by a layer of its own")
    item_init: Literal["random", "views"] = option(
        "random",
        "what item embeddings start from: random numbers; or views, a map of the items' texts that is trained with the "
        "student, plus what an item's clicks add to it",
    )
    views: str = option(
        "", f"views of an item's text for item_init=views, joined by +; empty: {DEFAULT_VIEWS}",
        choices=VIEWS, several=True,
    )  # fmt: skip
    window_stride: int = option(
        0, "samples that a causal student answers from one window, at most max_length; 0: max_length", least=0
    )
    base_loss: BaseLoss = option(
        "ce",
        "ce: full softmax; bce: one sampled negative, as DLLM2Rec released; sampled, gbce: softmax, or gSASRec's "
        "binary loss, over some negatives, for catalogues of a hundred thousand items and more",
    )
    negatives: int = option(
        1024,
        "items drawn as negatives: of sampled a step, of gbce a sample",
        least=1,
        read_with={"base_loss": "sampled or gbce"},
    )
    negative_sampling: Literal["uniform", "popularity"] = option(
        "uniform", "how they are drawn: uniform, or as often as they are training targets",
        read_with={"base_loss": "sampled"},
    )  # fmt: skip
    gbce_calibration: float = option(
        0.75, "0 is plain binary cross-entropy, 1 calibrated", least=0, most=1, read_with={"base_loss": "gbce"}
    )
    untrained_negatives: bool = option(
        True, "items without a training target are drawn as negatives all the same: else their scores stay where they "
        "begin, above all that are pushed down; never with item_init=views",
        read_with={"base_loss": "bce or gbce", "mask_untrained": "true", "item_init": "random"},
    )  # fmt: skip
    mask_untrained: bool = option(
        True, "leave items without a training target out of softmax, DRO, sampled negatives and the student's top K"
    )
    epochs: int = option(40, "most passes over the training samples", role="budget", least=1, common=True)
    patience: int = option(5, "epochs without a better validation NDCG@10 before stopping; 0: none stops", least=0)
    least_epochs: int = option(15, "epochs before which training does not stop", least=0)
    smoothing: int = option(3, "validation NDCG@10 counts as its mean over so many last epochs; 1: as it is", least=1)
    validation_samples: int = option(
        0, "validation samples that are ranked after each epoch, drawn once; 0: all; the last measurement ranks all",
        least=0, later=True,
    )  # fmt: skip
    ema_decay: float = option(
        0.995, "decay a step of averaged weights, which are validated and kept; 0: the weights themselves", least=0,
        most=0.99999,
    )  # fmt: skip
    batch_size: int = option(512, "training samples a step", least=1)
    learning_rate: float = option(0.002, "Adam's learning rate for the student", above=0)
    schedule: Schedule = option("constant", "how the learning rate falls over the steps of all epochs")
    rate_warmup: float = option(0.0, "share of the student's steps with rising learning rate", least=0, most=1)
    rate_floor: float = option(
        0.0, "share of the learning rate that it falls to", least=0, most=1,
        read_with={"schedule": "linear or cosine"},
    )  # fmt: skip
    weight_decay: float = option(0.0, "Adam's weight decay for the student", least=0)
    bf16: bool = option(
        False,
        "train in mixed precision: products of the encoder and of the full softmax of bfloat16 numbers; weights stay "
        "in float32, and so does what is validated, measured and served",
        later=True,
    )
    init_from: str = option(
        "",
        "a finished run of a student, or a model's address as models:/name/1, that training starts from; items may "
        "have come since; empty: fresh parameters",
        role="upstream",
        later=True,
    )
    refit: bool = option(
        False,
        "for serving: train on all interactions, validation and test included, for the epochs that the same options "
        "chose without it; nothing is measured",
        later=True,
    )
    register: str = option(
        "", "name to register the student under, as a new version; empty: not", role="place", registered=True
    )

    def __post_init__(self) -> None:
        if self.item_init == "views" and not self.views:
            object.__setattr__(self, "views", DEFAULT_VIEWS)
        super().__post_init__()
        self.check_item_init()
        if self.refit and self.new_items:
            raise InputError(f"refit=true: new_items={self.new_items} takes items out of training; give new_items=0")
        if self.init_from and self.student not in STUDENTS.names(gradient=True):
            raise InputError(f"init_from={self.init_from}: {self.student} is not trained by gradient; leave it out")
        if self.window_stride > self.max_length:
            raise InputError(f"window_stride={self.window_stride}: must be at most max_length={self.max_length}")
        if self.base_loss == "gbce" and self.negative_sampling != "uniform":
            raise InputError(
                f"negative_sampling={self.negative_sampling}: gbce is calibrated for uniform negatives; "
                "use uniform, or base_loss=sampled"
            )

    @property
    def starts_from_texts(self) -> bool:
        """Whether item embeddings are mapped from the items' texts."""
        return self.item_init == "views"

    @property
    def starts_from_teacher(self) -> bool:
        """Whether it starts from its teacher's vectors of the items' texts."""
        return self.starts_from_texts and "teacher" in self.view_names

    def wrong_before(self) -> dict[str, bool]:
        """What was wrong in results before, by a name for the key, and whether it was in those of these options.

        - of ``gbce``: all samples of a batch had the same negatives;
        - of an own output under drawn negatives: its bias also moved where a step had not used it.
        """
        drawn = self.base_loss in ("sampled", "gbce")
        return {"negatives of gbce": self.base_loss == "gbce", "bias of an output": drawn and self.output == "linear"}

    def also_in_key(self) -> dict[str, Any]:
        """Also what was wrong in results of these options before, see `wrong_before`."""
        found = ", ".join(mark for mark, holds in self.wrong_before().items() if holds)
        return super().also_in_key() | ({MENDED: found} if found else {})

    def unread(self) -> Collection[str]:
        """What is not asked for of the views, and of negatives."""
        found = () if self.starts_from_texts else ("item_init", *OWN_OPTIONS)
        return (*found, *self.unread_negatives())

    def unread_negatives(self) -> Collection[str]:
        """The option of items that are drawn as negatives, where nothing reads it."""
        return () if self.may_push_untrained else ("untrained_negatives",)

    @property
    def may_push_untrained(self) -> bool:
        """Whether scores have a scale of their own, by which an item that is never a negative would stand high."""
        return self.base_loss in ("bce", "gbce") and not self.starts_from_texts

    @property
    def pushes_untrained(self) -> bool:
        """Whether items without a training target are drawn as negatives, whatever else they are left out of."""
        return self.may_push_untrained and self.untrained_negatives

    def check_item_init(self) -> None:
        """Raise InputError where embeddings cannot start from the views, or views are given and not read."""
        if not self.starts_from_texts:
            defaults = {spec.name: spec.default for spec in fields(self)}
            for name in OWN_OPTIONS:
                if getattr(self, name) != defaults[name]:
                    raise InputError(
                        f"{name}={getattr(self, name)}: is of item_init=views; set that, or leave {name} out"
                    )
            return
        if self.student not in STUDENTS.names(gradient=True):
            raise InputError(
                f"item_init=views: {self.student} has no item embeddings; use one of "
                f"{', '.join(STUDENTS.names(gradient=True))}"
            )
        for name, value in (("views", self.views), (READING, str(self.value(READING)))):
            if OR in value:
                raise InputError(f"{name}={value}: item_init=views trains with one choice; give one of them")


def check_measured(config: StudentConfig) -> None:
    """Raise InputError where a student that is to be measured would be trained on all interactions."""
    if config.refit:
        raise InputError("refit=true: leaves nothing to measure on; refit what was chosen, by backbone or distill")


def check_without_teacher(config: StudentConfig) -> None:
    """Raise InputError where a student that no teacher teaches would start from the teacher's vectors."""
    if config.starts_from_teacher:
        raise InputError(
            f"views={config.views}: an undistilled student has no teacher; give other views, or use the step distill"
        )


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(StudentConfig):
    """Options of ``backbone``: a student without a teacher. A SASRec is also what a teacher's gate reads."""

    section: ClassVar[str] = "student"

    released: str = option(
        "", "file of iLoRA's released SASRec, imported instead of training", role="place", content=True, path="read"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_without_teacher(self)
        given = {"item_init=views": self.starts_from_texts, "init_from": self.init_from, "refit=true": self.refit}
        for name in (name for name, asked in given.items() if asked and self.released):
            raise InputError(f"{name}: nothing is trained with released={self.released}; leave one out")
