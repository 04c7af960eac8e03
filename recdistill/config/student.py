"""Options of a student, and of the step that trains one without a teacher."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from recdistill.config.data import TrainingConfig
from recdistill.config.option import option
from recdistill.registry import STUDENTS

BaseLoss = Literal["ce", "bce"]


@dataclass(frozen=True, kw_only=True)
class StudentConfig(TrainingConfig):
    """Options of ``a student``, in every step that trains one."""

    section: ClassVar[str] = "student"

    student: str = option("sasrec", "the recommender", common=True, choices=STUDENTS)
    hidden_size: int = option(64, "size of item embeddings and states", least=1)
    dropout: float = option(0.5, "dropout of the student", least=0, most=0.99)
    max_length: int = option(50, "history items a student reads", least=1)
    output: Literal["tied", "linear"] = option("tied", "score by the item embeddings, or by a layer of its own")
    base_loss: BaseLoss = option("ce", "ce: full softmax; bce: one sampled negative, as DLLM2Rec released")
    epochs: int = option(40, "most passes over the training samples", role="budget", least=1, common=True)
    patience: int = option(8, "epochs without a better validation NDCG@10 before stopping", least=1)
    batch_size: int = option(512, "training samples a step", least=1)
    learning_rate: float = option(0.002, "Adam's learning rate for the student", above=0)
    weight_decay: float = option(0.0, "Adam's weight decay for the student", least=0)
    register: str = option("", "name to register the student under, as a new version; empty: not", role="place")


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(StudentConfig):
    """Options of ``backbone``: a student without a teacher. A SASRec is also what a teacher's gate reads."""

    section: ClassVar[str] = "student"

    released: str = option(
        "", "file of iLoRA's released SASRec, imported instead of training", role="place", content=True
    )
