import dataclasses

import torch

from recdistill.distillation.policies.random import random_samples
from recdistill.distillation.selection import select


def test_is_a_permutation_by_the_seed(signals):
    scores = random_samples(signals)
    assert sorted(scores.tolist()) == list(range(len(signals.target)))
    assert torch.equal(scores, random_samples(signals))
    assert not torch.equal(scores, random_samples(dataclasses.replace(signals, seed=1)))


def test_the_seed_of_the_signals_holds_where_none_is_given(signals):
    seeded = dataclasses.replace(signals, seed=11)
    assert torch.equal(select("random", seeded, 0.5), select("random", signals, 0.5, seed=11))
    assert not torch.equal(select("random", seeded, 0.5), select("random", seeded, 0.5, seed=12))
    assert not torch.equal(select("random", signals, 0.5, seed=0), select("random", signals, 0.5, seed=1))
