"""Serving: from histories of item ids to recommended items."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from recdistill.errors import InputError
from recdistill.registry import part_errors
from recdistill.students.recommender import ClosedForm, Recommender

MAX_SCORES = 1 << 24  # scores held at a time: 64 MiB in float32
ROWS = 256  # histories scored at a time, fewer where the catalogue is very large; more fall out of the cache


@dataclass(frozen=True)
class Recommendation:
    """The answer to one history.

    Attributes:
        items: positions in the catalogue, best first; fewer than asked for where no more are left.
        scores: the recommender's score of each; in a fallback, how often each is a training target.
        unknown: items of the history that are not in the catalogue and were skipped.
        fallback: whether no known item was left, so that the most popular items are recommended.
    """

    items: list[int]
    scores: list[float]
    unknown: int
    fallback: bool


class ItemRecommender:
    """A recommender with the ids of its items.

    Args:
        recommender: on any device, in evaluation mode; a student without its teacher (saved with ``fold=True``).
        item_ids: V ids, as the source of the data writes them.
        item_count: int64 [V], how often each item is a training target.
        exclude_seen: leave out the items of the whole history, as the recommender was evaluated.
        retired: positions of items that are never recommended; a history may hold them.

    Raises:
        InputError: ids or counts do not fit the recommender.
    """

    def __init__(
        self,
        recommender: Recommender,
        item_ids: Sequence[str],
        item_count: Sequence[int],
        exclude_seen: bool = True,
        retired: Collection[int] = (),
    ) -> None:
        if not len(item_ids) == len(item_count) == recommender.num_items:
            raise InputError(
                f"{len(item_ids)} item ids and {len(item_count)} counts for a student of {recommender.num_items} "
                "items; give one of each an item"
            )
        self.recommender = recommender
        self.item_count = np.asarray(item_count, dtype=np.int64)
        self.exclude_seen = exclude_seen
        self.position = {item_id: position for position, item_id in enumerate(item_ids)}
        self.retired = torch.tensor(sorted(retired), dtype=torch.int64)
        is_gone = set(retired)
        # Equal counts in catalogue order.
        by_popularity = np.argsort(-self.item_count, kind="stable").tolist()
        self.by_popularity = [item for item in by_popularity if item not in is_gone]

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: Sequence[int],
        exclude: Sequence[Collection[str]],
        allowed: Sequence[Collection[str] | None] | None = None,
    ) -> list[Recommendation]:
        """The ``k[i]`` best items after each of B histories, oldest item first.

        Items that the catalogue lacks are skipped, in ``exclude`` too. A history without a known item gets the
        most popular items.

        Args:
            histories: B lists of item ids; the last ``max_length`` known ones are read.
            k: B numbers of at least 1.
            exclude: B collections of item ids never to recommend.
            allowed: B collections of the only item ids to recommend, None for all of the catalogue.
        """
        known = [self.known(history) for history in histories]
        banned = [self.known(items) for items in exclude]
        only = [None if items is None else self.known(items) for items in allowed or [None] * len(known)]
        answers: list[Recommendation | None] = [None] * len(known)
        for index, history in enumerate(known):
            if not history:
                answers[index] = self.most_popular(k[index], set(banned[index]), len(histories[index]), only[index])
        # Of like lengths together, so that short histories are not padded to long ones.
        scored = sorted((index for index, history in enumerate(known) if history), key=lambda one: len(known[one]))
        step = max(1, min(ROWS, MAX_SCORES // len(self.position)))
        for begin in range(0, len(scored), step):
            chunk = scored[begin : begin + step]
            left_out = [known[one] + banned[one] if self.exclude_seen else banned[one] for one in chunk]
            most = max(k[one] for one in chunk)
            ranked = self.rank([known[one] for one in chunk], most, left_out, [only[one] for one in chunk])
            for one, (items, scores) in zip(chunk, ranked, strict=True):
                unknown = len(histories[one]) - len(known[one])
                answers[one] = Recommendation(items[: k[one]], scores[: k[one]], unknown, fallback=False)
        return [answer for answer in answers if answer is not None]

    def known(self, item_ids: Collection[str]) -> list[int]:
        """Positions of the items that the catalogue has."""
        found = (self.position.get(item_id.strip()) for item_id in item_ids)
        return [position for position in found if position is not None]

    @torch.inference_mode()
    @part_errors()
    def rank(
        self,
        histories: Sequence[list[int]],
        k: int,
        left_out: Sequence[list[int]],
        allowed: Sequence[list[int] | None],
    ) -> list[tuple[list[int], list[float]]]:
        """The ``k`` best positions and their scores, of histories that are not empty; arguments by position."""
        # One in closed form reads a history whole, however long.
        most = None if isinstance(self.recommender, ClosedForm) else -self.recommender.max_length
        windows = [history[most:] for history in histories]
        lengths = torch.tensor([len(window) for window in windows])
        width = int(lengths.max())
        padded = torch.full((len(windows), width), self.recommender.num_items)
        padded[torch.arange(width) < lengths[:, None]] = torch.tensor(list(chain.from_iterable(windows)))
        # The answers are made on the CPU, wherever the recommender computes.
        device = device_of_model(self.recommender)
        scores = self.recommender.scores(padded.to(device), lengths.to(device)).cpu()
        for row, items in enumerate(allowed):
            if items is not None:
                kept = scores[row, items]
                scores[row] = -torch.inf
                scores[row, items] = kept
        scores[:, self.retired] = -torch.inf
        rows = np.repeat(np.arange(len(left_out)), [len(items) for items in left_out])
        scores[
            torch.from_numpy(rows), torch.tensor(list(chain.from_iterable(left_out)), dtype=torch.int64)
        ] = -torch.inf
        best = scores.topk(min(k, scores.shape[1]), dim=1)
        return [
            (items[:left], values[:left])
            for items, values, left in zip(
                best.indices.tolist(), best.values.tolist(), best.values.isfinite().sum(dim=1).tolist(), strict=True
            )
        ]

    def most_popular(self, k: int, left_out: set[int], unknown: int, allowed: list[int] | None) -> Recommendation:
        """The ``k`` most frequent training targets, of those allowed."""
        only = None if allowed is None else set(allowed)
        items: list[int] = []
        for item in self.by_popularity:
            if len(items) == k:
                break
            if item not in left_out and (only is None or item in only):
                items.append(item)
        return Recommendation(items, self.item_count[items].astype(float).tolist(), unknown, fallback=True)


def device_of_model(recommender: Recommender) -> torch.device:
    """Where a recommender lies; the CPU for one without tensors."""
    found = next(chain(recommender.parameters(), recommender.buffers()), None)
    return torch.device("cpu") if found is None else found.device
