"""The chunked evaluation: equal for every chunk size, exclusion by the whole history, chance level."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.samples import Samples
from recdistill.errors import InputError
from recdistill.evaluation import evaluate as evaluate_file
from recdistill.evaluation.evaluate import chunks_of_like_length, rank_samples
from recdistill.evaluation.metrics.hr import hits

NUM_ITEMS = 40


def random_samples(count: int, seed: int = 0) -> Samples:
    """Histories of 1 to 9 items, targets uniform."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 10, size=count)
    stop = np.cumsum(lengths + 1)
    items = random.integers(NUM_ITEMS, size=stop[-1])
    return Samples(items, stop - lengths - 1, stop - 1, np.arange(count))


def ranks_of(score, samples: Samples, **options) -> torch.Tensor:
    return rank_samples(score, samples, **options).ranks


def hashed_scores(history, length, row, column):
    """Scores that depend on the last item read, found by the row and column given."""
    last = history[row, column]
    assert torch.equal(column, length - 1)
    assert torch.all(last < NUM_ITEMS)
    return torch.sin(last[:, None] * 7.0 + torch.arange(NUM_ITEMS) * 1.3)


def test_chunks_do_not_change_the_ranks():
    samples = random_samples(23)
    options = {"num_items": NUM_ITEMS, "max_length": 4}
    whole = ranks_of(hashed_scores, samples, batch_size=100, **options)
    assert whole.dtype == torch.int64
    for batch_size in (1, 5, 23):
        assert torch.equal(ranks_of(hashed_scores, samples, batch_size=batch_size, **options), whole)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_among_some_items_are_those_of_a_loop(exclude_seen):
    samples, among = random_samples(60), np.array([3, 4, 11, 30])
    options = {"num_items": NUM_ITEMS, "max_length": 4, "exclude_seen": exclude_seen, "batch_size": 7}
    found = rank_samples(hashed_scores, samples, among=among, **options)
    assert torch.equal(found.ranks, ranks_of(hashed_scores, samples, **options))
    assert rank_samples(hashed_scores, samples, **options).among is None
    assert rank_samples(hashed_scores, samples, among=among[:0], **options).among is None
    for sample, target in enumerate(samples.targets.tolist()):
        history = samples.items[samples.start[sample] : samples.end[sample]].tolist()
        length = torch.tensor([len(history)])
        scores = hashed_scores(torch.tensor([history]), length, torch.tensor([0]), length - 1)
        seen = set(history) if exclude_seen else set()
        others = [item for item in among.tolist() if item not in seen and item != target]
        better = sum(bool(scores[0, item] >= scores[0, target]) for item in others)
        expected = 0 if target not in among else NUM_ITEMS + 1 if target in seen else 1 + better
        assert found.among[sample] == expected


def test_the_best_items_are_those_of_each_sample_alone():
    samples = random_samples(23)
    options = {"num_items": NUM_ITEMS, "max_length": 4, "keep": 3}
    found = rank_samples(hashed_scores, samples, batch_size=7, **options)
    assert torch.equal(found.ranks, ranks_of(hashed_scores, samples, num_items=NUM_ITEMS, max_length=4))
    for sample in range(23):
        alone = rank_samples(hashed_scores, samples.subset([sample]), **options)
        assert torch.equal(found.best[sample], alone.best[0])
        seen = set(samples.items[samples.start[sample] : samples.end[sample]]) - {samples.targets[sample]}
        assert not seen & set(found.best[sample].tolist())
    del options["keep"]
    assert rank_samples(hashed_scores, samples, **options).best.shape == (23, 0)


