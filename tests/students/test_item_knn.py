import math

import pytest
import torch

from recdistill.data.sequences import SequenceData
from recdistill.students import item_knn
from recdistill.students.interactions import interaction_matrix
from recdistill.students.item_knn import ItemKNN, ItemKNNOptions
from recdistill.testing import check_student


def test_it_keeps_the_contract_of_a_recommender() -> None:
    check_student("itemknn")


def similarities(data: SequenceData, shrinkage: float) -> torch.Tensor:
    """[V, V], by loops."""
    had = interaction_matrix(data.train, data.num_items).toarray().tolist()
    count = [sum(user[item] for user in had) for item in range(data.num_items)]
    found = torch.zeros(data.num_items, data.num_items)
    for one in range(data.num_items):
        for other in range(data.num_items):
            both = sum(user[one] * user[other] for user in had)
            if one != other and both:
                found[one, other] = both / (math.sqrt(count[one] * count[other]) + shrinkage)
    return found


@pytest.mark.parametrize("shrinkage", [0.0, 5.0])
def test_scores_add_up_the_similarities_to_each_item_of_the_history_once(
    ring_data: SequenceData, shrinkage: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_knn, "ROWS", 7)
    monkeypatch.setattr(item_knn, "MOST_VALUES", 100)
    model = ItemKNN.fit(ring_data, ItemKNNOptions(neighbours=1000, shrinkage=shrinkage), seed=1)
    history, length = torch.tensor([[3, 5, 3, 9], [0, 1, 2, 40]]), torch.tensor([4, 3])
    wanted = similarities(ring_data, shrinkage)
    expected = torch.stack([wanted[[3, 5, 9]].sum(0), wanted[[0, 1, 2]].sum(0)])
    torch.testing.assert_close(model.scores(history, length), expected, atol=1e-6, rtol=1e-5)


def test_each_item_keeps_its_most_similar_ones(ring_data: SequenceData) -> None:
    model = ItemKNN.fit(ring_data, ItemKNNOptions(neighbours=5, shrinkage=2.0), seed=1)
    wanted = similarities(ring_data, 2.0)
    torch.testing.assert_close(model.similarity, wanted.topk(5, dim=1).values)
    torch.testing.assert_close(wanted.gather(1, model.neighbour), model.similarity)


def test_an_item_that_nobody_had_and_a_catalogue_of_one_item_have_no_neighbour(ring_data: SequenceData) -> None:
    model = ItemKNN.fit(ring_data, ItemKNNOptions(neighbours=3, shrinkage=0.0), seed=1)
    unseen = interaction_matrix(ring_data.train, ring_data.num_items).sum(axis=0) == 0
    assert unseen.any()
    assert model.similarity[torch.from_numpy(unseen)].eq(0).all()
    assert model.similarity.isfinite().all()
    alone = ItemKNN(1, 5, ItemKNNOptions())
    assert alone.scores(torch.tensor([[0]]), torch.tensor([1])).tolist() == [[0.0]]


def test_similar_items_are_those_next_to_each_other_in_the_ring(ring_data: SequenceData) -> None:
    model = ItemKNN.fit(ring_data, ItemKNNOptions(neighbours=4), seed=1)
    assert model.max_length == int((ring_data.test.end - ring_data.test.start).max())
    near = 0
    for item in range(ring_data.num_items):
        away = (model.neighbour[item, 0] - item) % ring_data.num_items
        near += int(min(away, ring_data.num_items - away)) <= 2
    assert near > 0.8 * ring_data.num_items
