from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.config import DataConfig
from recdistill.data.load import split_data
from recdistill.evaluation.part_metrics import part_metrics
from recdistill.evaluation.ranking import rank_of_target
from recdistill.students.build import StudentShape, build_student
from recdistill.students.calibration import (
    MISS,
    SCALES,
    WIDEST,
    CalibrationScores,
    among_new,
    at_cost,
    calibration_scores,
    choose_interleaving,
    curve,
    outcome,
    some_samples,
    stand_ins,
    warm_cost,
)
from recdistill.students.item_map import ItemMap, Terms
from recdistill.students.mapped import Interleaving, NewItemMap, with_new_items
from recdistill.students.measure import ranked

CPU = torch.device("cpu")
SETTINGS = [
    Interleaving(),
    Interleaving(1.5, -0.5),
    Interleaving(0.5, 2.0),
    Interleaving(1.0, -99),
    Interleaving(1, 99),
]


@pytest.fixture(scope="module")
def data(ring):
    return split_data(ring, DataConfig(split="user-holdout", holdout=0.3, new_items=0.2))


@pytest.fixture(scope="module")
def mapped(data):
    """A student that never learnt, with item vectors that let it guess; scores collide, so that ties count."""
    torch.manual_seed(1)
    shape = StudentShape("gru4rec", 8, 0.0, 10, "tied")
    student = build_student(shape, data.num_items)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape)).mul_(4).round_().div_(4)
        student.items.embedding.weight[data.num_items] = 0
    new = torch.as_tensor(np.flatnonzero(~data.trained))
    new_map = NewItemMap(
        ItemMap(torch.eye(8).double(), torch.zeros(8).double()), Terms(0, 0, 0), Interleaving(), {}, {}
    )
    return with_new_items(student.eval(), shape, new, torch.randn(len(new), 8), new_map)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_an_outcome_is_what_evaluation_measures_of_the_student_so_set(data, mapped, part, exclude_seen, setting):
    samples, new = (data.validation, data.new_validation) if part == "val" else (data.test, data.new_test)
    scores = calibration_scores(mapped, samples, new, exclude_seen, CPU)
    found = outcome(scores, setting)
    measured = ranked(mapped.interleaved(setting), samples, exclude_seen, CPU, keep=0, among=new)
    metrics = part_metrics(part, measured, data, exclude_seen=exclude_seen)
    assert found.warm == pytest.approx(metrics[f"{part}/warm/ndcg_at_20"])
    assert found.new == pytest.approx(metrics[f"{part}/new/ndcg_at_20"])
    assert found.all == pytest.approx(metrics[f"{part}/ndcg_at_20"])
    if setting.scale > 0 and exclude_seen:
        assert among_new(scores) == pytest.approx(metrics[f"{part}/new_among_new/ndcg_at_20"])


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_training_says_that_new_items_cost_is_what_the_choice_of_a_setting_bounds(
    data, mapped, setting, exclude_seen
):
    found = outcome(calibration_scores(mapped, data.validation, data.new_validation, exclude_seen, CPU), setting)
    model = mapped.interleaved(setting)
    assert warm_cost(model, data, exclude_seen, CPU, seed=1) == pytest.approx(found.warm_cost)
    all_trained = SimpleNamespace(trained=np.ones_like(data.trained), validation=data.validation)
    assert warm_cost(model, all_trained, exclude_seen, CPU, seed=1) is None


def test_costs_are_against_new_items_left_out(data, mapped):
    scores = calibration_scores(mapped, data.test, data.new_test, True, CPU)
    found = outcome(scores, Interleaving(1.0, 0.3))
    # By hand: the new items' columns are taken out of the matrix of scores.
    samples, warm = data.test, torch.as_tensor(data.trained[data.test.targets])
    history, length = (torch.as_tensor(one) for one in samples.windows_of(range(len(samples)), 10, data.num_items))
    with torch.no_grad():
        matrix = mapped.scores(history, length)
    known = torch.as_tensor(np.flatnonzero(data.trained))
    matrix[:, mapped.new_items] = -torch.inf
    seen = tuple(torch.as_tensor(one) for one in samples.seen(range(len(samples))))
    ranks = rank_of_target(matrix, torch.as_tensor(samples.targets), seen)[warm]
    gain = torch.where(ranks <= 20, 1 / torch.log2(ranks + 1.0), 0.0)
    # A miss is ranked behind all items, also where these are fewer than twenty.
    assert len(known) > 20
    assert found.warm_cost == pytest.approx(1 - found.warm / gain.mean().item(), abs=1e-6)
    assert found.gain == pytest.approx(found.all / (gain.sum().item() / len(samples)) - 1, abs=1e-6)


