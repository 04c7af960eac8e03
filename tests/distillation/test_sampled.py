"""Losses over shared negatives: with all items drawn those of the whole catalogue, with some right on average."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from recdistill.distillation.blockwise import blockwise_loss
from recdistill.distillation.negatives import NegativeSampler, SharedNegatives
from recdistill.distillation.output_layer import OutputLayer
from recdistill.distillation.sampled import estimated_items_ahead, sampled_loss
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch
from recdistill.errors import InputError

SAMPLES, ITEMS, WIDTH, COUNT = 7, 30, 4, 3


def make_problem(seed=0, bias=True):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    candidates = torch.stack([torch.randperm(ITEMS, generator=generator)[:COUNT] for _ in range(SAMPLES)])
    target = torch.randint(ITEMS, (SAMPLES,), generator=generator)
    target[:2] = candidates[:2, 1]
    states, weight = draw(SAMPLES, WIDTH), draw(ITEMS + 1, WIDTH)
    # The student's best item is target and candidate.
    states[1] = 5 * weight[target[1]]
    distilled = torch.rand(SAMPLES, generator=generator) < 0.6
    distilled[1] = True
    return {
        "states": states,
        "weight": weight,
        "bias": draw(ITEMS) if bias else None,
        "target": target,
        "teacher": TeacherBatch(
            candidates=candidates,
            distance=torch.rand(SAMPLES, COUNT, generator=generator, dtype=torch.float64),
            distilled=distilled,
        ),
        "propensity": torch.rand(ITEMS, generator=generator, dtype=torch.float64) * 0.5 + 0.4,
        "excluded": (torch.rand(SAMPLES, ITEMS, generator=generator) < 0.3).nonzero(as_tuple=True),
    }


def everything(count=ITEMS):
    return NegativeSampler(count, "uniform", torch.ones(ITEMS)).draw()


def losses_and_gradients(function, settings, problem, **changed):
    given = problem | changed
    leaves = [given.pop(name) for name in ("states", "weight", "bias")]
    leaves = [None if one is None else one.clone().requires_grad_() for one in leaves]
    states, weight, bias = leaves
    target, teacher = given.pop("target"), given.pop("teacher")
    losses = function(settings, states, OutputLayer(weight, bias, ITEMS), target, teacher, **given)
    losses["total"].backward()
    return losses, [one.grad for one in leaves if one is not None]


@pytest.mark.parametrize("ranking_loss", ["ranking", "kl"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("lam", [0.0, 0.7])
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_with_all_items_drawn_it_is_the_full_softmax(ranking_loss, alpha, lam, exclude, seed):
    problem = make_problem(seed, bias=seed > 0) | ({} if exclude else {"excluded": None})
    options = {"alpha": alpha, "lam": lam, "ranking_loss": ranking_loss, "beta": 0.8, "temperature": 1.3}
    full, gradients = losses_and_gradients(blockwise_loss, ObjectiveSettings(**options), problem)
    settings = ObjectiveSettings(base_loss="sampled", **options)
    found, sampled_gradients = losses_and_gradients(sampled_loss, settings, problem, negatives=everything())
    for name, value in full.items():
        torch.testing.assert_close(found[name], value)
    for ours, theirs in zip(sampled_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("ranking_loss", ["ranking", "kl"])
@pytest.mark.parametrize("base_loss", ["sampled", "gbce"])
def test_items_without_a_target_are_in_no_robust_sum_and_ahead_of_nothing(base_loss, ranking_loss):
    """Where they are not drawn, as of ``sampled``, and where they are, for the base loss alone."""
    problem = make_problem(2)
    columns = torch.arange(0, ITEMS, 3)
    problem["weight"][columns] *= 3
    options = {"alpha": 0.6, "lam": 0.7, "ranking_loss": ranking_loss, "gamma_consistency": 2.0}
    full, _ = losses_and_gradients(blockwise_loss, ObjectiveSettings(**options), problem, columns=columns)
    trained = torch.tensor([item for item in range(ITEMS) if item not in columns])
    among = trained if base_loss == "sampled" else None
    negatives = NegativeSampler(ITEMS, "uniform", torch.ones(ITEMS), among).draw()
    settings = ObjectiveSettings(base_loss=base_loss, **options)
    found, _ = losses_and_gradients(sampled_loss, settings, problem, columns=columns, negatives=negatives)
    torch.testing.assert_close(found["dro"], full["dro"])
    if base_loss == "sampled" or ranking_loss == "kl":
        torch.testing.assert_close(found["ranking"], full["ranking"])


def test_the_softmaxs_denominator_is_estimated_without_bias():
    """Over all draws of two of the items: the mean of ``exp(base) * exp(z_y)`` is the sum over the catalogue."""
    problem = make_problem(1) | {"propensity": None, "excluded": None, "teacher": None}
    layer = OutputLayer(problem["weight"], problem["bias"], ITEMS)
    settings, target = ObjectiveSettings(base_loss="sampled"), problem["target"][:1]
    state, estimates = problem["states"][:1], []
    for pair in itertools.combinations(range(ITEMS), 2):
        drawn = SharedNegatives(torch.tensor(pair), torch.full((2,), math.log(ITEMS / 2)), 2 / ITEMS)
        estimates.append(sampled_loss(settings, state, layer, target, negatives=drawn)["base"].exp())
    exact = F.cross_entropy(layer.logits(state), target).exp()
    torch.testing.assert_close(torch.stack(estimates).mean(), exact)


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_a_sum_over_the_catalogue_is_estimated_without_bias(sampling):
    torch.manual_seed(0)
    values = torch.rand(ITEMS, dtype=torch.float64)
    among = torch.arange(0, ITEMS, 2)
    sampler = NegativeSampler(6, sampling, torch.arange(ITEMS) ** 2, among)
    found = []
    for _ in range(4000):
        drawn = sampler.draw()
        assert set(drawn.items.tolist()) <= set(among.tolist())
        assert (drawn.items.diff() > 0).all()
        found.append((values[drawn.items] * drawn.log_weight.double().exp()).sum())
    found = torch.stack(found)
    error = (found.mean() - values[among].sum()).abs()
    assert error < 5 * found.std() / len(found) ** 0.5
    assert found.std() > 0


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_more_negatives_come_nearer_to_the_full_softmax(sampling):
    torch.manual_seed(0)
    problem = make_problem(2) | {"propensity": None}
    options = {"lam": 0.5, "gamma_consistency": 0.0}
    exact = losses_and_gradients(blockwise_loss, ObjectiveSettings(**options), problem)[0]["total"].item()
    settings = ObjectiveSettings(base_loss="sampled", **options)
    errors = []
    for count in (2, 20, 2000):
        sampler = NegativeSampler(count, sampling, torch.arange(ITEMS))
        found = [
            losses_and_gradients(sampled_loss, settings, problem, negatives=sampler.draw())[0]["total"].item()
            for _ in range(30)
        ]
        errors.append(sum(abs(one - exact) for one in found) / len(found))
    assert errors[0] > 2 * errors[1]
    assert errors[1] > 2 * errors[2]
    assert errors[2] < 0.03 * exact


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("count", [5, ITEMS])
def test_gbce_is_the_formula(calibration, count):
    torch.manual_seed(0)
    problem = make_problem(3) | {"propensity": None}
    drawn = everything(count)
    settings = ObjectiveSettings(base_loss="gbce", gbce_calibration=calibration, lam=0.5, gamma_consistency=0.0)
    found, _ = losses_and_gradients(sampled_loss, settings, problem, negatives=drawn)
    logits = OutputLayer(problem["weight"], problem["bias"], ITEMS).logits(problem["states"])
    teacher, rate = problem["teacher"], count / ITEMS
    power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    excluded = {tuple(pair) for pair in torch.stack(problem["excluded"]).T.tolist()}

    def loss_of(sample, item):
        own = {int(problem["target"][sample])}
        own |= set(teacher.candidates[sample].tolist()) if teacher.distilled[sample] else set()
        others = [j for j in drawn.items.tolist() if j not in own and (sample, j) not in excluded]
        probability = torch.sigmoid(logits[sample])
        total = power * probability[item].log() + sum((1 - probability[j]).log() for j in others)
        return -total / (len(others) + 1)

    base = [loss_of(sample, item) for sample, item in enumerate(problem["target"].tolist())]
    torch.testing.assert_close(found["base"], torch.stack(base).mean())
    from recdistill.distillation.losses import candidate_weights

    weights = candidate_weights(
        logits, teacher.candidates, teacher.distance, gamma_position=0.3, gamma_confidence=0.5, gamma_consistency=0.0
    )
    ranking = [
        weights[sample, k] * loss_of(sample, int(item))
        for sample in teacher.distilled.nonzero().flatten().tolist()
        for k, item in enumerate(teacher.candidates[sample])
    ]
    torch.testing.assert_close(found["ranking"], torch.stack(ranking).sum() / SAMPLES)


def test_ranks_are_estimated_as_counted():
    generator = torch.Generator().manual_seed(0)
    drawn, own = torch.randn(5, 40, generator=generator), torch.randn(5, 4, generator=generator)
    drawn[0, 3], own[1, 2] = -torch.inf, -torch.inf
    weight = 0.5 + 2 * torch.rand(40, generator=generator)
    for enough in (1, 3, 10):
        found = estimated_items_ahead(drawn, weight, own, own, enough)
        for row, place in itertools.product(range(5), range(4)):
            value = own[row, place]
            ahead = float((weight * (drawn[row] > value)).sum() + (own[row] > value).sum())
            assert (found[row, place] < enough) == (ahead < enough)
            if ahead < enough:
                assert found[row, place] == pytest.approx(ahead, rel=1e-5)


def test_negatives_that_are_all_the_rows_own_give_finite_gradients():
    problem = make_problem(0)
    row = {name: problem[name][:1] for name in ("states", "target")}
    drawn = SharedNegatives(problem["target"][:1], torch.zeros(1), 1 / ITEMS)
    for base in ("sampled", "gbce"):
        settings = ObjectiveSettings(base_loss=base, alpha=0.3)
        changed = row | {"teacher": None, "excluded": None, "negatives": drawn}
        losses, gradients = losses_and_gradients(sampled_loss, settings, problem, **changed)
        assert torch.isfinite(losses["total"])
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_the_same_seed_draws_the_same_and_few_rows_of_a_large_catalogue():
    sampler = NegativeSampler(100, "uniform", torch.ones(1_000_000))
    torch.manual_seed(4)
    first, second = sampler.draw(), sampler.draw()
    torch.manual_seed(4)
    assert torch.equal(sampler.draw().items, first.items)
    assert not torch.equal(first.items, second.items)
    assert len(first.items) == 100
    assert first.share == 1e-4


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="negatives=0"):
        NegativeSampler(0, "uniform", torch.ones(3))
    with pytest.raises(InputError, match="negative_sampling=often"):
        NegativeSampler(1, "often", torch.ones(3))
    problem = make_problem()
    with pytest.raises(InputError, match="no shared negatives"):
        losses_and_gradients(sampled_loss, ObjectiveSettings(), problem, negatives=everything())
    with pytest.raises(InputError, match="use sampled_loss"):
        losses_and_gradients(blockwise_loss, ObjectiveSettings(base_loss="sampled"), problem)
    with pytest.raises(InputError, match="scores of all items"):
        OutputLayer(problem["weight"], None, ITEMS, torch.arange(3)).logits(problem["states"])
