import numpy as np
import pytest
import torch

from recdistill.config import DataConfig
from recdistill.data.interactions import Interactions
from recdistill.data.load import split_data
from recdistill.data.samples import Samples
from recdistill.students.interactions import cooccurrence, interaction_matrix, longest_history, multi_hot

# Two users: 4 0 2 | 2 1 and 3 2 3 | 0 5; what stands behind the bar is held out.
ITEMS = np.array([4, 0, 2, 2, 1, 3, 2, 3, 0, 5])


def training() -> Samples:
    """Samples up to the third item of each user."""
    return Samples(ITEMS, np.array([0, 0, 5, 5]), np.array([1, 2, 6, 7]), np.array([0, 0, 1, 1]))


def test_each_user_has_the_items_of_training_histories_and_targets_once() -> None:
    expected = [[1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 0, 0]]
    assert interaction_matrix(training(), 6).toarray().tolist() == expected
    backwards = training().subset([3, 1, 2, 0])
    assert interaction_matrix(backwards, 6).toarray()[[0, 1]].tolist() == expected


def test_items_had_together_are_counted_in_pieces() -> None:
    matrix = interaction_matrix(training(), 6)
    whole = torch.tensor(matrix.toarray()).T @ torch.tensor(matrix.toarray())
    assert cooccurrence(matrix, 0, 6).tolist() == whole.tolist()
    assert torch.cat([cooccurrence(matrix, 0, 4), cooccurrence(matrix, 4, 6)]).tolist() == whole.tolist()
    assert whole[2].tolist() == [1, 0, 2, 1, 1, 0]


@pytest.mark.parametrize("split", ["leave-one-out", "chronological"])
def test_of_a_whole_data_set_it_is_what_a_loop_finds(split: str, ring: Interactions) -> None:
    data = split_data(ring, DataConfig(split=split))
    train, found = data.train, interaction_matrix(data.train, data.num_items)
    users = sorted(set(train.user.tolist()))
    expected = np.zeros((len(users), data.num_items))
    for start, end, user in zip(train.start, train.end, train.user, strict=True):
        expected[users.index(user), train.items[start : end + 1]] = 1
    assert np.array_equal(found.toarray(), expected)
    lengths = [part.end - part.start for part in (data.train, data.validation, data.test)]
    assert longest_history(data) == max(int(one.max()) for one in lengths)


def test_a_history_is_a_row_of_ones_without_its_padding() -> None:
    history, length = torch.tensor([[3, 1, 3, 4], [2, 0, 1, 4], [0, 0, 0, 0]]), torch.tensor([3, 1, 4])
    assert multi_hot(history, length, 4).tolist() == [[0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]
