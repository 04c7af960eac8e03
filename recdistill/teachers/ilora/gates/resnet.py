"""The residual gate, which iLoRA's training scripts use ("resnet" in its release)."""

import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.registry import GATES
from recdistill.teachers.ilora.gate import Gate

RESNET_CHANNELS = (16, 32, 64)
RESNET_BLOCKS = 3


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


@GATES.register("resnet")
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
