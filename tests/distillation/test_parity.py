"""Every value and every gradient in the parity files of the losses, in both modes and both precisions."""

import pytest
import torch
from torch import Tensor

from recdistill.distillation.fused import fused_loss
from recdistill.distillation.losses import (
    base_loss,
    candidate_weights,
    confidence_weights,
    consistency_weights,
    dro,
    plain_loss,
    position_weights,
    ranking_distillation,
)
from recdistill.distillation.propensity import propensity
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch

INPUTS = {"logits", "target", "negative", "candidates", "confidence", "item_count"}


def ours(released, dtype: torch.dtype, objective=fused_loss) -> dict[str, Tensor]:
    """Everything that the files hold beside inputs, computed from the inputs alone."""
    logits, distance = released["logits"].to(dtype), released["confidence"].to(dtype)
    target, negative, candidates = (released[name] for name in ("target", "negative", "candidates"))
    weight_of_items = propensity(released["item_count"])
    settings = released.settings
    importance = candidate_weights(logits, candidates, distance, **released.gammas())
    found = {
        "propensity": weight_of_items,
        "bce": base_loss(logits, target, "bce", negative),
        "dro_per_sample": dro(logits, weight_of_items, target, settings["beta"]),
        "weight_position": position_weights(candidates.shape[1]).to(dtype).expand_as(distance),
        "weight_confidence": confidence_weights(distance),
        "weight_consistency": consistency_weights(logits, candidates),
        "weight": importance,
    }
    for mode in ("per_sample", "released"):
        leaf = logits.clone().requires_grad_()
        losses = objective(
            ObjectiveSettings(
                base_loss="bce",
                lam=settings["lam"],
                alpha=settings["alpha"],
                beta=settings["beta"],
                release_compat=mode == "released",
                **released.gammas(),
            ),
            leaf,
            target,
            TeacherBatch(candidates, distance, torch.ones(len(target), dtype=torch.bool)),
            negative=negative,
            propensity=weight_of_items,
        )
        losses["total"].backward()
        alone = ranking_distillation(
            logits,
            candidates,
            importance,
            kind="bce",
            negative=negative,
            propensity=weight_of_items,
            alpha=settings["alpha"],
            beta=settings["beta"],
            release_compat=mode == "released",
        )
        torch.testing.assert_close(losses["ranking"], alone, rtol=1e-6, atol=0)
        found |= {f"total_{mode}": losses["total"].detach(), f"ranking_{mode}": alone}
        found[f"grad_total_{mode}"] = leaf.grad
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest number of its row: slopes are differences of larger ones."""
    found, expected = (
        tensor.double().reshape(-1, tensor.shape[-1] if tensor.ndim else 1) for tensor in (found, expected)
    )
    return ((found - expected).abs().amax(1) / expected.abs().amax(1)).max().item()


@pytest.mark.parametrize("objective", [fused_loss, plain_loss], ids=["fused", "plain"])
def test_nothing_in_the_files_is_left_out(objective, released, dtype, tolerance):
    found = ours(released, dtype, objective)
    expected = set(released.tensors) - INPUTS
    assert expected >= {"propensity", "bce", "dro_per_sample", "weight", "total_per_sample", "grad_total_per_sample"}
    assert expected <= set(found)
    for name in sorted(expected):
        assert found[name].shape == released[name].shape, name
        error = relative_error(found[name], released[name])
        assert error < tolerance, f"{name}: {error:.1e}"
        assert bool(torch.isfinite(found[name]).all()), name


def test_the_two_modes_differ(released_with_defects):
    """Else agreement with both would say little."""
    found = ours(released_with_defects, torch.float64)
    for name in ("total", "ranking", "grad_total"):
        assert relative_error(found[f"{name}_released"], found[f"{name}_per_sample"]) > 1e-3, name


def test_only_the_overflowing_file_lacks_the_released_mode(released):
    assert ("total_released" in released.tensors) == (released["logits"].abs().max().item() < 25)
