"""A ranking model over the tiny llama, windows for it, and a backbone that a loop can repeat."""

from dataclasses import replace

import torch
from tiny_llm import tiny_base_llm
from torch import Tensor

from recdistill.teachers.ranking.model import BackboneTables, RankingModel, RankingShape, build_ranking_model

TITLES = [f"Film {'of the day ' * (item % 3)}number {item}" for item in range(14)]
ITEMS, STATE, LENGTH = len(TITLES), 8, 7
SHAPE = RankingShape(
    rank=8,
    alpha=16.0,
    dropout=0.0,
    experts=4,
    gate="linear",
    residual=True,
    packing=True,
    context=3,
    plain_titles=False,
)
# Windows of 7, 7 and 4 items; their samples in no order.
HISTORY = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 13], [3, 1, 3, 9, ITEMS, ITEMS, ITEMS]])
ROW = torch.tensor([1, 0, 0, 2, 1, 0, 2])
COLUMN = torch.tensor([4, 6, 3, 3, 5, 5, 1])


def tables(bias: bool = False, size: int = STATE) -> BackboneTables:
    generator = torch.Generator().manual_seed(4)
    made = [torch.randn(ITEMS, size, generator=generator) for _ in range(2)]
    return BackboneTables(*made, torch.randn(ITEMS, generator=generator) if bias else None)


def states_of(history: Tensor) -> Tensor:
    """A causal backbone: the state after an item is a decaying sum over the items up to it."""
    table = torch.randn(ITEMS + 1, STATE, generator=torch.Generator().manual_seed(5))
    states, state = [], torch.zeros(len(history), STATE)
    for column in range(history.shape[1]):
        state = 0.7 * state + table[history[:, column]]
        states.append(state)
    return torch.stack(states, dim=1)


def fresh(dtype: torch.dtype = torch.float32, backbone: BackboneTables | None = None, **changes) -> RankingModel:
    torch.manual_seed(0)
    return build_ranking_model(tiny_base_llm(dtype), replace(SHAPE, **changes), TITLES, backbone or tables())


def trained(dtype: torch.dtype = torch.float32, **changes) -> RankingModel:
    """A teacher in evaluation mode, every trained parameter moved off its initial value, the gate decidedly."""
    teacher = fresh(dtype, **changes)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if parameter.requires_grad:
                scale = 2.0 if name.startswith("gate.") else 0.2
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return teacher.eval()


@torch.no_grad()
def ask(teacher: RankingModel, history=HISTORY, row=ROW, column=COLUMN, states=None) -> tuple[Tensor, Tensor]:
    return teacher(history, row, column, states_of(history) if states is None else states)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
