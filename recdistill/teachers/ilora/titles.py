"""The catalogue's titles as tokens, the pieces of prompts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recdistill.errors import InputError

INSTRUCTION = "The user has chosen, in this order, each title followed by its embedding:"
MAX_TITLE_TOKENS = 48
YEAR = re.compile(r"\s*\(\d{4}\)$")
ARTICLE_LAST = re.compile(r"^(?P<rest>.+), (?P<article>The|A|An)$")

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TitleTokens:
    """Token ids of V titles, one title after another, and of the instruction before them.

    Attributes:
        tokens: int64 [sum of lengths].
        start: int64 [V+1]; title i is ``tokens[start[i]:start[i + 1]]``.
        instruction: int64 [P], the tokens that every prompt begins with.
        padding: id that fills rows up.
    """

    tokens: Int64Array
    start: Int64Array
    instruction: Int64Array
    padding: int

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each title, its marker not counted, int64 [V]."""
        return np.diff(self.start)


def plain_title(title: str) -> str:
    """The title as it is spoken: ``Net, The (1995)`` is ``The Net``.

    An LLM that reads digits one by one spends more tokens on a film's year than on its name.
    """
    name = YEAR.sub("", title.strip())
    return ARTICLE_LAST.sub(r"\g<article> \g<rest>", name) if name else title


def tokenise_titles(tokenizer: Any, titles: Sequence[str], instruction: str = INSTRUCTION) -> TitleTokens:
    """Tokens of ``" title"`` for each title, at most 48 each.

    Args:
        tokenizer: of transformers, with a padding token.
        titles: V of them.
        instruction: text at the head of a prompt.

    Raises:
        InputError: a title gives no token.
    """
    encoded = tokenizer([f" {title}" for title in titles], add_special_tokens=False)["input_ids"]
    empty = [title for title, ids in zip(titles, encoded, strict=True) if not ids]
    if empty:
        raise InputError(f"title {empty[0]!r} gives no token of this LLM; give every item a title of plain text")
    cut = [ids[:MAX_TITLE_TOKENS] for ids in encoded]
    lengths = np.array([len(ids) for ids in cut], dtype=np.int64)
    head = tokenizer(instruction)["input_ids"]
    return TitleTokens(
        tokens=np.concatenate([np.asarray(ids, dtype=np.int64) for ids in cut]),
        start=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
        instruction=np.asarray(head, dtype=np.int64),
        padding=int(tokenizer.pad_token_id),
    )
