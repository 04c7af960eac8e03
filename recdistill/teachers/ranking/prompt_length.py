"""Whether the LLM has positions for the longest prompt: said before it is trained, not in the middle."""

from collections.abc import Sequence

import numpy as np

from recdistill.config import TeacherConfig
from recdistill.data.samples import Samples
from recdistill.errors import InputError
from recdistill.steps.teacher_scoring import Scorer
from recdistill.teachers.ilora.titles import TitleTokens


def check_prompts(config: TeacherConfig, scorer: Scorer, most_tokens: int | None) -> None:
    """Raise InputError, naming the option to lower, where a prompt has more than ``most_tokens`` (None: any number)."""
    if most_tokens is None:
        return
    data, titles = scorer.data, scorer.teacher.titles
    parts = (data.train, data.validation, data.test)
    samples_a_prompt = scorer.stride if config.packing else 1
    count = min(scorer.window, samples_a_prompt + config.teacher_history - 1)
    longest = longest_prompt(titles, parts, count)
    if longest <= most_tokens:
        return
    fitting = next((one for one in range(count - 1, 0, -1) if longest_prompt(titles, parts, one) <= most_tokens), 0)
    if not fitting:
        raise InputError(f"llm={config.llm}: reads {most_tokens} tokens, and a title alone takes more; choose another")
    options = ["teacher_history"] if not config.packing or fitting < config.teacher_history else []
    options += ["teacher_window"] if config.packing else []
    raise InputError(
        f"{options[-1]}={getattr(config, options[-1])}: makes prompts of up to {longest} tokens, and llm={config.llm} "
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
