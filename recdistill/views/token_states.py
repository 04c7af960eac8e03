"""The mean of a model's last hidden states over a part of each text's tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@torch.inference_mode()
def mean_states(
    model: Any, rows: Sequence[Sequence[int]], read: Sequence[tuple[int, int]], padding: int
) -> NDArray[np.float32]:
    """float32 [n, H]: the mean of states ``begin`` to ``end`` of each row.

    Args:
        model: of transformers; its first output is the last hidden state [n, T, H].
        rows: token ids of n texts, at least one each; they are padded on the right.
        read: first token and the one after the last that count, at least one, of each row.
        padding: id that fills rows up.
    """
    device = next(model.parameters()).device
    longest = max(map(len, rows))
    tokens = torch.full((len(rows), longest), padding)
    mask, weight = torch.zeros(len(rows), longest, dtype=torch.int64), torch.zeros(len(rows), longest)
    for place, (row, (begin, end)) in enumerate(zip(rows, read, strict=True)):
        tokens[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
        weight[place, begin:end] = 1 / (end - begin)
    states: Tensor = model(input_ids=tokens.to(device), attention_mask=mask.to(device))[0].float()
    weight = weight.to(device)
    # States at the padding may be anything.
    mean = torch.einsum("nt,nth->nh", weight, states.masked_fill(weight[..., None] == 0, 0))
    found: NDArray[np.float32] = mean.cpu().numpy()
    return found
