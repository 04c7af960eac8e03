import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.distillation.projection import factored
from recdistill.errors import InputError
from recdistill.students.item_embedding import ItemEmbedding


def by_formula(items: ItemEmbedding, teacher: Tensor, ids: Tensor) -> Tensor:
    """Item by item, as the paper writes it."""
    rows = []
    for item in ids.flatten().tolist():
        if item == items.num_items:
            rows.append(torch.zeros(items.hidden_size))
        else:
            rows.append(items.embedding.weight[item] + items.ed_weight * items.projection(teacher[item]))
    return torch.stack(rows).view(*ids.shape, -1)


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    ed_weight=st.floats(0.01, 2.0),
    training=st.booleans(),
    grad=st.booleans(),
)
def test_embedding_is_the_formula(ids: list[int], ed_weight: float, training: bool, grad: bool) -> None:
    teacher = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    items = ItemEmbedding(5, 3, teacher, ed_weight).train(training)
    history = torch.tensor(ids).view(1, -1)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(items(history), by_formula(items, teacher, history), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_item_table_is_what_forward_gives(training: bool, teacher_embedding: Tensor) -> None:
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3).train(training)
    assert items.item_table().shape == (40, 16)
    torch.testing.assert_close(items.item_table(), items(torch.arange(40)))
    assert items.padded_table()[40].eq(0).all()


@pytest.mark.parametrize(
    ("history", "projected"),
    [([[3, 3, 1, 40], [1, 3, 40, 40]], 3), ([list(range(40)), list(range(40))], 40)],
)
def test_each_distinct_item_is_projected_once(
    history: list[list[int]], projected: int, teacher_embedding: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3)
    rows = []
    linear = torch.nn.functional.linear

    def counting(table: Tensor, *rest: Tensor) -> Tensor:
        rows.append(table.shape)
        return linear(table, *rest)

    monkeypatch.setattr("torch.nn.functional.linear", counting)
    items(torch.tensor(history))
    assert rows == [(projected, 24)]


def test_one_table_serves_histories_and_scores(teacher_embedding: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3)
    history = torch.tensor([[3, 3, 1, 40], [1, 7, 40, 40]])
    rows = []
    linear = torch.nn.functional.linear

    def step() -> tuple[Tensor, dict[str, Tensor]]:
        items.zero_grad()
        loss = (items(history).sum(dim=1) @ items.item_table().T).pow(2).sum()
        loss.backward()
        return loss.detach(), {name: parameter.grad.clone() for name, parameter in items.named_parameters()}

    expected, gradients = step()
    monkeypatch.setattr("torch.nn.functional.linear", lambda *given: rows.append(given[0].shape) or linear(*given))
    with items.one_table():
        loss, found = step()
    assert rows == [(40, 24)]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, gradients)
    assert found["embedding.weight"][40].eq(0).all()
    # The step that follows moves the parameters: it has a table of its own.
    with torch.no_grad():
        items.embedding.weight[3] += 1
    assert not torch.equal(step()[0], loss)


def test_ed_weight_0_is_no_teacher_bit_for_bit(teacher_embedding: Tensor) -> None:
    torch.manual_seed(3)
    plain, after_plain = ItemEmbedding(40, 16), torch.rand(3)
    torch.manual_seed(3)
    zero, after_zero = ItemEmbedding(40, 16, teacher_embedding, 0.0), torch.rand(3)
    assert [name for name, _ in zero.named_parameters()] == ["embedding.weight"]
    assert zero.teacher_embedding is None
    assert torch.equal(plain.embedding.weight, zero.embedding.weight)
    assert torch.equal(after_plain, after_zero)
    history = torch.randint(0, 41, (6, 10))
    assert torch.equal(plain(history), zero(history))


def test_projection_repeats_no_number_of_other_parameters(teacher_embedding: Tensor) -> None:
    """Uniform draws from the same state would be the same up to scale."""
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3)
    next_drawn = torch.empty_like(items.projection.weight).uniform_(-1, 1)
    correlation = torch.corrcoef(torch.stack([items.projection.weight.flatten(), next_drawn.flatten()]))[0, 1]
    assert correlation.abs() < 0.3


