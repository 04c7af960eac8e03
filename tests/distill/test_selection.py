import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from recdistill.distill import selection
from recdistill.distill.selection import (
    POLICIES,
    QUERY_POLICIES,
    SelectionSignals,
    StudentSignals,
    overlap,
    query,
    register,
    select,
    student_signals,
)
from recdistill.errors import InputError

SAMPLES, ITEMS, COUNT = 40, 25, 4


@pytest.fixture
def signals():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(SAMPLES, ITEMS, generator=generator)
    target = torch.randint(ITEMS, (SAMPLES,), generator=generator)
    candidates = torch.stack([torch.randperm(ITEMS, generator=generator)[:COUNT] for _ in range(SAMPLES)])
    loss, entropy, log_probs = student_signals(logits, target, candidates)
    return SelectionSignals(
        student_loss=loss,
        student_entropy=entropy,
        candidate_log_probs=log_probs,
        distance=torch.rand(SAMPLES, COUNT, generator=generator).sort(1).values,
        candidates=candidates,
        target=target,
        item_count=torch.randint(100, (ITEMS,), generator=generator),
        eligible=torch.rand(SAMPLES, generator=generator) < 0.7,
        temperature=0.5,
    )


def test_student_signals_are_those_of_torch():
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    target, candidates = torch.tensor([0, 5, 2]), torch.tensor([[1, 2], [5, 0], [3, 4]])
    loss, entropy, log_probs = student_signals(logits, target, candidates)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, reduction="none"))
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy())
    assert log_probs[1, 0].item() == pytest.approx(-loss[1].item())
    assert log_probs.shape == (3, 2)


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_every_policy_selects_its_share_of_the_eligible(policy, fraction, signals):
    mask = select(policy, signals, fraction, seed=3)
    eligible = int(signals.eligible.sum())
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == round(fraction * eligible)
    assert not (mask & ~signals.eligible).any()
    assert torch.equal(mask, select(policy, signals, fraction, seed=3))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_what_stands_in_uncovered_rows_does_not_matter(policy, signals):
    covered = signals.eligible.unsqueeze(1)
    garbage = dataclasses.replace(
        signals,
        distance=torch.where(covered, signals.distance, math.nan),
        candidate_log_probs=torch.where(covered, signals.candidate_log_probs, math.nan),
        candidates=torch.where(covered, signals.candidates, -1),
    )
    assert torch.equal(select(policy, signals, 0.4, seed=1), select(policy, garbage, 0.4, seed=1))


def best_by(key, signals, fraction):
    """Plain selection by a key of a sample, largest first; keys are distinct."""
    eligible = [i for i in range(SAMPLES) if signals.eligible[i]]
    chosen = sorted(eligible, key=key, reverse=True)[: round(fraction * len(eligible))]
    return torch.tensor([i in chosen for i in range(SAMPLES)])


def test_kl_divergence_takes_the_largest_disagreement_of_both_softened(signals):
    def divergence(i):
        teacher = [math.exp(-d / 0.5) for d in signals.distance[i].tolist()]
        student = [math.exp(x / 0.5) for x in signals.candidate_log_probs[i].tolist()]
        pairs = zip(teacher, student, strict=True)
        return sum(t / sum(teacher) * math.log(t / sum(teacher) / (s / sum(student))) for t, s in pairs)

    assert torch.equal(select("kl_divergence", signals, 0.4), best_by(divergence, signals, 0.4))
    expected = torch.tensor([divergence(i) for i in range(SAMPLES)])
    torch.testing.assert_close(POLICIES["kl_divergence"](signals), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ("ground_truth_error", lambda s: s.student_loss),
        ("uncertainty", lambda s: s.student_entropy),
        ("teacher_confidence", lambda s: -s.distance[:, 0]),
    ],
)
def test_policies_take_the_largest_of_their_signal(policy, key, signals):
    scores = key(signals).tolist()
    assert torch.equal(select(policy, signals, 0.5), best_by(scores.__getitem__, signals, 0.5))


def test_popularity_inverse_takes_the_rarest_targets(signals):
    mask = select("popularity_inverse", signals, 0.3)
    count = signals.item_count[signals.target]
    assert count[mask].max() <= count[signals.eligible & ~mask].min()


def test_coverage_takes_samples_whose_candidates_the_teacher_rarely_recommends(signals):
    candidates = torch.tensor([[0, 1, 2, 3]] * SAMPLES)
    candidates[5], candidates[17] = torch.tensor([10, 11, 12, 13]), torch.tensor([0, 1, 2, 14])
    eligible = torch.ones(SAMPLES, dtype=torch.bool)
    changed = dataclasses.replace(signals, candidates=candidates, eligible=eligible)
    assert select("coverage", changed, 1 / SAMPLES).nonzero().flatten().tolist() == [5]
    assert select("coverage", changed, 2 / SAMPLES).nonzero().flatten().tolist() == [5, 17]
    scores = POLICIES["coverage"](changed)
    assert scores[17].item() == pytest.approx((3 / 39 + 1) / 4)
    # What the teacher holds for samples that it does not cover is no recommendation.
    eligible[:5] = False
    assert POLICIES["coverage"](changed)[17].item() == pytest.approx((3 / 34 + 1) / 4)


