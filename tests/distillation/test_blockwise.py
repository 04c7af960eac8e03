"""The loss by blocks of rows is the plain formulas' of the logits, and so is its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from recdistill.distillation import blockwise
from recdistill.distillation.blockwise import block_rows, blockwise_loss
from recdistill.distillation.losses import plain_loss
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError

SAMPLES, WIDTH = 11, 5


def make_problem(seed, items=40, count=4, dtype=torch.float64, bias=True, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    candidates = torch.stack([torch.randperm(items, generator=generator)[:count] for _ in range(SAMPLES)])
    target = torch.randint(items, (SAMPLES,), generator=generator)
    target[0] = candidates[0, 2]
    return {
        "states": scale * draw(SAMPLES, WIDTH),
        # One row more than there are items, as that of the padding.
        "weight": draw(items + 1, WIDTH),
        "bias": draw(items) if bias else None,
        "target": target,
        "negative": torch.randint(items, (SAMPLES,), generator=generator),
        "teacher": TeacherBatch(
            candidates=candidates,
            distance=3 * torch.rand(SAMPLES, count, generator=generator, dtype=torch.float64).to(dtype),
            distilled=torch.rand(SAMPLES, generator=generator) < 0.6,
        ),
        "propensity": torch.rand(items, generator=generator, dtype=torch.float64).to(dtype) * 0.5 + 0.4,
        "excluded": (torch.rand(SAMPLES, items, generator=generator) < 0.4).nonzero(as_tuple=True),
        "columns": torch.randperm(items, generator=generator)[: items // 5],
    }


def losses_and_gradients(problem, options, blocks=True, **changed):
    given = problem | changed
    leaves = [given.pop(name) for name in ("states", "weight", "bias")]
    leaves = [None if one is None else one.clone().requires_grad_() for one in leaves]
    states, weight, bias = leaves
    layer, target, teacher = OutputLayer(weight, bias, len(weight) - 1), given.pop("target"), given.pop("teacher")
    chosen = ObjectiveSettings(**options)
    if blocks:
        losses = blockwise_loss(chosen, states, layer, target, teacher, **given)
    else:
        losses = plain_loss(chosen, layer.logits(states), target, teacher, **given)
    (3 * losses["total"]).backward()
    return losses, [one.grad for one in leaves if one is not None]


def assert_same(found, expected, tolerance):
    (losses, gradients), (plain, plain_gradients) = found, expected
    assert list(losses) == list(plain)
    for name, value in plain.items():
        torch.testing.assert_close(losses[name], value, rtol=tolerance, atol=tolerance)
        assert losses[name].requires_grad == value.requires_grad
    for gradient, by_formula in zip(gradients, plain_gradients, strict=True):
        assert (gradient - by_formula).abs().max() <= tolerance * by_formula.abs().max()


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**31),
    st.sampled_from([torch.float64, torch.float32]),
    st.sampled_from(["ce", "bce"]),
    st.sampled_from(["base", "bce", "ce", "kl"]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.7]),
    st.tuples(*[st.sampled_from([0.0, 0.3])] * 3).filter(any),
    st.floats(0.3, 5),
    st.floats(0.3, 5),
    st.sampled_from([12, 40, 700]),
    st.sampled_from([1, 4, 100]),
    st.sampled_from([1.0, 40.0]),
)
def test_is_the_plain_loss_for_all_settings(
    seed, dtype, base, ranking_loss, base_weight, others, alpha, lam, gammas, beta, temperature, items, rows, scale
):
    """``scale``: logits within and beyond what exponentials without a shift can hold. ``read``: as on a CPU."""
    bias, excluded, columns, read = others
    problem = make_problem(seed, items, dtype=dtype, bias=bias, scale=scale if not alpha else 1.0)
    problem |= {} if excluded else {"excluded": None}
    problem |= {} if columns else {"columns": None}
    options = {"base_loss": base, "ranking_loss": ranking_loss, "alpha": alpha, "lam": lam, "beta": beta}
    options |= dict(zip(("gamma_position", "gamma_confidence", "gamma_consistency"), gammas, strict=True))
    options |= {"temperature": temperature, "base_weight": base_weight}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "block_rows", lambda *_: rows)
        patch.setattr(blockwise, "is_read_at_once", lambda _: read)
        found = losses_and_gradients(problem, options)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    assert_same(found, losses_and_gradients(problem, options, blocks=False), tolerance)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_cross_entropy_in_float32_is_that_in_float64_to_a_millionth(scale):
    problem = make_problem(3, items=2000, scale=scale)
    exact = losses_and_gradients(problem, {}, blocks=False)[0]["total"]
    low = {name: one.float() for name, one in problem.items() if name in ("states", "weight", "bias")}
    assert losses_and_gradients(problem | low, {})[0]["total"].item() == pytest.approx(exact.item(), rel=2e-6)


def test_half_precision_is_computed_in_float32():
    problem = make_problem(1)
    half = {name: problem[name].bfloat16() for name in ("states", "weight", "bias")}
    exact = {name: one.float() for name, one in half.items()}
    options = {"lam": 0.5, "alpha": 0.1}
    found, gradients = losses_and_gradients(problem, options, **half)
    expected, _ = losses_and_gradients(problem, options, **exact)
    assert found["total"].dtype == torch.float32
    assert torch.equal(found["total"], expected["total"])
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.sampled_from([{}, {"lam": 0.5}, {"lam": 0.5, "ranking_loss": "kl"}, {"lam": 0.5, "alpha": 0.2}]),
    st.booleans(),
    st.sampled_from([3, 100]),
)
def test_products_of_bfloat16_numbers_are_near_those_of_float32(seed, options, bias, rows):
    """Within the eight bits that such a number has; losses and gradients stay in float32."""
    problem = make_problem(seed, items=200, dtype=torch.float32, bias=bias)
    # Which candidates are among the best is a step: not asked for where a rounding may take it.
    options = {"gamma_consistency": 0.0, **options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "block_rows", lambda *_: rows)
        found, gradients = losses_and_gradients(problem, options | {"bf16": True})
    exact, exact_gradients = losses_and_gradients(problem, options)
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, rtol=0.02, atol=0.02)
    for gradient, by_float32 in zip(gradients, exact_gradients, strict=True):
        assert gradient.dtype == torch.float32
        assert 0 < (gradient - by_float32).norm() < 0.1 * by_float32.norm()


@pytest.mark.parametrize("options", [{}, {"lam": 0.5}, {"lam": 0.5, "alpha": 0.2}, {"base_loss": "bce", "alpha": 0.2}])
def test_the_logits_of_all_samples_are_never_held(options, monkeypatch):
    class Watch(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    Watch.largest = max(Watch.largest, tensor.numel())
            return result

    monkeypatch.setattr(blockwise, "block_rows", lambda *_: 3)
    problem = make_problem(2, items=700) | {"excluded": None, "columns": None}
    with Watch():
        losses_and_gradients(problem, options)
    assert Watch.largest == 701 * WIDTH
    assert Watch.largest < SAMPLES * 700


def test_sampled_negatives_need_no_pass_over_the_catalogue(monkeypatch):
    monkeypatch.setattr(blockwise._Blockwise, "apply", None)
    problem, options = make_problem(2), {"base_loss": "bce", "lam": 0.5, "gamma_consistency": 0.0}
    assert_same(losses_and_gradients(problem, options), losses_and_gradients(problem, options, blocks=False), 1e-9)


def test_blocks_fit_the_memory_and_have_rows_enough():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert all(block_rows(items, cpu) >= 100 for items in (1, 1682, 20_000, 1_000_000))
    assert block_rows(1682, cpu) * 1682 * 4 <= 2**21
    assert block_rows(20_000, cpu, held=2) == block_rows(20_000, cpu) / 2
    assert block_rows(1682, cuda) > 10_000
    assert block_rows(1_000_000, cuda) * 1_000_000 * 4 <= 2**30


def test_without_gradient_nothing_is_differentiated(monkeypatch):
    monkeypatch.setattr(blockwise, "_add_gradients", None)
    problem = make_problem(5)
    layer = OutputLayer(problem["weight"], problem["bias"], 40)
    found = blockwise_loss(ObjectiveSettings(), problem["states"], layer, problem["target"])
    expected = plain_loss(ObjectiveSettings(), layer.logits(problem["states"]), problem["target"])
    torch.testing.assert_close(found["total"], expected["total"])


def test_no_samples_are_a_loss_of_nothing_but_no_error():
    problem = make_problem(5)
    layer = OutputLayer(problem["weight"].requires_grad_(), None, 40)
    losses = blockwise_loss(ObjectiveSettings(), problem["states"][:0], layer, problem["target"][:0])
    losses["total"].backward()
    assert not layer.weight.grad.any()


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"propensity": None}, {"alpha": 0.5}, "propensity"),
        ({"propensity": torch.ones(3)}, {"alpha": 0.5}, "does not fit 40 items"),
        ({"teacher": None}, {"lam": 0.5}, "candidates and distances"),
        ({"negative": None}, {"base_loss": "bce"}, "negative"),
        ({}, {"base_loss": "bce", "alpha": 0.5, "lam": 0.5, "release_compat": True}, "mixes all samples"),
    ],
)
def test_unusable_arguments_are_refused(changed, options, message):
    with pytest.raises(InputError, match=message):
        losses_and_gradients(make_problem(seed=0) | changed, options)
