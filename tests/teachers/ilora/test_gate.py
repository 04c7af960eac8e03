import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from recdistill.errors import InputError
from recdistill.registry import GATES
from recdistill.teachers.ilora.gate import Gate, build_gate, gate_metrics

PARITY = Path(__file__).parents[2] / "parity" / "ilora_layer.safetensors"
# Our gate, its name in the parity file, and its parameters' names there.
RELEASED = {
    "linear": ("Dense", {"linear_layer.": "linear."}),
    "mlp": ("MLP", {"linear_layer1.": "hidden.", "linear_layer2.": "output."}),
    "topk": ("topK", {"linear_layer.": "linear."}),
    "resnet": ("resnet", {"gate.fc.": "output."}),
}


def released(name: str) -> tuple[Gate, Tensor, Tensor]:
    """Our gate with the released weights, its input [5, 64] and its output [5, 4]."""
    theirs, renamed = RELEASED[name]
    prefix = f"gate.{theirs}.w."
    with safe_open(PARITY, "pt") as file:
        weights = {key[len(prefix) :]: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        state, expected = file.get_tensor("in.user"), file.get_tensor(f"gate.{theirs}.out")
    for old, new in renamed.items():
        weights = {key.replace(old, new): value for key, value in weights.items()}
    gate = build_gate(name, 64, 4)
    gate.load_state_dict(weights)
    return gate.eval(), state, expected


@pytest.mark.parametrize("name", RELEASED)
def test_gate_equals_the_released_one(name: str) -> None:
    gate, state, expected = released(name)
    torch.testing.assert_close(gate(state), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", GATES.names())
@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 5, 64), (3, 7)])
@pytest.mark.parametrize("training", [False, True])
def test_weights_are_a_distribution_over_the_experts(name: str, shape: tuple[int, ...], training: bool) -> None:
    gate = build_gate(name, shape[-1], 4).train(training)
    weights = gate(3 * torch.randn(shape))
    assert weights.shape == (*shape[:-1], 4)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]))


@pytest.mark.parametrize("name", GATES.names())
def test_leading_dimensions_are_a_batch(name: str) -> None:
    gate, state = build_gate(name, 64, 4).eval(), torch.randn(2, 5, 64)
    torch.testing.assert_close(gate(state).flatten(0, 1), gate(state.flatten(0, 1)))


@pytest.mark.parametrize("name", GATES.names())
def test_a_state_in_bfloat16_gives_float32_weights(name: str) -> None:
    assert build_gate(name, 64, 4).eval()(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("name", ["noisy", "dropout"])
def test_randomness_is_for_training_only(name: str) -> None:
    gate, state = build_gate(name, 64, 4), torch.randn(3, 64)
    assert not torch.equal(gate(state), gate(state))
    gate.eval()
    assert torch.equal(gate(state), gate(state))


@pytest.mark.parametrize("name", [name for name in GATES.names() if name != "topk"])
def test_every_parameter_of_the_gate_learns(name: str) -> None:
    gate = build_gate(name, 64, 4)
    (gate(torch.randn(6, 64)) * torch.randn(6, 4)).sum().backward()
    assert [n for n, p in gate.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_topk_keeps_the_likeliest_experts_and_learns_from_two_on() -> None:
    gate, state = build_gate("topk", 64, 4, options={"gate_kept": 2}), torch.randn(6, 64)
    weights, logits = gate(state), gate.logits(state)
    assert bool(((weights > 0).sum(-1) == 2).all())
    assert torch.equal((weights > 0).nonzero()[:, 1].reshape(6, 2), logits.topk(2).indices.sort(-1).values)
    (weights * torch.randn(6, 4)).sum().backward()
    assert gate.linear.weight.grad is not None
    assert gate.linear.weight.grad.abs().sum() > 0
    assert gate.learns
    assert not build_gate("topk", 64, 4).learns


def test_released_topk_is_one_hot() -> None:
    gate, state, _ = released("topk")
    assert torch.equal(gate(state).sort(-1).values, torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(5, 4))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="gate 'dense' is unknown; choose one of dropout, linear, mlp"):
        build_gate("dense", 64, 4)
    with pytest.raises(InputError, match="experts is 0"):
        build_gate("linear", 64, 0)
    with pytest.raises(InputError, match="gate_kept=5: must be at most experts=4"):
        build_gate("topk", 64, 4, options={"gate_kept": 5})
    with pytest.raises(InputError, match="gate 'linear' has no option gate_kept; leave it out"):
        build_gate("linear", 64, 4, options={"gate_kept": 1})
    with pytest.raises(ValueError, match=r"must be \[..., 64\]"):
        build_gate("linear", 64, 4)(torch.randn(3, 32))


@pytest.mark.parametrize("name", GATES.names())
@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64)])
def test_a_gate_per_layer_is_so_many_gates_side_by_side(name: str, shape: tuple[int, ...]) -> None:
    together, state = build_gate(name, 64, 4, layers=3).eval(), torch.randn(shape)
    weights = together(state)
    assert weights.shape == (*shape[:-1], 3, 4)
    for layer, gate in enumerate(together.gates):
        assert torch.equal(weights[..., layer, :], gate(state))
    if name != "topk":
        assert not torch.allclose(weights[..., 0, :], weights[..., 1, :])


def test_gates_per_layer_have_the_options() -> None:
    weights = build_gate("topk", 64, 4, layers=3, options={"gate_kept": 3})(torch.randn(5, 64))
    assert ((weights > 0).sum(-1) == 3).all()


def test_gate_metrics_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    metrics = gate_metrics(weights)
    assert set(metrics) == {"gate_entropy", "expert_usage_0", "expert_usage_1"}
    assert metrics["gate_entropy"] == pytest.approx(math.log(2) / 2)
    assert (metrics["expert_usage_0"], metrics["expert_usage_1"]) == (0.75, 0.25)
    by_layer = gate_metrics(weights.view(2, 2, 2))
    assert {name: float(value) for name, value in by_layer.items()} == {n: float(v) for n, v in metrics.items()}


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.1, 20))
def test_gate_metrics_are_within_their_bounds(rows: int, experts: int, sharpness: float) -> None:
    metrics = gate_metrics((sharpness * torch.randn(rows, experts)).softmax(-1))
    assert -1e-6 <= metrics["gate_entropy"] <= math.log(experts) + 1e-5
    usage = sum(float(metrics[f"expert_usage_{expert}"]) for expert in range(experts))
    assert usage == pytest.approx(1, abs=1e-5)
