"""How a causal LLM reads an item's text alone: the tokens that it is given, and those whose states are its vector.

Readings:

- ``mean``: the mean of the text's last hidden states.
- ``prompt``: the state that would say the text in one word (Jiang et al. 2023, arXiv 2307.16645).
- ``echo``: the text is given twice, and the mean is of the second time, when each token has seen all others (Springer
  et al. 2024, arXiv 2402.15449).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recdistill.teachers.ilora.titles import Int64Array

#: What stands before a text, between it and its repetition, and after it, by reading.
TEMPLATES: dict[str, tuple[str, str, str]] = {
    "mean": ("", "", ""),
    "prompt": ('This item: "', "", '" means in one word: "'),
    "echo": ("Rewrite the description:", "\nRewritten description:", ""),
}


@dataclass(frozen=True, eq=False)
class TextTokens:
    """Token ids of V texts as they are read, one after another.

    Attributes:
        tokens: int64 [sum of lengths].
        start: int64 [V+1]; text i is read as ``tokens[start[i]:start[i + 1]]``.
        read: int64 [V], the number of last tokens whose states are averaged, at least one.
        padding: id that fills rows up.
    """

    tokens: Int64Array
    start: Int64Array
    read: Int64Array
    padding: int

    @property
    def lengths(self) -> Int64Array:
        """Tokens read for each text, int64 [V]."""
        return np.diff(self.start)


class TextReader:
    """Makes the tokens of texts.

    Args:
        tokenizer: of transformers, with a padding token.
        reading: one of `TEMPLATES`.
        most_tokens: of a text itself; the rest is cut off.
        context: that the LLM reads at most; None where there is no limit.
    """

    def __init__(self, tokenizer: Any, reading: str, most_tokens: int, context: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._padding = int(tokenizer.pad_token_id)
        before, self._between, self._after = (self._ids(part) for part in TEMPLATES[reading])
        self._head = begin_tokens(tokenizer) + before
        self._copies = 2 if self._between else 1
        around = len(self._head) + len(self._between) + len(self._after)
        room = most_tokens if context is None else (context - around) // self._copies
        self._most = max(1, min(most_tokens, room))

    def __call__(self, text: str) -> tuple[list[int], int]:
        """Tokens that are read for a text, and how many of the last of them its states are averaged over."""
        # A blank text is read as a space, or as the padding token where a space is none.
        own = (self._ids(f" {text}") or [self._padding])[: self._most]
        if self._copies == 2:
            return [*self._head, *own, *self._between, *own], len(own)
        return [*self._head, *own, *self._after], 1 if self._after else len(own)

    def all(self, texts: Sequence[str]) -> TextTokens:
        """The tokens of V texts."""
        rows = [self(text) for text in texts]
        lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)
        return TextTokens(
            tokens=np.concatenate([np.asarray(ids, dtype=np.int64) for ids, _ in rows]),
            start=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            read=np.array([read for _, read in rows], dtype=np.int64),
            padding=self._padding,
        )

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def begin_tokens(tokenizer: Any) -> list[int]:
    """The special token that a text begins with: the tokenizer's own, or else its begin or padding token.

    An LLM's first token gathers attention, and its state is far larger than the others' (Xiao et al. 2023, arXiv
    2309.17453): it is no part of a text's mean.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    added = whole[: next((place for place, one in enumerate(whole) if one == plain[0]), 0)]
    return list(added) or [
        int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.pad_token_id)
    ]
