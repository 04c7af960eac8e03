import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from recdistill.distillation.selection import (
    StudentSignals,
    overlap,
    permutation,
    query,
    scores_of,
    seed_of_epoch,
    select,
    student_signals,
)
from recdistill.errors import InputError
from recdistill.registry import POLICIES

# The policy custom is a user's file.
NAMES = [name for name in POLICIES.names() if name != "custom"]
QUERYING = [name for name in POLICIES.names(queries=True) if name != "custom"]


def test_student_signals_are_those_of_torch():
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    target, candidates = torch.tensor([0, 5, 2]), torch.tensor([[1, 2], [5, 0], [3, 4]])
    loss, entropy, log_probs = student_signals(logits, target, candidates)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, reduction="none"))
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy())
    assert log_probs[1, 0].item() == pytest.approx(-loss[1].item())
    assert log_probs.shape == (3, 2)


@pytest.mark.parametrize("policy", NAMES)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_every_policy_selects_its_share_of_the_eligible(policy, fraction, signals):
    mask = select(policy, signals, fraction, seed=3)
    eligible = int(signals.eligible.sum())
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == round(fraction * eligible)
    assert not (mask & ~signals.eligible).any()
    assert torch.equal(mask, select(policy, signals, fraction, seed=3))


@pytest.mark.parametrize("policy", NAMES)
def test_what_stands_in_uncovered_rows_does_not_matter(policy, signals):
    covered = signals.eligible.unsqueeze(1)
    garbage = dataclasses.replace(
        signals,
        distance=torch.where(covered, signals.distance, math.nan),
        candidate_log_probs=torch.where(covered, signals.candidate_log_probs, math.nan),
        candidates=torch.where(covered, signals.candidates, -1),
    )
    assert torch.equal(select(policy, signals, 0.4, seed=1), select(policy, garbage, 0.4, seed=1))


def test_users_add_policies_by_name_or_pass_them(signals, registered, takes_the_best):
    @POLICIES.register("longest_distance", queries=False)
    def longest_distance(signals):
        return signals.distance[:, -1]

    scores = signals.distance[:, -1].tolist()
    takes_the_best("longest_distance", signals, scores)
    takes_the_best(longest_distance, signals, scores)
    takes_the_best(lambda signals: signals.distance[:, -1], signals, scores)
    with pytest.raises(InputError, match="exists"):
        POLICIES.register("random", queries=True)(longest_distance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FarOptions:
    place: int = 0


def far(signals, options):
    return signals.distance[:, options.place]


def test_a_policy_with_options_gets_them_or_its_defaults(signals, registered):
    POLICIES.register("far", options=FarOptions, queries=True)(far)
    for policy in ("far", far):
        assert torch.equal(scores_of(policy, signals), signals.distance[:, 0])
        last = FarOptions(place=3)
        assert torch.equal(scores_of(policy, signals, last), signals.distance[:, 3])
        assert torch.equal(select(policy, signals, 0.3), select(lambda s: s.distance[:, 0], signals, 0.3))
        assert torch.equal(select(policy, signals, 0.3, options=last), select(lambda s: s.distance[:, 3], signals, 0.3))
        assert torch.equal(query(policy, signals, 5, last), query(lambda s: s.distance[:, 3], signals, 5))
    assert not torch.equal(query(far, signals, 5, last), query(far, signals, 5))


@pytest.fixture
def student_only(signals):
    names = [spec.name for spec in dataclasses.fields(StudentSignals)]
    return StudentSignals(**{name: getattr(signals, name) for name in names})


@pytest.mark.parametrize("policy", QUERYING)
def test_a_query_asks_first_for_what_selection_would_take(policy, signals, student_only):
    eligible = int(signals.eligible.sum())
    everything = query(policy, student_only, len(signals.target))
    assert sorted(everything.tolist()) == signals.eligible.nonzero().flatten().tolist()
    for count in (0, 1, 7, eligible):
        asked = query(policy, student_only, count)
        # A larger budget goes on where a smaller one ends.
        assert torch.equal(asked, everything[:count])
        mask = select(policy, signals, count / eligible)
        assert sorted(asked.tolist()) == mask.nonzero().flatten().tolist()


def test_policies_that_prefer_no_sample_or_read_the_teacher_spend_no_budget(student_only):
    assert set(QUERYING) == {"random", "ground_truth_error", "uncertainty", "popularity_inverse"}
    assert set(NAMES) - set(QUERYING) >= {"all", "coverage", "kl_divergence", "teacher_confidence"}
    for name in set(NAMES) - set(QUERYING):
        for policy in (name, POLICIES.get(name)):
            with pytest.raises(InputError, match=f"{name}' cannot spend a query budget") as caught:
                query(policy, student_only, 3)
            assert "popularity_inverse" in str(caught.value)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="selection policy 'best' is unknown"):
        query("best", student_only, 3)
    with pytest.raises(InputError, match="count is -1"):
        query("random", student_only, -1)


