import torch

from recdistill.distillation.policies.ground_truth_error import ground_truth_error


def test_takes_the_largest_losses_on_the_target(signals, takes_the_best):
    takes_the_best("ground_truth_error", signals, signals.student_loss.tolist())
    assert torch.equal(ground_truth_error(signals), signals.student_loss)
