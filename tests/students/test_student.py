"""The contract of every student, run over all of them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.build import build_student
from recdistill.students.student import Student, gather_states

NUM_ITEMS, LENGTH = 40, 10
BY_GRADIENT = STUDENTS.names(gradient=True)
CAUSAL = [name for name in BY_GRADIENT if STUDENTS.get(name).causal]
Build = Callable[..., Student]


def last_states(model: Student, history: Tensor, length: Tensor) -> Tensor:
    return model(history, length, torch.arange(len(history)), length - 1)


def some_windows() -> tuple[Tensor, Tensor]:
    """Right-padded windows [6, 10] of lengths 1 to 10, and their lengths."""
    length = torch.tensor([1, 2, 4, 7, 9, 10])
    history = torch.randint(0, NUM_ITEMS, (6, LENGTH))
    return history.masked_fill(torch.arange(LENGTH) >= length[:, None], NUM_ITEMS), length


def test_causal_students_are_the_ones_of_the_papers() -> None:
    assert CAUSAL == ["esasrec", "gru4rec", "sasrec"]


@pytest.mark.parametrize("ed_weight", [0.0, 0.3])
@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", BY_GRADIENT)
def test_shapes_and_gradients(student: str, output: str, ed_weight: float, build: Build) -> None:
    model = build(student, ed_weight, output=output).train()
    history, length = some_windows()
    states = last_states(model, history, length)
    logits = model.logits(states)
    assert states.shape == (6, model.state_size)
    assert logits.shape == (6, NUM_ITEMS)
    assert model.item_table().shape == (NUM_ITEMS, 16)
    logits.square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_tied_logits_are_products_with_the_injected_item_table(student: str, build: Build) -> None:
    tied, states = build(student, 0.3), torch.randn(5, 16)
    torch.testing.assert_close(tied.logits(states), states @ tied.item_table().T)


@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", BY_GRADIENT)
def test_logits_are_those_of_the_output_layer(student: str, output: str, build: Build) -> None:
    model = build(student, 0.3, output=output)
    weight, bias = model.output_layer()
    states = torch.randn(5, model.state_size)
    assert (bias is None) == (output == "tied")
    torch.testing.assert_close(model.logits(states), torch.nn.functional.linear(states, weight, bias))


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_scores_are_the_logits_after_the_last_item(student: str, build: Build) -> None:
    model = build(student, 0.3)
    history, length = some_windows()
    assert torch.equal(model.scores(history, length), model.logits(last_states(model, history, length)))


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_content_of_the_padding_is_irrelevant(student: str, build: Build) -> None:
    model = build(student, 0.3)
    history, length = some_windows()
    garbage = torch.where(history == NUM_ITEMS, torch.randint(0, NUM_ITEMS, history.shape), history)
    assert not torch.equal(garbage, history)
    torch.testing.assert_close(
        last_states(model, garbage, length), last_states(model, history, length), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_width_of_the_padding_is_irrelevant(student: str, build: Build) -> None:
    model = build(student, 0.3)
    history, length = some_windows()
    torch.testing.assert_close(
        last_states(model, history[:3, :4], length[:3]),
        last_states(model, history, length)[:3],
        atol=1e-6,
        rtol=1e-5,
    )


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_every_item_of_the_history_counts(student: str, build: Build) -> None:
    model = build(student)
    history = torch.arange(LENGTH).unsqueeze(0)
    length = torch.tensor([LENGTH])
    before = last_states(model, history, length)
    for column in range(LENGTH):
        changed = history.clone()
        changed[0, column] = 30
        assert (last_states(model, changed, length) - before).abs().max() > 1e-5, column


@pytest.mark.parametrize("student", CAUSAL)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.integers(0, LENGTH - 2), seed=st.integers(0, 2**32 - 1))
def test_later_items_change_no_earlier_state(student: str, build: Build, column: int, seed: int) -> None:
    model = build(student, 0.3)
    history = torch.randint(0, NUM_ITEMS, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
    changed = history.clone()
    changed[:, column + 1 :] = (changed[:, column + 1 :] + 1) % NUM_ITEMS
    row = torch.arange(2).repeat_interleave(LENGTH)
    columns = torch.arange(LENGTH).repeat(2)
    length = torch.tensor([LENGTH, LENGTH])
    before = model(history, length, row, columns).view(2, LENGTH, -1)
    after = model(changed, length, row, columns).view(2, LENGTH, -1)
    torch.testing.assert_close(after[:, : column + 1], before[:, : column + 1], atol=1e-6, rtol=1e-5)
    assert (after[:, column + 1] - before[:, column + 1]).abs().max() > 1e-5


@pytest.mark.parametrize("student", CAUSAL)
def test_one_window_answers_all_its_prefixes(student: str, build: Build) -> None:
    model = build(student, 0.3)
    history, length = some_windows()
    row = torch.cat([torch.full((n,), w) for w, n in enumerate(length.tolist())])
    column = torch.cat([torch.arange(n) for n in length.tolist()])
    shared = model(history, length, row, column)
    prefixes = history[row].masked_fill(torch.arange(LENGTH) > column[:, None], NUM_ITEMS)
    separate = last_states(model, prefixes, column + 1)
    torch.testing.assert_close(shared, separate, atol=1e-6, rtol=1e-5)


def test_gather_states_is_indexing_by_row_and_column() -> None:
    states = torch.randn(3, 5, 2)
    row, column = torch.tensor([2, 0, 0, 1]), torch.tensor([4, 0, 3, 1])
    assert torch.equal(gather_states(states, row, column), states[row, column])


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_rows_may_come_in_any_order(student: str, build: Build) -> None:
    model = build(student)
    history, length = some_windows()
    row = torch.tensor([5, 0, 3])
    states = model(history, length, row, length[row] - 1)
    torch.testing.assert_close(states, last_states(model, history, length)[row], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_too_long_a_window_is_refused(student: str, build: Build) -> None:
    with pytest.raises(InputError, match=r"windows of 11 items.*max_length 10"):
        last_states(build(student), torch.zeros(1, 11, dtype=torch.int64), torch.tensor([11]))


@pytest.mark.parametrize("student", BY_GRADIENT)
def test_learns_to_repeat_the_successor(student: str, shape: Callable) -> None:
    """A student fits a catalogue where item i is followed by i + 1, from its initial parameters."""
    smaller = {} if student == "caser" else {"blocks": 1}
    model = build_student(shape(student, max_length=4, **smaller), NUM_ITEMS)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = (torch.arange(NUM_ITEMS)[:, None] + torch.arange(4)) % NUM_ITEMS
    target, length = (history[:, -1] + 1) % NUM_ITEMS, torch.full((NUM_ITEMS,), 4)
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(model.logits(last_states(model, history, length)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = model.eval().logits(last_states(model, history, length)).argmax(-1)
    assert (found == target).float().mean() > 0.9
