"""Adam that changes only the rows of a table that a step has used, for tables too large to write at every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recdistill.training.row_gradients import coalesced_gradient


class RowAdam(torch.optim.Adam):
    """Adam (Kingma & Ba, ICLR 2015), fused, in which a parameter with a sparse gradient changes in its rows alone.

    Moments of the other rows wait until their row is used again, as in `torch.optim.SparseAdam` ("lazy" Adam); with a
    gradient in every row it is Adam. The state has the names of Adam's, so that checkpoints are the same.

    Args:
        parameters: as of `torch.optim.Adam`.
        lr: learning rate.
        weight_decay: added to the gradient, times the parameter, in the rows that change.
    """

    def __init__(self, parameters: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of the gradients that are there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._step_rows(parameter, group)
                    parameter.grad = None
        super().step(closure)

    def _step_rows(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = coalesced_gradient(parameter)
        rows, values = gradient.indices()[0], gradient.values()
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        # On the CPU, so that no step waits for a GPU to read it; a checkpoint is put back on the table's device.
        state["step"] = state["step"].cpu() + 1
        step, (first, second) = float(state["step"]), group["betas"]
        before = parameter.index_select(0, rows)
        if group["weight_decay"]:
            values = values.add(before, alpha=group["weight_decay"])
        mean = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - first)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(second).addcmul_(values, values, value=1 - second)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        scale = square.sqrt().div_((1 - second**step) ** 0.5).add_(group["eps"])
        parameter.index_copy_(0, rows, before.addcdiv_(mean, scale, value=-group["lr"] / (1 - first**step)))
