import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from recdistill.errors import InputError
from recdistill.students.item_map import PENALTIES, POWER, RidgePath, fit_item_map, held_out_errors, item_folds


def drawn(items, size, width, seed=0):
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, size, generator=random, dtype=torch.float64)
    truth = torch.randn(size, width, generator=random, dtype=torch.float64)
    noise = torch.randn(items, width, generator=random, dtype=torch.float64)
    count = torch.randint(1, 50, (items,), generator=random).double()
    return vectors, vectors @ truth + 3 + noise, count


# More items than numbers a vector, and fewer: either matrix is decomposed.
@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 40), st.sampled_from(PENALTIES), st.integers(0, 99))
def test_a_path_is_weighted_ridge_regression(items, size, penalty, seed):
    vectors, embeddings, count = drawn(items, size, 3, seed)
    path = RidgePath(vectors, embeddings, count)
    found = path.map(penalty)
    share = (count / count.sum()).numpy()
    mean = share @ vectors.numpy()
    scale = float(share @ ((vectors.numpy() - mean) ** 2).sum(axis=1))
    oracle = Ridge(alpha=penalty * scale, solver="cholesky").fit(vectors, embeddings, sample_weight=share)
    more = np.random.default_rng(seed).normal(size=(5, size))
    np.testing.assert_allclose(found(torch.as_tensor(more)), oracle.predict(more), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        next(path.predictions(torch.as_tensor(more), [penalty])), oracle.predict(more), atol=1e-5
    )


def test_a_great_penalty_gives_the_weighted_mean_and_a_small_one_the_least_squares():
    vectors, embeddings, count = drawn(40, 5, 2)
    path = RidgePath(vectors, embeddings, count)
    mean = (count[:, None] * embeddings).sum(dim=0) / count.sum()
    torch.testing.assert_close(path.map(1e9)(vectors), mean.float().expand(40, 2), atol=1e-5, rtol=0)
    root = count.sqrt()[:, None]
    design = torch.cat([vectors, torch.ones(40, 1, dtype=torch.float64)], dim=1)
    least = torch.linalg.lstsq(root * design, root * embeddings).solution
    torch.testing.assert_close(path.map(1e-12)(vectors), (design @ least).float(), atol=1e-4, rtol=1e-4)


def test_vectors_that_are_all_the_same_give_the_mean():
    found = RidgePath(torch.ones(4, 3).double(), torch.arange(8.0).double().view(4, 2), torch.ones(4).double()).map(0.1)
    assert found(torch.randn(2, 3)).tolist() == [[3.0, 4.0]] * 2


def test_folds_hold_each_item_once_and_follow_the_seed():
    folds = item_folds(23, seed=1)
    assert len(folds) == 5
    assert sorted(torch.cat(folds).tolist()) == list(range(23))
    assert [one.tolist() for one in item_folds(23, seed=1)] == [one.tolist() for one in folds]
    assert [one.tolist() for one in item_folds(23, seed=2)] != [one.tolist() for one in folds]
    assert len(item_folds(3, seed=1)) == 3


def test_the_penalty_is_that_of_the_least_error_on_held_out_items():
    vectors, embeddings, count = drawn(60, 50, 4, seed=3)
    found, terms = fit_item_map(vectors, embeddings, count, seed=5)
    by_hand = []
    for penalty in PENALTIES:
        error = 0.0
        for fold in item_folds(60, seed=5):
            rest = np.setdiff1d(np.arange(60), fold)
            fitted = RidgePath(vectors[rest], embeddings[rest], count[rest] ** POWER).map(penalty)
            missed = (fitted(vectors[fold]).double() - embeddings[fold]).square().sum(dim=1)
            error += float((count[fold] * missed).sum())
        by_hand.append(error)
    assert terms.penalty == PENALTIES[int(np.argmin(by_hand))]
    errors = held_out_errors(vectors, embeddings, count, count**POWER, item_folds(60, seed=5))
    np.testing.assert_allclose(errors, by_hand, rtol=1e-5)
    whole = RidgePath(vectors, embeddings, count**POWER).map(terms.penalty)
    assert torch.equal(found.weight, whole.weight)


def test_what_a_map_explains_is_near_one_without_noise_and_not_above_zero_of_noise_alone():
    vectors, _, count = drawn(200, 6, 4)
    truth = torch.randn(6, 4, dtype=torch.float64)
    assert fit_item_map(vectors, vectors @ truth, count)[1].explained > 0.999
    noise = torch.randn(200, 4, dtype=torch.float64)
    assert fit_item_map(vectors, noise, count)[1].explained < 0.05


def test_too_few_items_and_vectors_of_another_size_are_refused():
    with pytest.raises(InputError, match="item_map=ridge: 1 trained items"):
        fit_item_map(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))
    found, _ = fit_item_map(*drawn(9, 4, 2))
    with pytest.raises(InputError, match=r"vectors have shape \[3, 5\]; the map reads 4"):
        found(torch.ones(3, 5))
