import torch

from recdistill.students.gru4rec import GRU4Rec
from recdistill.students.item_embedding import ItemEmbedding


def test_states_are_those_of_a_packed_sequence() -> None:
    """The release packs by real length; running over the padding changes no earlier state."""
    model = GRU4Rec(ItemEmbedding(20, 8), dropout=0.0, max_length=6, output="tied", blocks=2)
    length = torch.tensor([2, 6, 1])
    history = torch.randint(0, 20, (3, 6)).masked_fill(torch.arange(6) >= length[:, None], 20)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        model.items(history), length, batch_first=True, enforce_sorted=False
    )
    _, last = model.gru(packed)
    states = model(history, length, torch.arange(3), length - 1)
    torch.testing.assert_close(states, last[-1], atol=1e-6, rtol=1e-5)


def test_one_layer_by_default() -> None:
    model = GRU4Rec(ItemEmbedding(20, 8), dropout=0.1, max_length=6, output="tied")
    assert model.gru.num_layers == 1
