import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from recdistill.distillation import vocabulary
from recdistill.distillation.fused import fused_loss
from recdistill.distillation.losses import base_loss, dro, plain_loss
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError

SETTINGS = {
    "alpha": 0.5,
    "beta": 1.0,
    "lam": 0.7,
    "gamma_position": 0.3,
    "gamma_confidence": 0.5,
    "gamma_consistency": 0.1,
    "temperature": 1.0,
}
INPUTS = ("logits", "target", "negative", "propensity", "excluded")


# The few are computed apart from the others, the many with them.
FEW_AND_MANY = [[True, False, False] * 2, [False, True, True] * 2]
BOTH = pytest.mark.parametrize("function", [fused_loss, plain_loss], ids=["fused", "plain"])


def make_problem(seed, samples=6, items=40, count=5, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(items, generator=generator)[:count] for _ in range(samples)])
    target = torch.randint(items, (samples,), generator=generator)
    target[0] = ids[0, 2]  # the teacher is often right
    return {
        "logits": scale * torch.randn(samples, items, generator=generator, dtype=torch.float64),
        "target": target,
        "negative": torch.randint(items, (samples,), generator=generator),
        "candidates": ids,
        "distance": 3 * torch.rand(samples, count, generator=generator, dtype=torch.float64),
        "propensity": torch.rand(items, generator=generator, dtype=torch.float64) * 0.5 + 0.4,
        "distilled": torch.rand(samples, generator=generator) < 0.6,
    }


def loss_of(problem, function=fused_loss, base="ce", **changed):
    given = problem | SETTINGS | {"base_loss": base, "excluded": None} | changed
    inputs = {name: given.pop(name) for name in INPUTS}
    candidates, distance, distilled = (given.pop(name) for name in ("candidates", "distance", "distilled"))
    teacher = None if candidates is None else TeacherBatch(candidates, distance, distilled)
    return function(ObjectiveSettings(**given), inputs.pop("logits"), inputs.pop("target"), teacher, **inputs)


def loss_and_gradient(problem, function=fused_loss, **changed):
    logits = problem["logits"].clone().requires_grad_()
    losses = loss_of(problem | {"logits": logits}, function, **changed)
    losses["total"].backward()
    return losses, logits.grad


def excluded_of(problem, seed=5):
    """Rows and items of histories that hold some targets and candidates too."""
    shape = problem["logits"].shape
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    return mask, mask.nonzero(as_tuple=True)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**31),
    st.sampled_from([torch.float64, torch.float32]),
    st.sampled_from(["ce", "bce"]),
    st.sampled_from(["base", "bce", "ce", "kl"]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.7]),
    st.tuples(*[st.sampled_from([0.0, 0.3])] * 3).filter(any),
    st.floats(0.3, 5),
    st.floats(0.3, 5),
    st.sampled_from([12, 40, 700]),
)
def test_is_the_plain_loss_for_all_settings(
    seed, dtype, base, ranking_loss, base_weight, compat, exclude, share, alpha, lam, gammas, beta, temperature, items
):
    problem = make_problem(seed, items=items)
    problem["logits"] = problem["logits"].to(dtype)
    problem["distilled"] = torch.rand(6, generator=torch.Generator().manual_seed(seed)) < share
    changed = {
        "base": base,
        "ranking_loss": ranking_loss,
        "base_weight": base_weight,
        "release_compat": compat,
        "excluded": excluded_of(problem, seed)[1] if exclude else None,
        "alpha": alpha,
        "lam": lam,
        "gamma_position": gammas[0],
        "gamma_confidence": gammas[1],
        "gamma_consistency": gammas[2],
        "beta": beta,
        "temperature": temperature,
    }
    found, gradient = loss_and_gradient(problem, **changed)
    expected, plain_gradient = loss_and_gradient(problem, plain_loss, **changed)
    assert set(found) == set(expected)
    rtol = 1e-11 if dtype == torch.float64 else 1e-4
    for name, value in expected.items():
        assert value.dtype == dtype
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=rtol)
    # Relative to the largest slope: single slopes are differences of larger ones.
    assert (gradient - plain_gradient).abs().max() <= rtol * plain_gradient.abs().max()