def test_gradients_reach_embedding_and_projection_but_neither_padding_nor_teacher(
    teacher_embedding: Tensor,
) -> None:
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3)
    items(torch.tensor([[3, 40]])).sum().backward()
    assert items.embedding.weight.grad[3].eq(1).all()
    assert items.embedding.weight.grad[40].eq(0).all()
    torch.testing.assert_close(items.projection.bias.grad, torch.full((16,), 0.3))
    torch.testing.assert_close(items.projection.weight.grad, 0.3 * teacher_embedding[3].expand(16, 24))
    assert not items.teacher_embedding.requires_grad
    assert "teacher_embedding" not in items.state_dict()


@pytest.mark.parametrize("ids", [None, torch.tensor([2, 3, 17, 40])], ids=["all items", "items in use"])
def test_factors_of_a_table_are_the_table(ids: Tensor | None) -> None:
    """With as many directions as the table has: embeddings, and the gradient of the map."""
    drawn = torch.Generator().manual_seed(1)
    table = torch.randn(40, 6, generator=drawn) @ torch.randn(6, 24, generator=drawn)
    found = []
    for teacher in (table, factored(table, 6)):
        torch.manual_seed(3)
        items = ItemEmbedding(40, 16, teacher, 0.3)
        with items.one_table(ids):
            rows = items.padded_table()
            (rows * torch.linspace(-1, 2, rows.numel()).view_as(rows)).sum().backward()
        assert items.projection is not None
        found.append((rows, items.projection.weight, items.projection.weight.grad, items.projection.bias.grad))
    for whole, narrow in zip(*found, strict=True):
        torch.testing.assert_close(narrow, whole, atol=1e-4, rtol=1e-4)
    assert items.teacher_embedding is not None
    assert items.teacher_embedding.shape == (40, 6)
    assert set(items.state_dict()) == {"embedding.weight", "projection.weight", "projection.bias"}


def test_kept_table_follows_the_parameters(teacher_embedding: Tensor) -> None:
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3).eval()
    other = ItemEmbedding(40, 16, teacher_embedding, 0.3).eval()
    with torch.no_grad():
        first = items.item_table()
        assert items.item_table().data_ptr() == first.data_ptr()
        items.load_state_dict(other.state_dict())
        assert torch.equal(items.item_table(), other.item_table())
        items.projection.bias += 1.0
        torch.testing.assert_close(items.item_table(), other.item_table() + 0.3)
        items.train()
        items.projection.bias.data -= 1.0
        items.eval()
        torch.testing.assert_close(items.item_table(), other.item_table())


def test_table_made_in_inference_mode_stays_there(teacher_embedding: Tensor) -> None:
    items = ItemEmbedding(40, 16, teacher_embedding, 0.3).eval()
    with torch.inference_mode():
        items.item_table()
    with torch.no_grad():
        table = items.item_table()
    states = torch.ones(2, 16, requires_grad=True)
    (states @ table.T).sum().backward()
    torch.testing.assert_close(states.grad[0], table.sum(0))


def test_bf16_projection_is_close_and_float32(teacher_embedding: Tensor) -> None:
    exact = ItemEmbedding(40, 16, teacher_embedding, 0.3)
    rounded = ItemEmbedding(40, 16, teacher_embedding, 0.3, project_in_bf16=True)
    rounded.load_state_dict(exact.state_dict())
    assert rounded.teacher_embedding.dtype == torch.bfloat16
    assert rounded.item_table().dtype == torch.float32
    difference = (exact.item_table() - rounded.item_table()).abs().max()
    assert 0 < difference < 1e-2


@pytest.mark.parametrize(
    ("teacher", "ed_weight", "said"),
    [
        (None, 0.3, "there is no teacher embedding"),
        (torch.zeros(3, 4), 0.3, "each of the 5 items"),
        (torch.zeros(5), 0.3, "each of the 5 items"),
        (torch.full((5, 2), torch.nan), 0.3, "not finite"),
        (torch.zeros(5, 2, dtype=torch.int64), 0.3, "not finite"),
        (torch.zeros(5, 2), -0.1, "ed_weight is -0.1"),
        (torch.zeros(5, 2), float("nan"), "ed_weight is nan"),
    ],
)
def test_wrong_input_is_refused(teacher: Tensor | None, ed_weight: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ItemEmbedding(5, 3, teacher, ed_weight)
