"""Checks before training that the LLM has positions for the longest candidate prompt and its answer."""

from typing import TYPE_CHECKING

import numpy as np

from recdistill.config import TeacherConfig
from recdistill.errors import InputError
from recdistill.teachers.generative.answers import most_free_tokens

if TYPE_CHECKING:
    from recdistill.teachers.generative.teacher import GenerativeTeacher

#: A title has one token or more, and its marker is one.
FEWEST_TOKENS = 2


def check_candidates(config: TeacherConfig, most_tokens: int | None) -> None:
    """Raise InputError where the candidates alone have more than ``most_tokens`` (None: any number), whatever they are.

    A prompt lists them all, and one title of the history.
    """
    candidates = config.value("candidates")
    fewest = FEWEST_TOKENS * (candidates + 1)
    if most_tokens is not None and fewest > most_tokens:
        raise InputError(
            f"candidates={candidates}: makes prompts of {fewest} tokens or more, and llm={config.llm} reads "
            f"{most_tokens}; lower candidates"
        )


def check_prompts(teacher: "GenerativeTeacher", most_tokens: int | None) -> None:
    """Raise InputError where a prompt that can be drawn has, with its answer, more tokens than the LLM reads."""
    candidates, model = teacher.options.candidates, teacher.model
    sizes = np.sort(model.parts.titles.lengths + 1)[::-1]
    listed = sizes[:candidates].sum() + sizes[0] * teacher.context
    around = max(sum(map(len, template)) for template in model.parts.templates)
    longest = int(around + listed) + most_free_tokens(model)
    if most_tokens is not None and longest > most_tokens:
        raise InputError(
            f"candidates={candidates}: makes prompts of up to {longest} tokens, and llm={teacher.config.llm} reads "
            f"{most_tokens}; lower candidates or teacher_history"
        )
