import pytest
import torch

from recdistill.errors import InputError
from recdistill.students.caser import Caser
from recdistill.students.item_embedding import ItemEmbedding


def make(**changes: object) -> Caser:
    return Caser(ItemEmbedding(20, 8), **({"dropout": 0.0, "max_length": 6, "output": "linear"} | changes))


def test_features_by_loops() -> None:
    model = make(filters=2)
    history = torch.randint(0, 20, (1, 6))
    image = model.items.embedding.weight[history[0]]  # (L, D)
    features = []
    for convolution, height in zip(model.horizontal, (2, 3, 4), strict=True):
        for f in range(2):
            weight = convolution.weight[f].T  # (height, D)
            heights = [(image[t : t + height] * weight).sum() for t in range(6 - height + 1)]
            features.append((torch.stack(heights).max() + convolution.bias[f]).clamp(min=0))
    for d in range(8):
        features.append(((image[:, d] * model.vertical.weight[0]).sum() + model.vertical.bias[0]).clamp(min=0))
    states = model(history, torch.tensor([6]), torch.tensor([0]), torch.tensor([5]))
    torch.testing.assert_close(states[0], torch.stack(features), atol=1e-6, rtol=1e-5)


def test_state_size_is_that_of_the_features_or_of_the_items() -> None:
    assert make().state_size == 3 * 16 + 8
    assert make(output="tied").state_size == 8


def test_a_sample_inside_a_window_is_refused() -> None:
    history, row = torch.zeros(1, 6, dtype=torch.int64), torch.tensor([0, 0])
    with pytest.raises(InputError, match="one sample a window"):
        make()(history, torch.tensor([6]), row, torch.tensor([3, 5]))


def test_too_short_a_vertical_filter_is_refused() -> None:
    with pytest.raises(InputError, match="max_length=3: caser needs at least 4"):
        make(max_length=3)