def test_half_precision_is_computed_in_float32():
    problem = make_problem(seed=3)
    half = problem | {"logits": problem["logits"].bfloat16()}
    exact = problem | {"logits": half["logits"].float()}
    for function in (fused_loss, plain_loss):
        found = loss_of(half, function, gamma_consistency=0.0)
        expected = loss_of(exact, function, gamma_consistency=0.0)
        torch.testing.assert_close(found["base"], expected["base"])
        torch.testing.assert_close(found["dro"], expected["dro"])
        # The importance of candidates is rounded as the logits are.
        torch.testing.assert_close(found["total"], expected["total"], rtol=5e-3, atol=0)


def parity_problem(released, dtype):
    return {
        "logits": released["logits"].to(dtype),
        "target": released["target"],
        "negative": released["negative"],
        "candidates": released["candidates"],
        "distance": released["confidence"],
        "propensity": released["propensity"],
        "distilled": torch.ones(len(released["target"]), dtype=torch.bool),
    }


def parity_settings(released):
    return {name: value for name, value in released.settings.items() if name != "candidate_topk"} | {"base": "bce"}


def check_against(released, which, losses, gradient, tolerance):
    assert losses["total"].item() == pytest.approx(released[f"total_{which}"].item(), rel=tolerance)
    assert losses["ranking"].item() == pytest.approx(released[f"ranking_{which}"].item(), rel=tolerance)
    expected = released[f"grad_total_{which}"]
    # Relative to each sample's largest slope: single slopes are differences of larger ones.
    error = (gradient.double() - expected).abs().amax(1) / expected.abs().amax(1)
    assert error.max().item() < tolerance


@BOTH
def test_total_and_gradient_are_the_formula_of_the_paper(function, released, dtype, tolerance):
    losses, gradient = loss_and_gradient(parity_problem(released, dtype), function, **parity_settings(released))
    check_against(released, "per_sample", losses, gradient, tolerance)


@BOTH
def test_total_and_gradient_compatible_with_the_release(function, released_with_defects, dtype, tolerance):
    released = released_with_defects
    losses, gradient = loss_and_gradient(
        parity_problem(released, dtype), function, **parity_settings(released), release_compat=True
    )
    check_against(released, "released", losses, gradient, tolerance)


