import math
from dataclasses import replace

import torch

from recdistill.distillation.policies.kl_divergence import kl_divergence


def test_takes_the_largest_disagreement_of_both_softened(signals, takes_the_best):
    def divergence(i):
        teacher = [math.exp(-d / 0.5) for d in signals.distance[i].tolist()]
        student = [math.exp(x / 0.5) for x in signals.candidate_log_probs[i].tolist()]
        pairs = zip(teacher, student, strict=True)
        return sum(t / sum(teacher) * math.log(t / sum(teacher) / (s / sum(student))) for t, s in pairs)

    expected = [divergence(i) for i in range(len(signals.target))]
    takes_the_best("kl_divergence", signals, expected)
    torch.testing.assert_close(kl_divergence(signals), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_a_large_temperature_orders_in_float32_as_in_float64(signals):
    signals = replace(signals, temperature=1e5)
    exact = replace(
        signals, distance=signals.distance.double(), candidate_log_probs=signals.candidate_log_probs.double()
    )
    found, expected = kl_divergence(signals), kl_divergence(exact)
    assert found.dtype == signals.student_loss.dtype
    row = signals.eligible
    assert bool((found[row] > 0).all())
    assert torch.equal(found[row].argsort(), expected[row].argsort())
