"""A token trie over candidate titles: the tokens allowed after the beginning of an answer, so that all are valid."""

from collections.abc import Sequence
from typing import Any


class TitleTrie:
    """The answers that name one of K candidates, as a tree of tokens.

    Args:
        answers: K sequences of token ids, each ending in the same closing token that stands nowhere else in them.
        padding: the token that alone may follow a whole answer.
    """

    def __init__(self, answers: Sequence[Sequence[int]], padding: int) -> None:
        self.padding = padding
        self._root: dict[int, Any] = {}
        self._place: dict[tuple[int, ...], int] = {}
        for place, answer in enumerate(answers):
            node = self._root
            for token in answer:
                node = node.setdefault(int(token), {})
            # Candidates of one title are not told apart: the first stands for them.
            self._place.setdefault(tuple(map(int, answer)), place)

    def allowed(self, begun: Sequence[int]) -> list[int]:
        """Tokens that may come after ``begun``, which itself came about by this rule; never none."""
        node = self._root
        for token in begun:
            node = node.get(int(token), {})
        return list(node) or [self.padding]

    def place(self, answer: Sequence[int]) -> int:
        """Position of the candidate whose whole answer this is. Raises KeyError for any other sequence."""
        return self._place[tuple(map(int, answer))]