@pytest.mark.parametrize("base", ["ce", "bce"])
@pytest.mark.parametrize("ranking_loss", ["base", "bce", "ce", "kl"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("distilled", FEW_AND_MANY)
@pytest.mark.parametrize(("dtype", "base_weight"), [(torch.float64, 1.0), (torch.float64, 0.4), (torch.float32, 0.4)])
@BOTH
def test_total_is_the_loops(function, base, ranking_loss, alpha, temperature, distilled, dtype, base_weight):
    problem = make_problem(seed=7) | {"distilled": torch.tensor(distilled)}
    problem["logits"] = problem["logits"].to(dtype)
    changed = {"alpha": alpha, "temperature": temperature, "ranking_loss": ranking_loss, "beta": 0.8}
    changed |= {"base_weight": base_weight}
    found = loss_of(problem, function, base, **changed)
    names = ("logits", "target", "negative", "candidates", "distance", "distilled", "propensity")
    expected = oracles.objective(
        *(problem[name].tolist() for name in names),
        base_loss=base,
        alpha=alpha,
        beta=0.8,
        lam=0.7,
        gammas=(0.3, 0.5, 0.1),
        temperature=temperature,
        ranking_loss=ranking_loss,
        base_weight=base_weight,
    )
    rel = 1e-12 if dtype == torch.float64 else 1e-5
    assert found["total"].item() == pytest.approx(expected, rel=rel)
    parts = base_weight * (found["base"] + alpha * found["dro"]) + 0.7 * found["ranking"]
    assert parts.item() == pytest.approx(expected, rel=rel)


@BOTH
def test_without_weight_the_base_loss_has_no_gradient_and_an_old_name_is_the_same_loss(function):
    problem = make_problem(seed=4)
    alone, gradient = loss_and_gradient(problem, function, base_weight=0.0)
    assert alone["total"].item() == pytest.approx(0.7 * alone["ranking"].item(), rel=1e-12)
    both, with_base = loss_and_gradient(problem, function)
    _, of_base = loss_and_gradient(problem, function, lam=0.0)
    torch.testing.assert_close(gradient, with_base - of_base, rtol=1e-9, atol=1e-12)
    assert torch.equal(alone["base"], both["base"])
    named, same = loss_and_gradient(problem, function, ranking_loss="ranking")
    assert torch.equal(named["total"], both["total"])
    assert torch.equal(same, with_base)


@pytest.mark.parametrize("base", ["ce", "bce"])
@pytest.mark.parametrize("ranking_loss", ["base", "bce", "ce", "kl"])
@pytest.mark.parametrize("distilled", FEW_AND_MANY)
def test_gradient_is_that_of_finite_differences(base, ranking_loss, distilled):
    problem = make_problem(seed=3, samples=6, items=12, count=4) | {"distilled": torch.tensor(distilled)}
    # Without consistency, which steps where the top K changes.
    changed = {"gamma_consistency": 0.0, "ranking_loss": ranking_loss, "base_weight": 0.4}
    logits = problem["logits"].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss_of(problem | {"logits": z}, base=base, **changed)["total"], logits)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(["ce", "bce"]), st.sampled_from(["ranking", "kl"]))
def test_order_of_samples_and_of_items_does_not_matter(seed, base, ranking_loss):
    problem = make_problem(seed)
    expected, gradient = loss_and_gradient(problem, base=base, ranking_loss=ranking_loss)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(problem["target"]), generator=generator)
    columns = torch.randperm(problem["logits"].shape[1], generator=generator)
    moved = {name: value[rows] for name, value in problem.items() if name != "propensity"}
    moved["propensity"] = problem["propensity"][columns]
    moved["logits"] = moved["logits"][:, columns]
    for name in ("target", "negative", "candidates"):
        moved[name] = torch.argsort(columns)[moved[name]]
    found, moved_gradient = loss_and_gradient(moved, base=base, ranking_loss=ranking_loss)
    torch.testing.assert_close(found["total"], expected["total"])
    torch.testing.assert_close(moved_gradient, gradient[rows][:, columns])


