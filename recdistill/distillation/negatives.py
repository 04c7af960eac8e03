"""Sampled negatives of the base loss ``bce``: uniform over the items outside a sample's history and target."""

import torch
from torch import Tensor

from recdistill.errors import InputError


def sampled_negatives(
    base_loss: str, history: Tensor, target: Tensor, num_items: int, generator: torch.Generator | None = None
) -> Tensor | None:
    """One item a sample, uniform over those neither in its history nor its target (DLLM2Rec, RecSys 2024).

    Args:
        base_loss: ``ce`` or ``bce``; only ``bce`` needs negatives.
        history: item ids [S, L], in any order, with repeats; padding has the id V.
        target: item ids [S].
        num_items: V.
        generator: of the CPU, so that devices draw alike; None for the global one.

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
    known = torch.cat([history, target.unsqueeze(1)], dim=1).sort(dim=1).values
    distinct = known < num_items
    distinct[:, 1:] &= known[:, 1:] != known[:, :-1]
    unknown = num_items - distinct.sum(dim=1)
    if history.shape[1] + 1 >= num_items and bool((unknown < 1).any()):
        raise InputError(f"a sample knows all {num_items} items, so it has no negative; use base_loss=ce")
    # Far more numbers than items: the remainder is uniform to 1e-12.
    drawn = torch.randint(2**62, target.shape, generator=generator).to(target.device) % unknown
    # The r-th unknown item is r plus the known ones before it: the j-th, 0-based, is where known_j - j <= r.
    before = known - (distinct.cumsum(dim=1) - 1)
    return drawn + (distinct & (before <= drawn.unsqueeze(1))).sum(dim=1)
