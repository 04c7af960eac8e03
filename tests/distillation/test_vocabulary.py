import math

import oracles
import pytest
import torch

from recdistill.distillation import vocabulary
from recdistill.distillation.vocabulary import vocabulary_terms
from recdistill.errors import InputError


def problem(samples=5, items=40, listed=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, items, generator=generator, dtype=torch.float64)
    ids = torch.randint(items, (samples, listed), generator=generator)
    ids[0, 1] = ids[0, 0]  # a repeated item is one item of the sum
    ids[1, 2:4] = ids[1, 0]
    propensity = torch.rand(items, generator=generator, dtype=torch.float64) + 0.2
    return logits, ids, propensity


@pytest.mark.parametrize("robust", [1, 4, 6])
def test_terms_are_the_formulas(robust):
    logits, ids, propensity = problem()
    terms = vocabulary_terms(logits, ids, with_logsumexp=True, propensity=propensity, beta=0.7, robust=robust)
    torch.testing.assert_close(terms.item_logits, logits.gather(1, ids))
    torch.testing.assert_close(terms.logsumexp, logits.logsumexp(1))
    expected = [
        [oracles.dro(row, propensity.tolist(), item, 0.7) for item in listed[:robust]]
        for row, listed in zip(logits.tolist(), ids.tolist(), strict=True)
    ]
    torch.testing.assert_close(terms.dro, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("with_logsumexp", [True, False])
@pytest.mark.parametrize("robust", [0, 1, 4])
def test_gradient_is_that_of_finite_differences(with_logsumexp, robust):
    logits, ids, propensity = problem(samples=3, items=9, listed=5)
    coefficients = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def outputs(values):
        terms = vocabulary_terms(values, ids, with_logsumexp=with_logsumexp, propensity=propensity, robust=robust)
        found = [terms.item_logits * coefficients]
        if with_logsumexp:
            found.append(terms.logsumexp)
        if robust:
            found.append(terms.dro)
        return tuple(found)

    assert torch.autograd.gradcheck(outputs, logits.requires_grad_())


@pytest.mark.parametrize("used", ["item_logits", "logsumexp", "dro"])
def test_each_output_may_be_the_only_one_used(used):
    logits, ids, propensity = problem(samples=2, items=8, listed=3)

    def output(values):
        return getattr(vocabulary_terms(values, ids, with_logsumexp=True, propensity=propensity, robust=2), used)

    assert torch.autograd.gradcheck(output, logits.requires_grad_())


def some_excluded(samples, items, seed=3):
    """Rows and items that are left out, an item of a row in more than one place, and none of the last row."""
    mask = torch.rand(samples, items, generator=torch.Generator().manual_seed(seed)) < 0.3
    mask[-1] = False
    rows, found = mask.nonzero(as_tuple=True)
    return mask, (rows.repeat_interleave(2), found.repeat_interleave(2))


@pytest.mark.parametrize("scale", [1, 1e4])
def test_what_is_excluded_is_not_in_the_logsumexp_nor_its_gradient(scale):
    logits, ids, propensity = problem(samples=7)
    logits = (scale * logits).requires_grad_()
    mask, excluded = some_excluded(7, 40)
    terms = vocabulary_terms(logits, ids, with_logsumexp=True, propensity=propensity, robust=1, excluded=excluded)
    expected = logits.masked_fill(mask, -math.inf).logsumexp(dim=1)
    torch.testing.assert_close(terms.logsumexp, expected)
    torch.testing.assert_close(
        torch.autograd.grad(terms.logsumexp.sum(), logits)[0], torch.autograd.grad(expected.sum(), logits)[0]
    )
    # The other terms know nothing of it.
    plain = vocabulary_terms(logits, ids, with_logsumexp=True, propensity=propensity, robust=1)
    assert torch.equal(terms.dro, plain.dro)
    assert torch.equal(terms.item_logits, plain.item_logits)


@pytest.mark.parametrize("exclude", [False, True])
def test_blocks_of_rows_do_not_change_a_bit(monkeypatch, exclude):
    def run():
        logits, ids, propensity = problem(samples=23, items=64)
        logits.requires_grad_()
        excluded = some_excluded(23, 64)[1] if exclude else None
        terms = vocabulary_terms(logits, ids, with_logsumexp=True, propensity=propensity, robust=6, excluded=excluded)
        (terms.logsumexp.sum() + terms.dro.square().sum() + terms.item_logits.sin().sum()).backward()
        return terms.logsumexp, terms.dro, logits.grad

    whole = run()
    monkeypatch.setattr(vocabulary, "BLOCK_LOGITS", 64 * 5)
    for expected, found in zip(whole, run(), strict=True):
        assert torch.equal(expected, found)


def test_a_catalogue_of_robust_items_only_is_exact():
    logits = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    ids = torch.tensor([[2, 0, 1]])
    propensity = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64)

    def robust(values):
        return vocabulary_terms(values, ids, with_logsumexp=False, propensity=propensity, robust=3).dro

    expected = [[oracles.dro(logits[0].tolist(), propensity.tolist(), i, 1.0) for i in (2, 0, 1)]]
    torch.testing.assert_close(robust(logits), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(robust, logits.requires_grad_())


def test_an_item_that_dominates_loses_no_precision():
    # exp(a_t) is e^700 times the rest of the sum: the subtraction of the formula leaves nothing of it.
    logits = torch.tensor([[0.5, -0.3, 30.0, 1.0]])
    propensity = torch.full((4,), 0.8)
    terms = vocabulary_terms(
        logits, torch.tensor([[2]]), with_logsumexp=False, propensity=propensity, beta=1.0, robust=1
    )
    expected = oracles.dro(logits[0].tolist(), propensity.tolist(), 2, 1.0)
    assert terms.dro.item() == pytest.approx(expected, rel=1e-6)
    # And where moving the item empties its own term, only the others are left.
    logits = torch.tensor([[2.0, 0.5, -0.5, 1.0]])
    propensity = torch.tensor([400.0, 1.0, 1.0, 1.0])
    logits[0, 0] = 1.0
    terms = vocabulary_terms(
        logits, torch.tensor([[0]]), with_logsumexp=False, propensity=propensity, beta=1.0, robust=1
    )
    expected = math.log(2 * math.exp(0.25) + math.exp(1) + 1)
    assert terms.dro.item() == pytest.approx(expected, rel=1e-6)


def test_half_precision_is_computed_in_float32():
    logits, ids, propensity = problem()
    half = logits.bfloat16()
    terms = vocabulary_terms(half, ids, with_logsumexp=True, propensity=propensity, robust=6)
    exact = vocabulary_terms(half.float(), ids, with_logsumexp=True, propensity=propensity, robust=6)
    assert torch.equal(terms.dro, exact.dro)
    assert torch.equal(terms.logsumexp, exact.logsumexp)


def test_what_does_not_fit_is_refused():
    logits, ids, propensity = problem()
    with pytest.raises(InputError, match="do not fit"):
        vocabulary_terms(logits, ids[:2], with_logsumexp=True)
    with pytest.raises(InputError, match="propensity"):
        vocabulary_terms(logits, ids, with_logsumexp=False, propensity=propensity[1:], robust=1)
    for beta in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="beta"):
            vocabulary_terms(logits, ids, with_logsumexp=False, propensity=propensity, robust=1, beta=beta)


def test_no_tensor_of_samples_times_candidates_times_items_is_made():
    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    Watch.largest = max(Watch.largest, tensor.numel())
            return result

    logits, ids, propensity = problem(samples=4, items=500, listed=6)
    with Watch():
        vocabulary_terms(logits, ids, with_logsumexp=True, propensity=propensity, robust=6)
    assert Watch.largest == logits.numel()
