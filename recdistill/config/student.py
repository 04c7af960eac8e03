"""Options of a student, and of the step that trains one without a teacher."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from recdistill.config.data import TrainingConfig
from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import STUDENTS

BaseLoss = Literal["ce", "bce", "sampled", "gbce"]
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class StudentConfig(TrainingConfig):
    """Options of ``a student``, in every step that trains one."""

    section: ClassVar[str] = "student"

    student: str = option("sasrec", "the recommender", common=True, choices=STUDENTS)
    hidden_size: int = option(64, "size of item embeddings and states", least=1)
    dropout: float = option(0.5, "dropout of the student", least=0, most=0.99)
    max_length: int = option(50, "history items a student reads", least=1)
    output: Literal["tied", "linear"] = option("tied", "score by the item embeddings, or by a layer of its own")
    window_stride: int = option(
        0, "samples that a causal student answers from one window, at most max_length; 0: half of max_length", least=0
    )
    base_loss: BaseLoss = option(
        "ce",
        "ce: full softmax; bce: one sampled negative, as DLLM2Rec released; sampled, gbce: softmax, or gSASRec's "
        "binary loss, over negatives shared by the batch, for catalogues of a hundred thousand items and more",
    )
    negatives: int = option(1024, "items drawn a step as negatives of all its samples, of sampled and gbce", least=1)
    negative_sampling: Literal["uniform", "popularity"] = option(
        "uniform", "how they are drawn: uniform, or as often as they are training targets (sampled alone)"
    )
    gbce_calibration: float = option(0.75, "gbce: 0 is plain binary cross-entropy, 1 calibrated", least=0, most=1)
    mask_untrained: bool = option(
        True, "leave items without a training target out of softmax, DRO, sampled negatives and the student's top K"
    )
    epochs: int = option(40, "most passes over the training samples", role="budget", least=1, common=True)
    patience: int = option(8, "epochs without a better validation NDCG@10 before stopping; 0: none stops", least=0)
    least_epochs: int = option(0, "epochs before which training does not stop", least=0)
    smoothing: int = option(1, "validation NDCG@10 counts as its mean over so many last epochs; 1: as it is", least=1)
    ema_decay: float = option(
        0.0, "decay a step of averaged weights, which are validated and kept; 0: the weights themselves", least=0,
        most=0.99999,
    )  # fmt: skip
    batch_size: int = option(512, "training samples a step", least=1)
    learning_rate: float = option(0.002, "Adam's learning rate for the student", above=0)
    schedule: Schedule = option("constant", "how the learning rate falls over the steps of all epochs")
    rate_warmup: float = option(0.0, "share of the student's steps with rising learning rate", least=0, most=1)
    rate_floor: float = option(0.0, "share of the learning rate that linear and cosine end at", least=0, most=1)
    weight_decay: float = option(0.0, "Adam's weight decay for the student", least=0)
    register: str = option("", "name to register the student under, as a new version; empty: not", role="place")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_stride > self.max_length:
            raise InputError(f"window_stride={self.window_stride}: must be at most max_length={self.max_length}")
        if self.base_loss == "gbce" and self.negative_sampling != "uniform":
            raise InputError(
                f"negative_sampling={self.negative_sampling}: gbce is calibrated for uniform negatives; "
                "use uniform, or base_loss=sampled"
            )


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(StudentConfig):
    """Options of ``backbone``: a student without a teacher. A SASRec is also what a teacher's gate reads."""

    section: ClassVar[str] = "student"

    released: str = option(
        "", "file of iLoRA's released SASRec, imported instead of training", role="place", content=True, path="read"
    )