def test_users_add_policies_that_need_no_teacher(signals, student_only, registered):
    @POLICIES.register("long_tail_errors", queries=True)
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
    with pytest.raises(InputError, match=r"selection policy 'randon' is unknown.*nearest: random"):
        select("randon", signals, 0.5)
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="fraction"):
            select("all", signals, fraction)
    with pytest.raises(InputError, match="scores"):
        select(lambda s: s.distance, signals, 0.5)
    with pytest.raises(InputError, match="scores list"):
        select(lambda s: s.student_loss.tolist(), signals, 0.5)
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


def test_a_permutation_has_each_number_once_and_follows_the_seed():
    first = permutation(50, 3)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, permutation(50, 3))
    assert not torch.equal(first, permutation(50, 4))


def test_excluded_items_have_no_probability_but_targets_and_candidates_do():
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    target, candidates = torch.tensor([0, 5, 2]), torch.tensor([[1, 2], [5, 0], [3, 4]])
    excluded = (torch.tensor([0, 0, 0, 2]), torch.tensor([0, 1, 3, 0]))
    loss, entropy, log_probs = student_signals(logits, target, candidates, excluded)
    away = logits.clone()
    away[0, 3] = away[2, 0] = -math.inf
    torch.testing.assert_close(loss, F.cross_entropy(away, target, reduction="none"))
    torch.testing.assert_close(entropy, torch.distributions.Categorical(probs=away.softmax(1)).entropy())
    torch.testing.assert_close(log_probs, away.log_softmax(1).gather(1, candidates))


def test_a_small_fraction_takes_one_sample(signals):
    assert int(select("random", signals, 1e-6).sum()) == 1
    assert int(select("random", signals, 0.0).sum()) == 0
    nobody = dataclasses.replace(signals, eligible=torch.zeros_like(signals.eligible))
    assert int(select("random", nobody, 0.5).sum()) == 0


def test_no_two_pairs_of_seed_and_epoch_have_one_seed():
    found = {seed_of_epoch(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(found) == 400
    assert all(0 <= one < 2**63 for one in found)


def test_a_users_policy_changes_no_signal_of_others(signals, registered):
    @POLICIES.register("clears", queries=True)
    def clears(signals):
        scores = signals.student_loss.clone()
        for spec in dataclasses.fields(signals):
            value = getattr(signals, spec.name)
            if isinstance(value, torch.Tensor) and spec.name != "eligible":
                value.zero_()
        return scores

    before = {spec.name: getattr(signals, spec.name) for spec in dataclasses.fields(signals)}
    before = {name: one.clone() for name, one in before.items() if isinstance(one, torch.Tensor)}
    for policy in ("clears", clears):
        select(policy, signals, 0.5)
        query(policy, signals, 2)
    assert all(torch.equal(getattr(signals, name), one) for name, one in before.items())


def test_what_a_users_policy_raises_is_one_line(signals, registered):
    POLICIES.register("misspelt", queries=True)(lambda signals: signals.studentloss)
    said = (
        r"^selection policy 'misspelt' \(test_selection\.py:\d+\): AttributeError: .*recdistill\.testing\.check_policy"
    )
    with pytest.raises(InputError, match=said):
        select("misspelt", signals, 0.5)
    with pytest.raises(InputError, match=said):
        query("misspelt", signals, 2)