def test_new_items_far_below_cost_and_gain_nothing_and_far_above_the_most(data, mapped):
    scores = calibration_scores(mapped, data.validation, data.new_validation, True, CPU)
    below, above = (outcome(scores, Interleaving(1, offset)) for offset in (-99, 99))
    assert (below.warm_cost, below.new, below.gain) == (0, 0, 0)
    assert above.warm_cost > 0.2
    assert above.new > 0.1
    assert above.new == pytest.approx(
        max(outcome(scores, Interleaving(1, one)).new for one in np.linspace(-20, 99, 40))
    )


@pytest.mark.parametrize("cost", [0.0, 0.02, 0.1, 1.0])
def test_the_choice_keeps_to_its_cost_and_no_scale_does_better(data, mapped, cost):
    scores = calibration_scores(mapped, data.validation, data.new_validation, True, CPU)
    chosen = choose_interleaving(scores, cost)
    assert chosen.warm_cost <= cost
    tried = [at_cost(scores, scale, cost) for scale in SCALES]
    assert chosen.new == max(one.new for one in tried)
    for one in tried:
        higher = outcome(scores, Interleaving(one.interleaving.scale, one.interleaving.offset + 1e-3))
        assert one.interleaving.offset > 39 or higher.warm_cost > cost


def drawn_scores(size, samples=200, known=60, new=15):
    """Scores of about this size, with new items that stand high."""
    random = torch.Generator().manual_seed(5)
    matrix = size * torch.randn(samples, known, generator=random)
    matrix[:, 0] += 2 * size
    own, is_new = matrix[:, 0].clone(), torch.arange(samples) < samples // 10
    place = torch.where(is_new, torch.randint(new, (samples,), generator=random), -1)
    fresh = size * (torch.randn(samples, new, generator=random) + 1.5)
    fresh[:, 3] = torch.where(place == 3, fresh[:, 3], -torch.inf)
    before = (matrix >= own[:, None]).sum(dim=1)
    return scores_of_matrices(own, before, matrix, fresh, place)


def scores_of_matrices(own, before, known, new, place):
    """What is kept of whole matrices of scores: known [N, K], new [N, n]; all new items count as targets."""
    own_new = new.gather(1, place.clamp(min=0)[:, None]).squeeze(1)
    among = (new >= own_new[:, None]).sum(dim=1)
    among[own_new.isneginf()] = MISS
    largest = new.abs().masked_fill(new.isinf(), 0).amax(dim=1)
    best = new.topk(min(21, new.shape[1]), dim=1).values
    top = known.topk(min(20, known.shape[1]), dim=1).values
    return CalibrationScores(own, before, top, best, own_new, among, largest, place < 0, place >= 0)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_ranks_by_the_best_new_scores_are_those_by_all(drawn):
    # Few values, so that scores tie; and offsets so large that scores tie by rounding.
    samples, known, new = 12, drawn.draw(st.integers(1, 30)), drawn.draw(st.integers(1, 60))
    random = torch.Generator().manual_seed(drawn.draw(st.integers(0, 999)))
    of_known, of_new = (torch.randint(-9, 9, (samples, one), generator=random) / 4 for one in (known, new))
    of_new[torch.rand(of_new.shape, generator=random) < 0.1] = -torch.inf
    place = torch.where(torch.arange(samples) < 8, torch.randint(new, (samples,), generator=random), -1)
    own = of_known[:, 0].clone()
    setting = Interleaving(drawn.draw(st.sampled_from(SCALES)), drawn.draw(st.sampled_from([-1.0, 0.0, 0.25, 3e7])))
    scores = scores_of_matrices(own, (of_known >= own[:, None]).sum(dim=1), of_known, of_new, place)
    found = outcome(scores, setting)
    all_scores = torch.cat([of_known, setting(of_new)], dim=1)
    target = torch.where(place < 0, 0, known + place)
    of_target = all_scores.gather(1, target[:, None])
    rank = (all_scores >= of_target).sum(dim=1)
    gain = torch.where((rank <= 20) & ~of_target.squeeze(1).isneginf(), 1 / torch.log2(rank + 1.0), 0.0)
    assert found.warm == pytest.approx(gain[8:].mean().item())
    assert found.new == pytest.approx(gain[:8].mean().item())


