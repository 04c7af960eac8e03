import numpy as np
import pytest
import torch

from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.students import ease
from recdistill.students.ease import EASE, EASEOptions
from recdistill.students.interactions import interaction_matrix
from recdistill.testing import check_student


def test_it_keeps_the_contract_of_a_recommender() -> None:
    check_student("ease")


def test_weights_are_those_of_the_paper(ring_data: SequenceData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steck (2019), equation 8, and its ten lines of NumPy."""
    gram = (interaction_matrix(ring_data.train, ring_data.num_items).toarray().T) @ interaction_matrix(
        ring_data.train, ring_data.num_items
    ).toarray()
    inverse = np.linalg.inv(gram + 7.0 * np.eye(len(gram)))
    expected = np.eye(len(gram)) - inverse @ np.diag(1 / np.diag(inverse))
    np.fill_diagonal(expected, 0)
    monkeypatch.setattr(ease, "ROWS", 7)
    found = EASE.fit(ring_data, EASEOptions(ease_penalty=7.0), seed=1)
    np.testing.assert_allclose(found.weight.numpy(), expected, atol=1e-6)


def test_each_column_is_the_ridge_regression_of_its_item_on_the_others(ring_data: SequenceData) -> None:
    had = interaction_matrix(ring_data.train, ring_data.num_items).toarray()
    found = EASE.fit(ring_data, EASEOptions(ease_penalty=3.0), seed=1)
    for item in range(0, ring_data.num_items, 9):
        others = np.delete(had, item, axis=1)
        by_ridge = np.linalg.solve(others.T @ others + 3.0 * np.eye(others.shape[1]), others.T @ had[:, item])
        np.testing.assert_allclose(np.delete(found.weight[:, item].numpy(), item), by_ridge, atol=1e-5)


def test_a_score_is_the_sum_over_the_items_of_the_whole_history(ring_data: SequenceData) -> None:
    model = EASE.fit(ring_data, EASEOptions(), seed=1)
    history = torch.tensor([[3, 5, 3, 9]])
    expected = model.weight[[3, 5, 9]].sum(0)
    torch.testing.assert_close(model.scores(history, torch.tensor([4]))[0], expected)
    assert model.max_length == int((ring_data.test.end - ring_data.test.start).max())


def test_it_finds_what_is_had_together(ring_data: SequenceData) -> None:
    """Items follow each other in a ring: those next to an item are the ones it is had with."""
    model = EASE.fit(ring_data, EASEOptions(ease_penalty=10.0), seed=1)
    scores = model.scores(torch.tensor([[10, 11, 12]]), torch.tensor([3]))[0]
    scores[[10, 11, 12]] = -torch.inf
    assert set(scores.topk(2).indices.tolist()) <= {8, 9, 13, 14}


def test_a_catalogue_that_is_too_large_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"at most 20,000 items, this data has 20,001; choose another"):
        EASE.check(20_001, EASEOptions())
    assert EASE.check(20_000, EASEOptions()) is None
