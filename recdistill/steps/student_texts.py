"""The items' texts that a student's embeddings start from (``item_init=views``), and what is kept of them to serve."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recdistill.config import StudentConfig
from recdistill.data.item_texts import item_texts, texts_digest, texts_made_of
from recdistill.data.pinned_models import joined_terms
from recdistill.data.sequences import SequenceData
from recdistill.runs.run import StepRun
from recdistill.steps.results import keep_student
from recdistill.students.kept_student import VECTORS_FOLDER, Beside
from recdistill.students.mapped import has_own_map, with_own_map
from recdistill.students.measure import Fitted
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape
from recdistill.students.student import Student
from recdistill.students.text_vectors import TextVectors
from recdistill.views.build import build_views, view_context
from recdistill.views.item_vectors import ItemVectors
from recdistill.views.text_teacher import TextTeacher


@dataclass(frozen=True, eq=False)
class StudentTexts:
    """The items' texts as a student starts from them.

    Attributes:
        texts: V of them.
        about: how they are made: ``item_text``, ``text_template`` and the ``columns`` that the items have.
        teacher: gives the view ``teacher`` its vectors.
    """

    texts: tuple[str, ...]
    about: Mapping[str, Any]
    teacher: TextTeacher | None = None

    @property
    def contents(self) -> dict[str, str]:
        """What a run's key has of them."""
        return {"item texts": texts_digest(self.texts)}

    def vectors(self, config: StudentConfig, data: SequenceData, work: Path) -> ItemVectors:
        """Their vectors; those of a killed training, in its folder ``work``, are taken as they are."""
        folder = work / VECTORS_FOLDER
        if folder.is_dir():
            return ItemVectors.load(folder, self.teacher, config.device)
        found = ItemVectors.fit(config, self.texts, data.trained, self.teacher, config.device)
        found.save(folder)
        return found


def student_texts(config: StudentConfig, data: SequenceData, teacher: TextTeacher | None = None) -> StudentTexts | None:
    """The texts that the options name; None where embeddings are drawn.

    Raises InputError, before any model is read, where a column is unknown or a view lacks something.
    """
    if not config.starts_from_texts:
        return None
    texts = item_texts(data.titles, data.item_columns, config.item_text, config.text_template)
    build_views(config, view_context(config.device, teacher))
    return StudentTexts(texts, about_texts(config, data), teacher)


def about_texts(config: StudentConfig, data: SequenceData) -> dict[str, Any]:
    """How the options make an item's text, so that a new item's can be made alike."""
    return texts_made_of(data.item_columns, config.item_text, config.text_template)


def as_tensors(vectors: ItemVectors | None, data: SequenceData) -> TextVectors | None:
    """The vectors as a student takes them."""
    if vectors is None:
        return None
    return TextVectors(torch.from_numpy(vectors.table), torch.as_tensor(data.trained))


def keep_trained(
    run: StepRun,
    config: StudentConfig,
    data: SequenceData,
    fitted: Fitted,
    texts: StudentTexts | None,
    vectors: ItemVectors | None,
    terms: str = "",
) -> None:
    """Keep a trained student as `keep_student` does, with what maps further texts into it, where it has that."""
    if vectors is not None:
        costs = vectors.costs.values()
        run.log_metrics({"views/text_tokens": sum(one.tokens for one in costs)})
        run.log_metrics({"views/text_seconds": sum(one.seconds for one in costs)})
    served, beside, terms = served_student(fitted.model, fitted.shape, texts, vectors, terms)
    keep_student(run, config, data, replace(fitted, model=served), beside, terms)


def served_student(
    model: Recommender, shape: StudentShape, texts: StudentTexts | None, vectors: ItemVectors | None, terms: str
) -> tuple[Recommender, Beside | None, str]:
    """The student as it is served, what writes the vectors beside it, and the terms of all models it was made with.

    One that keeps no map from texts, as where it has an output layer of its own, is served as it is.
    """
    if texts is None or vectors is None:
        return model, None, terms
    terms = joined_terms(terms, *vectors.terms)
    assert isinstance(model, Student)
    if not has_own_map(model):
        return model, None, terms
    served = with_own_map(model, shape, texts.about, vectors.identity)
    return served, lambda folder: vectors.save(folder / VECTORS_FOLDER), terms