@pytest.mark.parametrize("base", ["ce", "bce"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_without_ranking_the_loss_is_bit_for_bit_the_undistilled_one(base, alpha):
    problem = make_problem(seed=1) | {"lam": 0.0}
    undistilled = {"candidates": None, "distance": None, "distilled": None}
    expected, gradient = loss_and_gradient(problem | undistilled, base=base, alpha=alpha, lam=0.0)
    found, same_gradient = loss_and_gradient(problem, base=base, alpha=alpha, lam=0.0)
    assert torch.equal(found["total"], expected["total"])
    assert torch.equal(gradient, same_gradient)
    assert found["ranking"].item() == 0
    logits, target = problem["logits"], problem["target"]
    plain = base_loss(logits, target, base, problem["negative"])
    if alpha:
        plain = plain + alpha * dro(logits, problem["propensity"], target, 1.0).mean()
    torch.testing.assert_close(found["total"], plain)


@pytest.mark.parametrize("base", ["ce", "bce"])
def test_without_alpha_no_robust_term_is_computed(base, monkeypatch):
    problem = make_problem(seed=4)
    expected, gradient = loss_and_gradient(problem, base=base, alpha=0.0)

    def refuse(*_, **__):
        raise AssertionError("the robust term was computed")

    monkeypatch.setattr(vocabulary, "robust_block", refuse)
    monkeypatch.setattr(vocabulary, "robust_terms", refuse)
    with pytest.raises(AssertionError, match="was computed"):
        loss_and_gradient(problem, base=base, alpha=0.1)
    found, same_gradient = loss_and_gradient(problem, base=base, alpha=0.0, propensity=None)
    assert torch.equal(found["total"], expected["total"])
    assert torch.equal(gradient, same_gradient)
    assert found["dro"].item() == 0


@pytest.mark.parametrize("ranking_loss", ["base", "bce", "ce", "kl"])
@BOTH
def test_samples_that_are_not_distilled_carry_no_ranking_term(function, ranking_loss):
    problem = make_problem(seed=9)
    chosen = problem["distilled"]
    found, gradient = loss_and_gradient(problem, function, ranking_loss=ranking_loss)
    # What the teacher holds for the others is not read, were it no item at all.
    garbage = dict(problem)
    garbage["candidates"] = torch.where(chosen.unsqueeze(1), problem["candidates"], -7)
    garbage["distance"] = torch.where(chosen.unsqueeze(1), problem["distance"], float("nan"))
    same, same_gradient = loss_and_gradient(garbage, function, ranking_loss=ranking_loss)
    assert torch.equal(found["total"], same["total"])
    assert torch.equal(gradient, same_gradient)
    # Their gradient is that of a training without ranking; that of the others is not.
    _, undistilled = loss_and_gradient(problem, function, lam=0.0)
    torch.testing.assert_close(gradient[~chosen], undistilled[~chosen])
    assert (gradient[chosen] - undistilled[chosen]).abs().amax(1).min() > 1e-6
    # The mean is over all: the others count 0.
    subset = {name: value[chosen] for name, value in problem.items() if name != "propensity"}
    subset["propensity"] = problem["propensity"]
    alone = loss_of(subset, function, ranking_loss=ranking_loss)
    torch.testing.assert_close(found["ranking"], alone["ranking"] * chosen.float().mean())


@pytest.mark.parametrize("ranking_loss", ["base", "bce", "ce", "kl"])
@pytest.mark.parametrize("release_compat", [True, False])
@BOTH
def test_nothing_distilled_is_a_ranking_of_zero(function, ranking_loss, release_compat):
    problem = make_problem(seed=2)
    problem["distilled"] = torch.zeros_like(problem["distilled"])
    changed = {"ranking_loss": ranking_loss, "release_compat": release_compat}
    found, gradient = loss_and_gradient(problem, function, **changed)
    expected, undistilled = loss_and_gradient(problem, function, lam=0.0)
    assert found["ranking"].item() == 0
    torch.testing.assert_close(found["total"], expected["total"])
    torch.testing.assert_close(gradient, undistilled)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31),
    st.floats(0.1, 1e4),
    st.sampled_from(["ce", "bce"]),
    st.sampled_from(["ranking", "kl"]),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
    st.booleans(),
)
def test_finite_logits_give_finite_losses_and_gradients(
    seed, largest, base, ranking_loss, beta, temperature, release_compat
):
    problem = make_problem(seed)
    logits = problem["logits"] / problem["logits"].abs().max() * largest
    problem = problem | {"logits": logits.float()}
    changed = {"temperature": temperature, "release_compat": release_compat, "base": base, "beta": beta}
    for function in (fused_loss, plain_loss):
        losses, gradient = loss_and_gradient(problem, function, ranking_loss=ranking_loss, **changed)
        assert all(bool(torch.isfinite(value)) for value in losses.values())
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("base", ["ce", "bce"])
def test_no_tensor_larger_than_the_logits_is_made(base):
    """Neither [S, K, V] nor a second table of exponentials a candidate, forward and backward."""

    class Watch(TorchDispatchMode):
        largest, exponentials = 0, 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    Watch.largest = max(Watch.largest, tensor.numel())
                    if function in (torch.ops.aten.exp.default, torch.ops.aten.exp_.default):
                        Watch.exponentials += tensor.numel()
            return result

    problem = make_problem(seed=5, samples=8, items=700, count=6)
    with Watch():
        loss_and_gradient(problem, base=base)
    assert Watch.largest == problem["logits"].numel()
    # One exponential an item for the robust term, one more for the cross-entropy; the rest is [S, K] small.
    passes = 2 if base == "ce" else 1
    assert passes <= Watch.exponentials / problem["logits"].numel() < passes + 0.5


