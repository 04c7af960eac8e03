"""Losses over shared negatives: with all items drawn those of the whole catalogue, with some right on average."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from recdistill.distillation import output_layer, sampled
from recdistill.distillation.blockwise import blockwise_loss
from recdistill.distillation.negatives import Negatives, NegativeSampler
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
        drawn = Negatives(torch.tensor(pair), torch.full((2,), math.log(ITEMS / 2)), 2 / ITEMS)
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


def own_draws(count):
    return NegativeSampler(count, "uniform", torch.ones(ITEMS)).draw_own(SAMPLES)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("count", [2, 5, ITEMS])
@pytest.mark.parametrize("draw", [everything, own_draws])
def test_gbce_is_the_formula(calibration, count, draw):
    torch.manual_seed(0)
    problem = make_problem(3) | {"propensity": None}
    drawn = draw(count)
    own = drawn.items.expand(SAMPLES, -1).tolist()
    settings = ObjectiveSettings(base_loss="gbce", gbce_calibration=calibration, lam=0.5, gamma_consistency=0.0)
    found, _ = losses_and_gradients(sampled_loss, settings, problem, negatives=drawn)
    logits = OutputLayer(problem["weight"], problem["bias"], ITEMS).logits(problem["states"])
    teacher, rate = problem["teacher"], count / ITEMS
    power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    excluded = {tuple(pair) for pair in torch.stack(problem["excluded"]).T.tolist()}

    def loss_of(sample, item):
        known = {int(problem["target"][sample])}
        known |= set(teacher.candidates[sample].tolist()) if teacher.distilled[sample] else set()
        others = [j for j in own[sample] if j not in known and (sample, j) not in excluded]
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


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("some_rows", [True, False])
def test_scores_of_each_samples_own_items_are_those_of_the_items(few, bias, some_rows, monkeypatch):
    """By all rows where these are few, and by blocks of the rows that are asked."""
    monkeypatch.setattr(output_layer, "FEW", few)
    monkeypatch.setattr(output_layer, "READ", 2 * 11 * WIDTH)
    problem = make_problem(4, bias)
    ids = torch.tensor(sorted({*range(0, ITEMS, 2), ITEMS}))
    asked = ids[torch.randint(len(ids) - 1, (SAMPLES, 11), generator=torch.Generator().manual_seed(0))]
    slope, found = torch.randn(SAMPLES, 11, dtype=torch.float64), []
    for name in ("own_logits", "item_logits"):
        leaves = [
            problem[one].clone().requires_grad_()
            for one in (("states", "weight", "bias") if bias else ("states", "weight"))
        ]
        states, weight, *others = leaves
        rows = ids[:-1] if bias else ids
        one_bias = others[0] if bias else None
        if some_rows:
            layer = OutputLayer(weight[rows], None if one_bias is None else one_bias[rows], ITEMS, ids)
        else:
            layer = OutputLayer(weight[:ITEMS] if bias else weight, one_bias, ITEMS)
        logits = getattr(layer, name)(states, asked)
        (logits * slope).sum().backward()
        found.append([logits, *(one.grad for one in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("excluded", [True, False])
def test_what_is_excluded_is_found_among_own_negatives(few, excluded, monkeypatch):
    """By a mask of all items where these are few, and among the pairs."""
    monkeypatch.setattr(sampled, "FEW", few)
    pairs = make_problem(5)["excluded"] if excluded else (torch.zeros(0, dtype=torch.int64),) * 2
    drawn = torch.randint(ITEMS, (SAMPLES, 40), generator=torch.Generator().manual_seed(1))
    # A history's items stand in their order, and may stand twice.
    order = torch.arange(len(pairs[0])).flip(0)
    pairs = tuple(torch.cat([one[order], one[:2]]) for one in pairs)
    expected = {tuple(pair) for pair in torch.stack(pairs).T.tolist()}
    found = sampled._pairs_among(drawn, pairs, ITEMS)
    for row, items in enumerate(drawn.tolist()):
        assert found[row].tolist() == [(row, item) in expected for item in items]


@pytest.mark.parametrize("lam", [0.0, 0.7])
@pytest.mark.parametrize("ranking_loss", ["ranking", "kl"])
def test_own_negatives_that_are_all_items_are_the_shared_ones(lam, ranking_loss):
    problem = make_problem(6)
    options = {"base_loss": "gbce", "alpha": 0.3, "lam": lam, "ranking_loss": ranking_loss}
    shared, gradients = losses_and_gradients(
        sampled_loss, ObjectiveSettings(**options), problem, negatives=everything()
    )
    own, own_gradients = losses_and_gradients(
        sampled_loss, ObjectiveSettings(**options), problem, negatives=own_draws(ITEMS)
    )
    for name, value in shared.items():
        torch.testing.assert_close(own[name], value)
    for ours, theirs in zip(own_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_each_sample_draws_its_own_alike_by_seed_and_a_part_has_its_samples():
    sampler = NegativeSampler(100, "uniform", torch.ones(1_000_000), torch.arange(5, 1_000_000))
    torch.manual_seed(4)
    first = sampler.draw_own(9)
    torch.manual_seed(4)
    again = sampler.draw_own(9)
    assert torch.equal(again.items, first.items)
    assert first.items.shape == (9, 100)
    assert int(first.items.min()) >= 5
    assert len({tuple(row) for row in first.items.tolist()}) == 9
    assert first.share == pytest.approx(1e-4, rel=1e-4)
    assert float(first.log_weight.exp().sum()) == pytest.approx(999_995)
    place = torch.tensor([7, 2])
    assert torch.equal(first.of(place).items, first.items[place])


def test_only_drawn_pairs_are_kept():
    problem, drawn = make_problem(7), torch.tensor([2, 3, 11, 29])
    rows, items = sampled.of_drawn(problem["excluded"], drawn)
    kept = [pair for pair in torch.stack(problem["excluded"]).T.tolist() if pair[1] in drawn.tolist()]
    assert torch.stack([rows, items]).T.tolist() == kept
    settings, given = ObjectiveSettings(base_loss="sampled"), {"negatives": Negatives(drawn, torch.ones(4), 4 / ITEMS)}
    whole, _ = losses_and_gradients(sampled_loss, settings, problem, **given)
    part, _ = losses_and_gradients(sampled_loss, settings, problem, excluded=(rows, items), **given)
    assert torch.equal(whole["total"], part["total"])


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
    drawn = Negatives(problem["target"][:1], torch.zeros(1), 1 / ITEMS)
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
    with pytest.raises(InputError, match="no drawn negatives"):
        losses_and_gradients(sampled_loss, ObjectiveSettings(), problem, negatives=everything())
    with pytest.raises(InputError, match="use sampled_loss"):
        losses_and_gradients(blockwise_loss, ObjectiveSettings(base_loss="sampled"), problem)
    with pytest.raises(InputError, match="scores of all items"):
        OutputLayer(problem["weight"], None, ITEMS, torch.arange(3)).logits(problem["states"])
