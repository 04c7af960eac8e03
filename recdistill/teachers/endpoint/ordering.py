"""The question about a sample, and the order of candidates that an answer to it names.

The candidates are numbered and the answer is asked for as numbers, as in RankGPT (Sun et al. 2023, arXiv 2304.09542).
Answers that list titles instead are read by the titles.
"""

import re
from collections.abc import Sequence

QUESTION = (
    "A user has chosen these, in this order, the last one most recently:\n{history}\n\n"
    "Candidates for what the user chooses next:\n{candidates}\n\n"
    "Order all {count} candidates, the most likely next choice first. "
    "Answer with their numbers alone, as [2] > [1] > [3]."
)
IN_BRACKETS = re.compile(r"\[\s*(\d+)\s*\]")
NUMBERS_ALONE = re.compile(r"[\d\s,;>.]+")
#: A longer number is no place.
MOST_DIGITS = 9


def question(history: Sequence[str], candidates: Sequence[str]) -> str:
    """The text that asks to order candidates.

    Args:
        history: titles, oldest first.
        candidates: titles, numbered from 1 in the question.
    """
    return QUESTION.format(
        history="\n".join(f"- {title}" for title in history),
        candidates="\n".join(f"[{number}] {title}" for number, title in enumerate(candidates, start=1)),
        count=len(candidates),
    )


def order_named(answer: str, candidates: Sequence[str]) -> list[int]:
    """Places of the candidates that an answer names, the first named first, each once; none where it names none.

    Read as numbers in brackets; else as numbers, where there is nothing else; else as titles.
    """
    answer = answer.strip()
    numbers = IN_BRACKETS.findall(answer)
    if not numbers and NUMBERS_ALONE.fullmatch(answer):
        numbers = re.findall(r"\d+", answer)
    if numbers:
        # An LLM may repeat a digit thousands of times.
        places = [int(number) - 1 for number in numbers if len(number) <= MOST_DIGITS]
        return list(dict.fromkeys(place for place in places if 0 <= place < len(candidates)))
    return titles_named(answer, candidates)


def titles_named(answer: str, candidates: Sequence[str]) -> list[int]:
    """Places of the candidates whose titles occur in a text, in the order of their first occurrence."""
    text = answer.casefold()
    found: dict[int, int] = {}
    # The longest first: a title that is part of another one is not named by it.
    for place in sorted(range(len(candidates)), key=lambda place: -len(candidates[place])):
        title = candidates[place].strip().casefold()
        at = re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text) if title else None
        if at is not None:
            found[place] = at.start()
            text = text[: at.start()] + "\n" * (at.end() - at.start()) + text[at.end() :]
    return sorted(found, key=found.__getitem__)
