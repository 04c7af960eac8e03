"""Items that compete in no row: every loss is that over a catalogue without them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.distillation.exclusion import excluded_of_rows, excluded_with_columns, logits_without
from recdistill.distillation.fused import fused_loss
from recdistill.distillation.losses import plain_loss
from recdistill.distillation.negatives import sampled_negatives
from recdistill.distillation.objective import Objective
from recdistill.distillation.settings import ObjectiveSettings
from recdistill.distillation.teacher_answers import TeacherBatch

SAMPLES, ITEMS, COUNT = 6, 40, 4
BOTH = pytest.mark.parametrize("function", [fused_loss, plain_loss], ids=["fused", "plain"])
CHOICES = {
    "base_loss": st.sampled_from(["ce", "bce"]),
    "ranking_loss": st.sampled_from(["ranking", "kl"]),
    "release_compat": st.booleans(),
    "alpha": st.sampled_from([0.0, 0.5]),
    "lam": st.sampled_from([0.0, 0.7]),
    "beta": st.sampled_from([0.7, 2.0]),
}


def problem_of(seed, untrained, share=0.6, items=ITEMS, seen=False):
    """A batch whose targets are trained; candidates are drawn from all items."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randperm(items, generator=generator)[:untrained]
    trained = torch.tensor([item for item in range(items) if item not in columns.tolist()])

    def drawn():
        return trained[torch.randint(len(trained), (SAMPLES,), generator=generator)]

    mask = torch.rand(SAMPLES, items, generator=generator) < 0.3
    return {
        "logits": 2 * torch.randn(SAMPLES, items, generator=generator, dtype=torch.float64),
        "target": drawn(),
        "negative": drawn(),
        "candidates": torch.stack([torch.randperm(items, generator=generator)[:COUNT] for _ in range(SAMPLES)]),
        "distance": 3 * torch.rand(SAMPLES, COUNT, generator=generator, dtype=torch.float64),
        "distilled": torch.rand(SAMPLES, generator=generator) < share,
        "propensity": torch.rand(items, generator=generator, dtype=torch.float64) * 0.5 + 0.4,
        "excluded": mask.nonzero(as_tuple=True) if seen else None,
        "columns": columns,
    }


def loss_and_gradient(problem, function, choices):
    given = dict(problem)
    logits, target = given.pop("logits").clone().requires_grad_(), given.pop("target")
    teacher = TeacherBatch(*(given.pop(name) for name in ("candidates", "distance", "distilled")))
    losses = function(ObjectiveSettings(**choices), logits, target, teacher, **given)
    losses["total"].backward()
    return losses, logits.grad


@settings(deadline=None, max_examples=120)
@given(
    st.integers(0, 2**31),
    st.fixed_dictionaries(CHOICES),
    st.sampled_from([0, 1, 15]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.booleans(),
    st.sampled_from([ITEMS, 700]),
)
def test_the_fast_loss_is_the_plain_one(seed, choices, untrained, share, seen, items):
    problem = problem_of(seed, untrained, share, items, seen)
    found, gradient = loss_and_gradient(problem, fused_loss, choices)
    expected, plain = loss_and_gradient(problem, plain_loss, choices)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-11)
    assert (gradient - plain).abs().max() <= 1e-11 * plain.abs().max()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.fixed_dictionaries(CHOICES), st.booleans())
@BOTH
def test_it_is_the_loss_over_a_catalogue_without_them(function, seed, choices, seen):
    """Where no candidate is untrained: columns are dropped, and ids counted anew."""
    problem = problem_of(seed, 12, seen=seen)
    trained = torch.tensor([item for item in range(ITEMS) if item not in problem["columns"].tolist()])
    place = torch.full((ITEMS,), -1)
    place[trained] = torch.arange(len(trained))
    generator = torch.Generator().manual_seed(seed)
    ranked = torch.stack([torch.randperm(len(trained), generator=generator)[:COUNT] for _ in range(SAMPLES)])
    problem["candidates"] = trained[ranked]
    smaller = problem | {name: place[problem[name]] for name in ("target", "negative", "candidates")}
    smaller |= {"logits": problem["logits"][:, trained], "propensity": problem["propensity"][trained], "columns": None}
    if seen:
        rows, items = problem["excluded"]
        kept = place[items] >= 0
        smaller["excluded"] = (rows[kept], place[items[kept]])
    found, gradient = loss_and_gradient(problem, function, choices)
    expected, of_trained = loss_and_gradient(smaller, function, choices)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    torch.testing.assert_close(gradient[:, trained], of_trained)
    assert gradient[:, problem["columns"]].abs().max() == 0