def test_a_setting_that_turns_the_order_of_new_items_around_is_refused():
    with pytest.raises(ValueError, match="turns the order"):
        outcome(drawn_scores(1.0), Interleaving(-1.0, 0.0))


@given(size=st.floats(1e-3, 1e6), cost=st.sampled_from([0.0, 0.01, 0.3, 1.0]), scale=st.sampled_from(SCALES))
@settings(deadline=None, max_examples=40)
def test_the_bound_holds_for_scores_of_any_size_and_no_greater_offset_keeps_it(size, cost, scale):
    scores = drawn_scores(size)
    found = at_cost(scores, scale, cost)
    assert found.warm_cost <= cost
    step = max(1e-3, 1e-4 * size)
    higher = outcome(scores, Interleaving(scale, found.interleaving.offset + step))
    highest = outcome(scores, Interleaving(scale, scores.reach(scale)))
    assert higher.warm_cost > cost or found.new == highest.new
    assert choose_interleaving(scores, cost).warm_cost <= cost


def test_scores_of_usual_sizes_are_searched_as_they_always_were():
    # Other bounds would give other last digits: finished runs would not be those of today.
    scores = drawn_scores(12.0)
    assert scores.reach(1.0) > WIDEST
    low, high = -40.0, 40.0
    for _ in range(20):
        middle = (low + high) / 2
        within = outcome(scores, Interleaving(1.0, middle)).warm_cost <= 0.02
        low, high = (middle, high) if within else (low, middle)
    assert at_cost(scores, 1.0, 0.02).interleaving.offset == low
    assert -39 < low < 39


def test_new_items_stand_below_and_above_all_others_at_the_reach():
    scores = drawn_scores(700.0)
    for scale in SCALES:
        below, above = (outcome(scores, Interleaving(scale, sign * scores.reach(scale))) for sign in (-1, 1))
        assert (below.warm_cost, below.new) == (0, 0)
        further = outcome(scores, Interleaving(scale, 3 * scores.reach(scale)))
        assert (above.warm, above.new) == (further.warm, further.new)


def test_a_target_counts_only_where_it_is_new_to_the_student(data, mapped):
    scores = calibration_scores(mapped, data.validation, data.new_validation, True, CPU)
    assert among_new(scores) > 0
    learnt = np.flatnonzero(data.trained)[:1]
    with pytest.raises(ValueError, match="new"):
        calibration_scores(mapped, data.validation, np.append(data.new_validation, learnt), True, CPU)


def test_what_is_kept_does_not_grow_with_the_new_items(data, mapped):
    scores = calibration_scores(mapped, data.validation, data.new_validation, True, CPU)
    assert max(one.numel() // len(data.validation) for one in vars(scores).values()) <= 21


def test_a_curve_costs_and_gains_more_from_point_to_point(data, mapped):
    scores = calibration_scores(mapped, data.validation, data.new_validation, True, CPU)
    points = curve(scores, 1.0, (0.0, 0.05, 0.2, 0.5))
    offsets = [one.interleaving.offset for one in points]
    assert offsets == sorted(offsets)
    assert [one.new for one in points] == sorted(one.new for one in points)


def test_stand_ins_are_trained_items_with_a_target_in_validation(data):
    found = stand_ins(data, data.trained, 0.25, seed=1)
    targets = np.unique(data.validation.targets)
    known = targets[data.trained[targets]]
    # Those that the student has not learnt are new already.
    learnt = data.trained & (np.arange(data.num_items) % 2 == 0)
    assert set(stand_ins(data, learnt, 0.9, seed=1)) <= set(np.flatnonzero(learnt))
    assert len(found) == round(0.25 * len(known))
    assert set(found) <= set(known)
    assert found.tolist() == stand_ins(data, data.trained, 0.25, seed=1).tolist()
    assert found.tolist() != stand_ins(data, data.trained, 0.25, seed=2).tolist()


def test_many_samples_are_drawn(data, monkeypatch):
    monkeypatch.setattr("recdistill.students.calibration.MOST_SAMPLES", 7)
    found = some_samples(data.validation, seed=3)
    assert len(found) == 7
    assert found.end.tolist() == some_samples(data.validation, seed=3).end.tolist()
    monkeypatch.undo()
    assert some_samples(data.validation, seed=3) is data.validation
