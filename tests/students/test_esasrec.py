import pytest
import torch
import torch.nn.functional as F

from recdistill.errors import InputError
from recdistill.students.esasrec import CausalAttention, ESASRec, GatedResidual, SwiGLU
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.testing import check_student

SIZES = {"dropout": 0.0, "max_length": 6, "output": "tied", "blocks": 2, "heads": 2, "expansion": 3}


def test_it_keeps_the_contract_of_a_student() -> None:
    check_student("esasrec")


def test_attention_by_loops() -> None:
    attention = CausalAttention(8, heads=2, dropout=0.5).eval()
    states = torch.randn(1, 5, 8)
    query, key, value = attention.query_key_value(states)[0].split(8, dim=1)
    rows = []
    for place in range(5):
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            score = torch.stack([query[place, head] @ key[before, head] for before in range(place + 1)]) / 2
            heads.append((score.softmax(0)[:, None] * value[: place + 1, head]).sum(0))
        rows.append(attention.output(torch.cat(heads)))
    torch.testing.assert_close(attention(states)[0], torch.stack(rows), atol=1e-6, rtol=1e-5)


def test_feed_forward_is_swiglu() -> None:
    layer, states = SwiGLU(4, 6, dropout=0.5).eval(), torch.randn(3, 4)
    gate, inner, outer = layer.gate.weight, layer.inner.weight, layer.outer.weight
    inside = states @ gate.T
    expected = (inside / (1 + torch.exp(-inside)) * (states @ inner.T)) @ outer.T
    torch.testing.assert_close(layer(states), expected, atol=1e-6, rtol=1e-5)


def test_the_gate_reads_the_layers_input_before_the_norm() -> None:
    """LiGR (eSASRec's equation 1): x + sigmoid(x W + b) * F(LayerNorm(x))."""
    layer, states = GatedResidual(torch.nn.Linear(4, 4), 4, dropout=0.5).eval(), 3 + torch.randn(2, 5, 4)
    gate = 1 / (1 + torch.exp(-(states @ layer.gate.weight.T + layer.gate.bias)))
    inside = layer.inside(F.layer_norm(states, (4,), layer.norm.weight, layer.norm.bias))
    torch.testing.assert_close(layer(states), states + gate * inside, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        layer.gate.bias.fill_(-100)
    assert torch.equal(layer(states), states)


def test_states_go_through_the_layers_one_after_another() -> None:
    model = ESASRec(ItemEmbedding(20, 8), **SIZES)
    history, row, column = torch.tensor([[3, 4, 5, 6, 7]]), torch.tensor([0, 0]), torch.tensor([1, 4])
    states = model.items(history) + model.positions.weight[:5]
    for attention, feed_forward in zip(model.attentions, model.feed_forwards, strict=True):
        states = feed_forward(attention(states))
    found = model(history, torch.tensor([5]), row, column)
    torch.testing.assert_close(found, states[0, column], atol=1e-6, rtol=1e-5)
    assert model.feed_forwards[0].inside.gate.out_features == 24


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="heads=3: must divide hidden_size=8"):
        ESASRec(ItemEmbedding(5, 8), **SIZES | {"heads": 3})


def test_dropout_acts_in_training_only() -> None:
    model = ESASRec(ItemEmbedding(5, 8), **SIZES | {"dropout": 0.5})
    batch = torch.tensor([[1, 2, 3, 4]]), torch.tensor([4]), torch.tensor([0]), torch.tensor([3])
    assert not torch.equal(model(*batch), model(*batch))
    model.eval()
    assert torch.equal(model(*batch), model(*batch))


def test_attention_with_a_dropout_too_small_to_act_is_torchs() -> None:
    attention = CausalAttention(8, heads=2, dropout=1e-4)
    states = torch.randn(3, 5, 8)
    assert attention.training
    trained = attention(states)
    torch.testing.assert_close(trained, attention.eval()(states))
    (gradient,) = torch.autograd.grad(trained.sum(), attention.query_key_value.weight)
    assert gradient.isfinite().all()