@BOTH
def test_a_candidate_competes_in_its_own_row_alone(function):
    problem = problem_of(3, 15, share=1.0)
    problem["candidates"][0, 0] = problem["columns"][0]
    untrained = torch.isin(problem["candidates"], problem["columns"])
    _, gradient = loss_and_gradient(problem, function, {"lam": 0.7, "alpha": 0.5})
    for row in range(SAMPLES):
        taught = problem["candidates"][row, untrained[row]]
        moved = problem["columns"][gradient[row, problem["columns"]] != 0]
        assert set(moved.tolist()) == set(taught.tolist())


@BOTH
def test_where_all_are_trained_nothing_changes_to_the_last_bit(function):
    problem = problem_of(1, 0)
    for columns in (None, torch.zeros(0, dtype=torch.int64)):
        found, gradient = loss_and_gradient(problem | {"columns": columns}, function, {"alpha": 0.5, "lam": 0.7})
        expected, same = loss_and_gradient(problem | {"columns": None}, function, {"alpha": 0.5, "lam": 0.7})
        assert torch.equal(found["total"], expected["total"])
        assert torch.equal(gradient, same)


def test_the_objective_masks_what_has_no_target_where_it_is_asked_to():
    counts = torch.tensor([3, 0, 1, 0, 7])
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    target, states = torch.tensor([0, 2, 4, 0]), torch.zeros(4, 2)
    plain = ObjectiveSettings(lam=0.0)
    masked = Objective(plain, counts, mask_untrained=True)
    assert masked.untrained.tolist() == [1, 3]
    expected = torch.nn.functional.cross_entropy(logits[:, [0, 2, 4]], torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(masked(logits, target, states)["total"], expected)
    whole = torch.nn.functional.cross_entropy(logits, target)
    for objective in (Objective(plain, counts), Objective(plain, counts + 1, mask_untrained=True)):
        assert objective.untrained is None
        torch.testing.assert_close(objective(logits, target, states)["total"], whole)
    assert masked.state_dict() == {}


def test_the_students_top_items_are_trained_ones():
    """A candidate is in the top 2 of what competes, and not of all."""
    logits = torch.tensor([[9.0, 8.0, 3.0, 2.0, 1.0, 0.0]])
    absent = excluded_with_columns(None, torch.tensor([0, 1]), torch.tensor([[2]]))
    assert logits_without(logits, absent).topk(2).indices.tolist() == [[2, 3]]
    spared = excluded_with_columns(None, torch.tensor([0, 1]), torch.tensor([[1]]))
    assert logits_without(logits, spared).topk(2).indices.tolist() == [[1, 2]]


def test_rows_are_counted_anew_with_what_competes_all_the_same():
    kept = torch.tensor([[7, 1], [5, 8], [2, 7]])
    absent = excluded_with_columns((torch.tensor([0, 2]), torch.tensor([3, 4])), torch.tensor([7, 8]), kept)
    assert [part.tolist() for part in absent.kept] == [[0, 1, 2], [7, 8, 7]]
    found = excluded_of_rows(absent, torch.tensor([1, 2]))
    assert (found.rows.tolist(), found.items.tolist()) == ([1], [4])
    assert [part.tolist() for part in found.kept] == [[0, 1], [8, 7]]
    assert excluded_with_columns(None, None, kept) is None


@settings(deadline=None)
@given(st.data())
def test_negatives_are_drawn_among_the_trained(data):
    num_items = data.draw(st.integers(4, 9))
    among = sorted(data.draw(st.sets(st.integers(0, num_items - 1), min_size=3)))
    history = data.draw(st.lists(st.integers(0, num_items), min_size=1, max_size=4))
    target = data.draw(st.sampled_from(among))
    unknown = set(among) - set(history) - {target}
    if not unknown:
        return
    rows, draws = torch.tensor([history]).expand(400, -1), torch.full((400,), target)
    generator = torch.Generator().manual_seed(0)
    found = sampled_negatives("bce", rows, draws, num_items, generator, among=torch.tensor(among))
    assert set(found.tolist()) == unknown


def test_negatives_among_all_are_those_without_a_choice():
    history, target = torch.tensor([[1, 2, 9]] * 50), torch.full((50,), 3)
    drawn = [
        sampled_negatives("bce", history, target, 9, torch.Generator().manual_seed(2), among=among)
        for among in (None, torch.arange(9))
    ]
    assert torch.equal(*drawn)
    assert sampled_negatives("ce", history, target, 9, among=torch.arange(9)) is None
