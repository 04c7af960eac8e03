"""Checks before training that the LLM has positions for the longest packed prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recdistill.config import TeacherConfig
from recdistill.data.samples import Samples
from recdistill.errors import InputError
from recdistill.teachers.ilora.titles import TitleTokens

if TYPE_CHECKING:
    from recdistill.teachers.ranking.teacher import RankingTeacher

#: A title has one token or more, and its marker is one.
FEWEST_TOKENS = 2


def check_window(config: TeacherConfig, max_length: int, most_tokens: int | None) -> None:
    """Raise InputError where a packed prompt has more than ``most_tokens`` (None: any number), whatever its titles.

    Args:
        config: the options.
        max_length: items that the backbone reads.
        most_tokens: that the LLM reads.
    """
    titles = min(config.value("teacher_window"), max_length)
    if most_tokens is None or FEWEST_TOKENS * titles <= most_tokens:
        return
    fitting = most_tokens // FEWEST_TOKENS
    options = [*(["teacher_history"] if fitting < config.teacher_history else []), "teacher_window"]
    raise InputError(
        f"teacher_window={config.value('teacher_window')}: makes prompts of {FEWEST_TOKENS * titles} tokens or more, "
        f"and llm={config.llm} reads {most_tokens}; set {' and '.join(options)} to {fitting} at most"
    )


def check_prompts(teacher: "RankingTeacher", most_tokens: int | None) -> None:
    """Raise InputError, naming the option to lower, where a prompt has more than ``most_tokens`` (None: any number)."""
    if most_tokens is None:
        return
    config, data, titles = teacher.config, teacher.data, teacher.model.titles
    parts = (data.train, data.validation, data.test)
    count = min(teacher.window, teacher.stride + config.teacher_history - 1)
    longest = longest_prompt(titles, parts, count)
    if longest <= most_tokens:
        return
    fitting = next((one for one in range(count - 1, 0, -1) if longest_prompt(titles, parts, one) <= most_tokens), 0)
    if not fitting:
        raise InputError(f"llm={config.llm}: reads {most_tokens} tokens, and a title alone takes more; choose another")
    packing = config.value("packing")
    options = ["teacher_history"] if not packing or fitting < config.teacher_history else []
    options += ["teacher_window"] if packing else []
    raise InputError(
        f"{options[-1]}={config.value(options[-1])}: makes prompts of up to {longest} tokens, and llm={config.llm} "
        f"reads {most_tokens}; set {' and '.join(options)} to {fitting} at most"
    )


def longest_prompt(titles: TitleTokens, parts: Sequence[Samples], count: int) -> int:
    """Tokens of the longest prompt over the last ``count`` titles of a sample's history."""
    size = titles.lengths + 1  # the title and its marker
    longest = 0
    for samples in parts:
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(size[samples.items])])
        begin = np.maximum(samples.start, samples.end - count)
        longest = max(longest, int((before[samples.end] - before[begin]).max()))
    return len(titles.instruction) + longest