def test_only_the_total_carries_a_gradient():
    losses, _ = loss_and_gradient(make_problem(seed=0))
    assert set(losses) == {"total", "base", "dro", "ranking"}
    assert {name for name, value in losses.items() if value.requires_grad} == {"total"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"propensity": None}, "propensity"),
        ({"candidates": None}, "candidates and distances"),
        ({"distance": torch.zeros(6, 3)}, "do not fit"),
        ({"distilled": torch.ones(6)}, "bool"),
        ({"base": "bce", "negative": None}, "negative"),
    ],
)
@BOTH
def test_unusable_arguments_are_refused(function, changed, message):
    with pytest.raises(InputError, match=message):
        loss_of(make_problem(seed=0), function, **changed)


@pytest.mark.parametrize("distilled", FEW_AND_MANY)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@BOTH
def test_excluded_items_leave_the_softmax_of_the_target_and_of_the_candidates(function, alpha, distilled):
    problem = make_problem(4) | {"distilled": torch.tensor(distilled)}
    mask, excluded = excluded_of(problem)
    asked = torch.column_stack([problem["target"], problem["candidates"]])
    asked = torch.where(problem["distilled"].unsqueeze(1), asked, problem["target"].unsqueeze(1))
    assert mask.gather(1, asked).any()
    away = mask.scatter(1, asked, False)
    found, gradient = loss_and_gradient(problem, function, alpha=alpha, excluded=excluded)
    # What does not compete is as far away as a number can be, where there is no robust term of its own size.
    plain = loss_of(problem, function, alpha=alpha)
    masked = problem["logits"].masked_fill(away, -1e3)
    torch.testing.assert_close(found["base"], base_loss(masked, problem["target"]))
    torch.testing.assert_close(found["dro"], plain["dro"])
    without_robust = loss_of(problem | {"logits": masked}, function, alpha=0.0)["ranking"]
    if alpha:
        # With weights that do not look at the student the robust terms add what they add.
        apart = {"gamma_consistency": 0.0}
        added = (
            loss_of(problem, function, alpha=alpha, **apart)["ranking"]
            - loss_of(problem, function, alpha=0.0, **apart)["ranking"]
        )
        without_robust = loss_of(problem | {"logits": masked}, function, alpha=0.0, **apart)["ranking"]
        torch.testing.assert_close(
            loss_of(problem, function, alpha=alpha, excluded=excluded, **apart)["ranking"], without_robust + added
        )
    else:
        torch.testing.assert_close(found["ranking"], without_robust)
        assert gradient[away].abs().max() == 0


def test_nothing_excluded_is_the_loss_without():
    problem = make_problem(1)
    nothing = torch.zeros(0, dtype=torch.int64)
    plain, expected = loss_and_gradient(problem)
    found, gradient = loss_and_gradient(problem, excluded=(nothing, nothing))
    assert torch.equal(plain["total"], found["total"])
    assert torch.equal(expected, gradient)


def test_with_bce_only_the_students_best_items_know_of_it():
    problem = make_problem(2)
    excluded = excluded_of(problem)[1]
    blind = {"base": "bce", "gamma_consistency": 0.0}
    assert torch.equal(loss_of(problem, **blind)["total"], loss_of(problem, **blind, excluded=excluded)["total"])
    seeing = {"base": "bce", "gamma_position": 0.0, "gamma_confidence": 0.0}
    assert loss_of(problem, **seeing)["ranking"] != loss_of(problem, **seeing, excluded=excluded)["ranking"]
