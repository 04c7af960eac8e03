"""Every gate keeps its contract, and gates that break it are told how."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.registry import GATES
from recdistill.teachers.ilora.gate import Gate
from recdistill.teachers.ilora.gates.linear import LinearGate
from recdistill.teachers.ilora.gates.topk import TopKGate, TopKOptions
from recdistill.testing import check_gate


@pytest.mark.parametrize("name", GATES.names())
def test_every_gate_keeps_the_contract(name: str) -> None:
    before = torch.get_rng_state()
    check_gate(name)
    check_gate(GATES.get(name))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kept", [2, 4])
def test_a_gate_is_checked_with_its_options(kept: int) -> None:
    check_gate("topk", TopKOptions(gate_kept=kept))
    check_gate(TopKGate, TopKOptions(gate_kept=kept))
    with pytest.raises(AssertionError, match="topk: gate_kept=5: must be at most experts=4"):
        check_gate("topk", TopKOptions(gate_kept=5))


class Unnormalised(LinearGate):
    def weights(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class Negative(LinearGate):
    def weights(self, logits: Tensor) -> Tensor:
        return logits / logits.sum(dim=-1, keepdim=True)


class OverTheBatch(LinearGate):
    def logits(self, state: Tensor) -> Tensor:
        logits = self.linear(state)
        return logits if logits.ndim < 2 else logits + logits.cumsum(dim=0)


class OneState(LinearGate):
    def weights(self, logits: Tensor) -> Tensor:
        return logits.flatten(end_dim=-2).softmax(dim=-1) if logits.ndim > 2 else logits.softmax(dim=-1)


class AlwaysNoisy(LinearGate):
    def logits(self, state: Tensor) -> Tensor:
        return self.linear(F.dropout(state, 0.5))


class Constant(LinearGate):
    def logits(self, state: Tensor) -> Tensor:
        return 0 * self.linear(state)


class KeepsAside(LinearGate):
    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.bias = torch.randn(experts)

    def logits(self, state: Tensor) -> Tensor:
        return self.linear(state) + self.bias


class Unused(LinearGate):
    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.other = nn.Linear(state_size, experts)


class SaysItLearns(TopKGate):
    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts, TopKOptions())

    @property
    def learns(self) -> bool:
        return True


class SaysItDoesNot(LinearGate):
    @property
    def learns(self) -> bool:
        return False


class OfAnySize(LinearGate):
    def forward(self, state: Tensor) -> Tensor:
        full = F.pad(state, (0, self.state_size - state.shape[-1]))
        return super().forward(full)


class LowPrecision(LinearGate):
    def weights(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1).to(torch.bfloat16)


class TooFew(LinearGate):
    def logits(self, state: Tensor) -> Tensor:
        return self.linear(state)[..., :-1]


class NoLogits(Gate):
    pass


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Unnormalised, "weights sum to 1 ±"),
        (Negative, "gives a negative weight in evaluation mode; use a softmax"),
        (OverTheBatch, "are not the permuted weights|are not those of the same states in one row"),
        (OneState, r"gives [10, 4] for states [2, 5, 64]"),
        (AlwaysNoisy, "random numbers in training alone|are not those of the same states"),
        (Constant, "gives all states the same weights"),
        (KeepsAside, "another gate with the same state_dict gives other weights"),
        (Unused, "no gradient reaches other.weight, other.bias"),
        (SaysItLearns, "no gradient reaches linear.weight"),
        (SaysItDoesNot, "says that it does not learn, but a gradient reaches it"),
        (OfAnySize, "reads states of another size"),
        (LowPrecision, "gives torch.bfloat16 for states"),
        (TooFew, r"gives [24, 3] for states"),
        (NoLogits, "cannot be built .* it must define logits"),
    ],
)
def test_a_gate_that_breaks_it_is_told_how(broken: type[Gate], said: str) -> None:
    with pytest.raises(AssertionError, match=said.replace("[", r"\[").replace("]", r"\]")) as caught:
        check_gate(broken)
    assert str(caught.value).startswith(f"{broken.__name__}: ")
    assert not re.search(r"\n", str(caught.value))