def test_chunks_shrink_with_the_catalogue(monkeypatch):
    sizes = []

    def score(history, length, row, column):
        sizes.append(len(row))
        return hashed_scores(history, length, row, column)

    samples = random_samples(23)
    whole = ranks_of(hashed_scores, samples, num_items=NUM_ITEMS, max_length=4)
    monkeypatch.setattr(evaluate_file, "MAX_SCORES", NUM_ITEMS * 7)
    assert torch.equal(ranks_of(score, samples, num_items=NUM_ITEMS, max_length=4), whole)
    assert sizes == [7, 7, 7, 2]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    most=st.integers(1, 9),
    places=st.none() | st.integers(1, 40),
    max_length=st.integers(1, 10),
    span=st.integers(1, 50),
)
def test_each_sample_is_in_one_chunk_with_others_of_its_length(lengths, most, places, max_length, span):
    stop = np.cumsum(np.array(lengths) + 1)
    samples = Samples(np.zeros(stop[-1], dtype=np.int64), stop - lengths - 1, stop - 1, np.arange(len(lengths)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_file, "SORTED", span)
        found = list(chunks_of_like_length(samples, max_length, most, places))
    assert sorted(np.concatenate([index for index, _ in found]).tolist()) == list(range(len(lengths)))
    read = [np.minimum(np.array(lengths)[index], max_length) for index, _ in found]
    assert [width for _, width in found] == [int(one.max()) for one in read]
    assert all(len(one) <= most for one in read)
    assert places is None or all(len(one) * one.max() <= places or len(one) == 1 for one in read)
    ordered = [int(length) for one in read for length in one]
    assert span < len(lengths) or ordered == sorted(ordered)


def test_short_histories_are_not_padded_to_long_ones():
    samples, widths = random_samples(200), []

    def score(history, length, row, column):
        widths.append((history.shape[1], int(length.max())))
        return hashed_scores(history, length, row, column)

    whole = ranks_of(hashed_scores, samples, num_items=NUM_ITEMS, max_length=9, batch_size=1)
    assert torch.equal(ranks_of(score, samples, num_items=NUM_ITEMS, max_length=9, batch_size=20), whole)
    assert all(width == longest for width, longest in widths)
    assert len({width for width, _ in widths}) > 3


def test_items_beyond_the_window_are_excluded_too():
    samples = Samples(np.array([0, 1, 2, 3]), np.array([0]), np.array([3]), np.array([0]))

    def score(history, length, row, column):
        assert history.tolist() == [[2]]
        return torch.tensor([[9.0, 8.0, 7.0, 5.0, 6.0]])

    assert ranks_of(score, samples, num_items=5, max_length=1).tolist() == [2]
    assert ranks_of(score, samples, num_items=5, max_length=1, exclude_seen=False).tolist() == [5]


def test_a_repeated_target_is_a_miss_where_seen_items_are_left_out():
    samples = Samples(np.array([3, 1, 3]), np.array([0]), np.array([2]), np.array([0]))
    scores = torch.tensor([[0.0, 9.0, 0.0, 5.0]])
    assert ranks_of(lambda *_: scores, samples, num_items=4, max_length=5).tolist() == [5]
    assert ranks_of(lambda *_: scores, samples, num_items=4, max_length=5, exclude_seen=False).tolist() == [2]


def test_a_constant_scorer_gains_nothing_and_a_random_one_k_of_v():
    samples = random_samples(8000)
    generator = torch.Generator().manual_seed(0)
    options = {"num_items": NUM_ITEMS, "max_length": 4, "exclude_seen": False}
    constant = ranks_of(lambda h, n, row, c: torch.zeros(len(row), NUM_ITEMS), samples, **options)
    assert constant.tolist() == [NUM_ITEMS] * 8000
    drawn = ranks_of(lambda h, n, row, c: torch.rand(len(row), NUM_ITEMS, generator=generator), samples, **options)
    # Five standard errors of a share of 1/4 over 8000 samples.
    assert hits(drawn, 10).mean().item() == pytest.approx(10 / NUM_ITEMS, abs=5 * (0.25 * 0.75 / 8000) ** 0.5)


def test_a_fixed_ranking_hits_k_of_v_when_targets_are_uniform():
    samples = random_samples(8000)
    ranks = ranks_of(
        lambda h, n, row, c: torch.arange(NUM_ITEMS).expand(len(row), -1).float(),
        samples,
        num_items=NUM_ITEMS,
        max_length=4,
        exclude_seen=False,
    )
    assert torch.equal(ranks, NUM_ITEMS - torch.as_tensor(samples.targets))
    assert hits(ranks, 10).mean().item() == pytest.approx(10 / NUM_ITEMS, abs=5 * (0.25 * 0.75 / 8000) ** 0.5)


def test_padding_cannot_be_ranked():
    with pytest.raises(ValueError, match="shape"):
        ranks_of(
            lambda h, n, row, c: torch.zeros(len(row), NUM_ITEMS + 1),
            random_samples(3),
            num_items=NUM_ITEMS,
            max_length=4,
        )


def test_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        ranks_of(
            lambda h, n, row, c: torch.full((len(row), NUM_ITEMS), torch.nan),
            random_samples(3),
            num_items=NUM_ITEMS,
            max_length=4,
        )


def test_no_gradients_are_kept():
    weight = torch.zeros(NUM_ITEMS, requires_grad=True)
    seen = []

    def score(history, length, row, column):
        scores = weight.expand(len(row), -1) * 2
        seen.append(scores.requires_grad)
        return scores

    ranks_of(score, random_samples(3), num_items=NUM_ITEMS, max_length=4)
    assert seen == [False]
