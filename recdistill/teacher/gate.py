"""The gate of iLoRA (Instance-wise LoRA, NeurIPS 2024): a sequence's state to the mixing weights of K experts.

ω = softmax(f(h)), with h [..., D] the state of a trained sequential recommender. All gates share one call,
``gate(state) -> weights``; the name in ``GATES`` picks f. ``resnet`` is what the released training scripts use.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.errors import InputError

DROPOUT = 0.1
RESNET_CHANNELS = (16, 32, 64)
RESNET_BLOCKS = 3


class Gate(nn.Module):
    """Mixing weights [..., K], non-negative with sum one, of states [..., D]; subclasses write ``logits``.

    Args:
        state_size: D.
        experts: K.

    Raises:
        InputError: a size is below 1.
    """

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__()
        for name, value in (("state_size", state_size), ("experts", experts)):
            if value < 1:
                raise InputError(f"gate: {name} is {value}; give at least 1")
        self.state_size = state_size
        self.experts = experts

    def logits(self, state: Tensor) -> Tensor:
        """Unnormalised weights [..., K] of states [..., D]."""
        raise NotImplementedError

    def forward(self, state: Tensor) -> Tensor:
        """Mixing weights [..., K], in the parameters' precision, of states [..., D]. ValueError on another D."""
        if state.ndim < 1 or state.shape[-1] != self.state_size:
            raise ValueError(f"the gate's state has shape {list(state.shape)}; must be [..., {self.state_size}]")
        return self.weights(self.logits(state.to(next(self.parameters()).dtype)))

    def weights(self, logits: Tensor) -> Tensor:
        """Softmax over the experts [..., K]."""
        return logits.softmax(dim=-1)


class LinearGate(Gate):
    """Softmax of one Linear(D->K) without bias ("Dense" in the release)."""

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.linear = nn.Linear(state_size, experts, bias=False)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        return self.linear(state)


class MLPGate(Gate):
    """Softmax of Linear(D->2D), GELU, Linear(2D->K) ("MLP" in the release)."""

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.hidden = nn.Linear(state_size, 2 * state_size)
        self.output = nn.Linear(2 * state_size, experts)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        return self.output(F.gelu(self.hidden(state)))


class TopKGate(LinearGate):
    """Only the ``kept`` likeliest experts weigh: softmax over their probabilities, zero elsewhere.

    The release keeps one, whose weight is then the constant 1: no gradient reaches the gate. Keep two or more
    for a gate that learns.

    Raises:
        InputError: ``kept`` is not between 1 and the number of experts.
    """

    def __init__(self, state_size: int, experts: int, kept: int = 1) -> None:
        super().__init__(state_size, experts)
        if not 1 <= kept <= experts:
            raise InputError(f"gate topk: {kept} experts kept of {experts}; keep between 1 and {experts}")
        self.kept = kept

    def weights(self, logits: Tensor) -> Tensor:
        """Weights [..., K] with ``kept`` entries above zero."""
        probability, expert = logits.softmax(dim=-1).topk(self.kept, dim=-1)
        return torch.zeros_like(logits).scatter(-1, expert, probability.softmax(dim=-1).to(logits.dtype))


class NoisyGate(LinearGate):
    """The linear gate with learned Gaussian noise on its logits in training mode (Shazeer et al., ICLR 2017)."""

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        self.noise = nn.Linear(state_size, experts, bias=False)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]; in training mode plus normal noise of scale softplus(Linear(state))."""
        clean = self.linear(state)
        if not self.training:
            return clean
        return clean + torch.randn_like(clean) * F.softplus(self.noise(state))


class DropoutGate(LinearGate):
    """The linear gate with dropout on the state in training mode."""

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        return self.linear(F.dropout(state, DROPOUT, self.training))


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm [N, C_in, D] -> [N, C_out, ceil(D/stride)], and a parameter-free shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.stride = stride
        self.added_channels = channels - channels_in

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [N, C_out, ceil(D/stride)]."""
        outputs = F.relu(self.bn1(self.conv1(inputs)))
        outputs = self.bn2(self.conv2(outputs))
        before = self.added_channels // 2
        # New channels are zero in the shortcut, half of them on either side.
        shortcut = F.pad(inputs[..., :: self.stride], (0, 0, before, self.added_channels - before))
        return F.relu(outputs + shortcut)


class ResNetGate(Gate):
    """Softmax over a 1-D residual network that reads the state as a signal of length D ("resnet" in the release).

    In training mode batch norm takes its statistics over the whole batch of states, all leading dimensions
    together; pass no padding states then.
    """

    def __init__(self, state_size: int, experts: int) -> None:
        super().__init__(state_size, experts)
        first, last = RESNET_CHANNELS[0], RESNET_CHANNELS[-1]
        self.conv1 = nn.Conv1d(1, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(first)
        stages: list[nn.Module] = []
        channels_in = first
        for stage, channels in enumerate(RESNET_CHANNELS):
            strides = [1 if stage == 0 else 2] + [1] * (RESNET_BLOCKS - 1)
            blocks = []
            for stride in strides:
                blocks.append(ResidualBlock(channels_in, channels, stride))
                channels_in = channels
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.output = nn.Linear(last, experts)

    def logits(self, state: Tensor) -> Tensor:
        """Logits [..., K]."""
        signal = state.reshape(-1, 1, self.state_size)
        signal = F.relu(self.bn1(self.conv1(signal)))
        signal = self.layer3(self.layer2(self.layer1(signal)))
        return self.output(signal.mean(dim=-1)).reshape(*state.shape[:-1], self.experts)


class GatePerLayer(nn.Module):
    """A gate of its own for each of N adapted transformer layers: weights [..., N, K] of states [..., D].

    Args:
        gates: N of them, of the same sizes.
    """

    def __init__(self, gates: Iterable[Gate]) -> None:
        super().__init__()
        self.gates = nn.ModuleList(gates)

    def forward(self, state: Tensor) -> Tensor:
        """Mixing weights [..., N, K] of states [..., D]. ValueError on another D."""
        return torch.stack([gate(state) for gate in self.gates], dim=-2)


GATES: dict[str, type[Gate]] = {
    "linear": LinearGate,
    "mlp": MLPGate,
    "topk": TopKGate,
    "noisy": NoisyGate,
    "dropout": DropoutGate,
    "resnet": ResNetGate,
}


def build_gate(name: str, state_size: int, experts: int, layers: int | None = None) -> Gate | GatePerLayer:
    """The gate of this name in ``GATES``, from states [..., D] to weights [..., K].

    With ``layers`` there is one gate for each of so many layers, and weights are [..., layers, K].

    Raises:
        InputError: no gate has this name, or a size is below 1.
    """
    if name not in GATES:
        raise InputError(f"gate {name!r} is unknown; give one of {', '.join(GATES)}")
    if layers is None:
        return GATES[name](state_size, experts)
    return GatePerLayer(GATES[name](state_size, experts) for _ in range(layers))


def gate_metrics(weights: Tensor) -> dict[str, Tensor]:
    """How mixing weights [..., K] are spread, each a scalar.

    ``gate_entropy`` is the mean entropy in nats: log K where every expert weighs the same, 0 where one has it all.
    ``expert_usage_<k>`` is the mean weight of expert k, from 0.
    """
    usage = weights.flatten(end_dim=-2).mean(dim=0)
    entropy = torch.special.entr(weights).sum(dim=-1).mean()
    return {"gate_entropy": entropy, **{f"expert_usage_{expert}": share for expert, share in enumerate(usage)}}
