"""Sampled negatives: one a sample for the base loss ``bce``, or many, shared by a batch or of each sample's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import InputError


def sampled_negatives(
    base_loss: str,
    history: Tensor,
    target: Tensor,
    num_items: int,
    generator: torch.Generator | None = None,
    among: Tensor | None = None,
    random: Tensor | None = None,
    options: Sequence[str] = ("base_loss",),
) -> Tensor | None:
    """One item a sample, uniform over those neither in its history nor its target (DLLM2Rec, RecSys 2024).

    Args:
        base_loss: ``ce`` or ``bce``; only ``bce`` needs negatives.
        history: item ids [S, L], in any order, with repeats; padding has the id V.
        target: item ids [S].
        num_items: V.
        generator: of the CPU, so that devices draw alike; None for the global one.
        among: ids int64 [T], each once, that are drawn; None for all V.
        random: `random_numbers` [S], on the CPU; None draws them.
        options: those whose loss asks for negatives, as an error names them.

    Returns:
        Item ids [S], on the device of ``target``; None where the base loss needs none.

    Raises:
        InputError: shapes do not fit, or a sample's history and target hold every item.
    """
    if base_loss != "bce":
        return None
    if history.ndim != 2 or target.shape != history.shape[:1]:
        raise InputError(
            f"history {list(history.shape)} and targets {list(target.shape)} do not fit; give [S, L] and [S]"
        )
    if among is not None:
        # Drawn among T items with ids 0 to T - 1, the others being as padding.
        place = torch.full((num_items + 1,), len(among), device=target.device)
        place[among] = torch.arange(len(among), device=target.device)
        drawn = sampled_negatives(
            base_loss, place[history], place[target], len(among), generator, random=random, options=options
        )
        return None if drawn is None else among[drawn]
    known = torch.cat([history, target.unsqueeze(1)], dim=1).sort(dim=1).values
    distinct = known < num_items
    distinct[:, 1:] &= known[:, 1:] != known[:, :-1]
    unknown = num_items - distinct.sum(dim=1)
    if history.shape[1] + 1 >= num_items and bool((unknown < 1).any()):
        asking, instead = (" and ".join(f"{name}={loss}" for name in options) for loss in ("bce", "ce"))
        raise InputError(f"{asking}: a sample knows all {num_items} items, so it has no negative; set {instead}")
    random = random_numbers(len(target), generator) if random is None else random
    # Far more numbers than items: the remainder is uniform to 1e-12.
    drawn = random.to(target.device, non_blocking=True) % unknown
    # The r-th unknown item is r plus the known ones before it: the j-th, 0-based, is where known_j - j <= r.
    before = known - (distinct.cumsum(dim=1) - 1)
    return drawn + (distinct & (before <= drawn.unsqueeze(1))).sum(dim=1)


def random_numbers(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Whole numbers below 2^62, int64 [count], on the CPU, from which `sampled_negatives` draws."""
    return torch.randint(2**62, (count,), generator=generator)


NegativeSampling = Literal["uniform", "popularity"]


@dataclass(frozen=True)
class Negatives:
    """Items that the samples of a batch have as negatives.

    Attributes:
        items: int64 [N], ascending, each once, that all samples share; or [S, N], each sample's own, in any order, and
            one that was drawn twice stands twice.
        log_weight: [N], the logarithm of how many items each stands for: a sum over the catalogue is estimated, without
            bias, by the sum over these, each times its ``exp(log_weight)``.
        share: ``N / V``.
        least: the smallest ``exp(log_weight)``; None where it is not known, and to be read from the device.
    """

    items: Tensor
    log_weight: Tensor
    share: float
    least: float | None = None

    @property
    def are_shared(self) -> bool:
        """Whether all samples have the same ones."""
        return self.items.ndim == 1

    def of(self, place: Tensor) -> "Negatives":
        """Those of the samples at ``place`` [n]."""
        return self if self.are_shared else replace(self, items=self.items[place])

    def to(self, device: torch.device | str) -> "Negatives":
        """The same negatives on another device, which is not waited for."""
        items, log_weight = (one.to(device, non_blocking=True) for one in (self.items, self.log_weight))
        return replace(self, items=items, log_weight=log_weight)


class NegativeSampler:
    """Draws `Negatives`, a draw a batch.

    Args:
        count: how many are drawn, at least 1.
        sampling: ``uniform``, without replacement where all samples share them, else with it; or ``popularity``, with
            replacement and a probability proportional to an item's count plus one, repeated items being one of a
            greater weight.
        item_count: how often each item is a training target [V].
        among: ids int64 [T], each once, that are drawn; None for all V.

    Raises:
        InputError: the count or the sampling is not valid.
    """

    def __init__(self, count: int, sampling: str, item_count: Tensor, among: Tensor | None = None) -> None:
        if count < 1:
            raise InputError(f"negatives={count}: must be at least 1")
        if sampling not in get_args(NegativeSampling):
            raise InputError(f"negative_sampling={sampling}: must be one of {', '.join(get_args(NegativeSampling))}")
        self.among = (torch.arange(len(item_count)) if among is None else among.cpu()).sort().values
        self.count, self.cumulative = count, None
        if sampling == "popularity":
            weight = item_count.cpu()[self.among].double() + 1
            self.probability = weight / weight.sum()
            self.cumulative = self.probability.cumsum(dim=0)

    def draw(self) -> Negatives:
        """Draw what all samples share, by torch's global generator of the CPU, and there: devices draw alike."""
        total = len(self.among)
        if self.cumulative is None:
            count = min(self.count, total)
            # NumPy's takes a time that does not grow with the catalogue.
            random = np.random.default_rng(int(torch.randint(2**62, ())))
            place = torch.from_numpy(np.sort(random.choice(total, count, replace=False, shuffle=False)))
            log_weight = torch.full((count,), math.log(total / count))
        else:
            drawn = torch.searchsorted(self.cumulative, torch.rand(self.count, dtype=torch.float64), right=True)
            place, times = drawn.clamp_(max=total - 1).unique(return_counts=True)
            log_weight = (times / (self.count * self.probability[place])).log().float()
        return Negatives(self.among[place], log_weight, len(place) / total, float(log_weight.exp().min()))

    def draw_own(self, samples: int) -> Negatives:
        """Draw for each of so many samples, uniformly, by the same generator; all items once where there are no more.

        With replacement, as gSASRec draws, so that time and memory do not grow with the catalogue.
        """
        total = len(self.among)
        if self.count >= total:
            return Negatives(self.among.expand(samples, total), torch.zeros(total), 1.0, 1.0)
        place = torch.randint(total, (samples, self.count))
        log_weight = torch.full((self.count,), math.log(total / self.count))
        return Negatives(self.among[place], log_weight, self.count / total, float(log_weight[:1].exp()))