def test_equal_scores_are_ordered_by_the_seed_and_not_by_the_position(signals):
    first, other = (select("all", signals, 0.5, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, other)
    half = SAMPLES // 2
    assert first[half:].any()
    assert first[:half].sum() < signals.eligible[:half].sum()
    assert torch.equal(select("all", signals, 1.0), signals.eligible)
    assert not torch.equal(select("random", signals, 0.5, seed=0), select("random", signals, 0.5, seed=1))


def test_the_seed_of_the_signals_holds_where_none_is_given(signals):
    seeded = dataclasses.replace(signals, seed=11)
    assert torch.equal(select("random", seeded, 0.5), select("random", signals, 0.5, seed=11))
    assert not torch.equal(select("random", seeded, 0.5), select("random", seeded, 0.5, seed=12))


def test_users_add_policies_by_name_or_pass_them(signals, monkeypatch):
    monkeypatch.setattr(selection, "POLICIES", dict(POLICIES))

    @register("longest_distance")
    def longest_distance(signals):
        return signals.distance[:, -1]

    expected = best_by(signals.distance[:, -1].tolist().__getitem__, signals, 0.5)
    assert torch.equal(select("longest_distance", signals, 0.5), expected)
    assert torch.equal(select(longest_distance, signals, 0.5), expected)
    with pytest.raises(InputError, match="exists"):
        register("random")(longest_distance)


@pytest.fixture
def student_only(signals):
    names = [spec.name for spec in dataclasses.fields(StudentSignals)]
    return StudentSignals(**{name: getattr(signals, name) for name in names})


@pytest.mark.parametrize("policy", sorted(QUERY_POLICIES))
def test_a_query_asks_first_for_what_selection_would_take(policy, signals, student_only):
    eligible = int(signals.eligible.sum())
    everything = query(policy, student_only, SAMPLES)
    assert sorted(everything.tolist()) == signals.eligible.nonzero().flatten().tolist()
    for count in (0, 1, 7, eligible):
        asked = query(policy, student_only, count)
        # A larger budget goes on where a smaller one ends.
        assert torch.equal(asked, everything[:count])
        mask = select(policy, signals, count / eligible)
        assert sorted(asked.tolist()) == mask.nonzero().flatten().tolist()


def test_policies_that_read_the_teacher_ask_for_nothing(student_only):
    assert set(QUERY_POLICIES) == {"all", "random", "ground_truth_error", "uncertainty", "popularity_inverse"}
    for policy in set(POLICIES) - set(QUERY_POLICIES):
        with pytest.raises(InputError, match=f"{policy}' reads the teacher's answers") as caught:
            query(policy, student_only, 3)
        assert "popularity_inverse" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="unknown selection policy 'best'"):
        query("best", student_only, 3)
    with pytest.raises(InputError, match="count is -1"):
        query("all", student_only, -1)


def test_users_add_policies_that_need_no_teacher(signals, student_only, monkeypatch):
    monkeypatch.setattr(selection, "POLICIES", dict(POLICIES))
    monkeypatch.setattr(selection, "QUERY_POLICIES", dict(QUERY_POLICIES))

    @register("long_tail_errors", needs_teacher=False)
    def long_tail_errors(signals):
        return signals.student_loss / (1 + signals.item_count[signals.target])

    best = long_tail_errors(signals).where(signals.eligible, torch.tensor(-math.inf)).argmax()
    assert query("long_tail_errors", student_only, 1).tolist() == [best.item()]
    assert query(long_tail_errors, student_only, 1).tolist() == [best.item()]
    assert select("long_tail_errors", signals, 1 / int(signals.eligible.sum())).nonzero().item() == best.item()


def test_before_the_teacher_there_are_no_candidates():
    logits, target = torch.randn(3, 6), torch.tensor([0, 5, 2])
    loss, entropy, log_probs = student_signals(logits, target, torch.empty(3, 0, dtype=torch.int64))
    assert torch.equal(loss, student_signals(logits, target, torch.zeros(3, 1, dtype=torch.int64))[0])
    assert (entropy.shape, log_probs.shape) == ((3,), (3, 0))


def test_overlap_is_the_share_selected_before():
    before = torch.tensor([True, True, False, False])
    now = torch.tensor([True, False, True, True])
    assert overlap(before, now) == pytest.approx(1 / 3)
    assert overlap(now, before) == pytest.approx(1 / 2)
    assert overlap(before, torch.zeros(4, dtype=torch.bool)) == 1.0
    with pytest.raises(InputError, match="compare equal"):
        overlap(before, now[:2])


def test_unusable_arguments_are_refused(signals):
    with pytest.raises(InputError, match="unknown selection policy 'best'"):
        select("best", signals, 0.5)
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="fraction"):
            select("all", signals, fraction)
    with pytest.raises(InputError, match="scores"):
        select(lambda s: s.distance, signals, 0.5)
    with pytest.raises(InputError, match="not a number"):
        select(lambda s: s.student_loss * math.nan, signals, 0.5)
    with pytest.raises(InputError, match="student_loss"):
        dataclasses.replace(signals, student_loss=signals.student_loss[1:])
    with pytest.raises(InputError, match="distance"):
        dataclasses.replace(signals, distance=signals.distance[:, 1:])
    with pytest.raises(InputError, match="bool"):
        dataclasses.replace(signals, eligible=signals.eligible.long())
    with pytest.raises(InputError, match="temperature"):
        dataclasses.replace(signals, temperature=0.0)
