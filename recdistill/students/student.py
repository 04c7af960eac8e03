"""What every student is: a recommender with an item embedding and an encoder of histories, trained by gradient."""

from abc import abstractmethod
from contextlib import nullcontext
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.distillation.output_layer import OutputLayer
from recdistill.errors import InputError
from recdistill.students.item_embedding import INITIAL_STD, ItemEmbedding
from recdistill.students.recommender import Recommender
from recdistill.students.shape import OUTPUTS
from recdistill.training.row_gradients import read_rows


class Student(Recommender):
    """A sequential recommender over V items that is trained by gradient.

    A subclass is registered with ``gradient=True`` and constructed as
    ``Kind(items, dropout=..., max_length=..., output=..., **its own options)``.

    Args:
        items: the item embedding, with or without injection.
        state_size: D, the width of the states.
        max_length: the longest history read.
        output: ``tied`` (logits = states @ item table^T) or ``linear`` (an own Linear(D->V) with bias, as DLLM2Rec
            releases it).

    Attributes:
        causal: whether the state at a column depends on the items up to that column only, so that one window
            answers all its samples. A student that is not causal needs one sample a window.
        batches_seeds: whether `torch.func.vmap` takes its ``forward``, so that several seeds train as one batched model
            (`students.together`): no value of a tensor decides what is computed, and no buffer changes. A subclass
            that keeps to it says so again.

    Raises:
        InputError: the output is unknown, or tied to states of another width than the item embedding's.
    """

    causal: ClassVar[bool]
    batches_seeds: ClassVar[bool] = False

    def __init__(self, items: ItemEmbedding, state_size: int, max_length: int, output: str) -> None:
        super().__init__(items.num_items, max_length)
        if output not in OUTPUTS:
            raise InputError(f"output={output}: must be one of {', '.join(OUTPUTS)}")
        if output != "linear" and state_size != items.hidden_size:
            raise InputError(
                f"output={output}: needs states of {items.hidden_size}, not {state_size}; set output=linear"
            )
        self.items = items
        self.state_size = state_size
        self.output_kind = output
        self.output = nn.Linear(state_size, items.num_items) if output == "linear" else None
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=INITIAL_STD)
            nn.init.zeros_(self.output.bias)

    @abstractmethod
    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States of the samples.

        Args:
            history: windows of item ids [W, L], right-padded with V.
            length: real length of each window [W].
            row, column: [S] each; sample s is predicted from the state of window ``row[s]`` at ``column[s]``.

        Returns:
            States [S, D].

        Raises:
            InputError: L exceeds ``max_length``.
        """

    def logits(self, states: Tensor) -> Tensor:
        """Scores [S, V] of all items, from states [S, D]; the padding has no score."""
        if self.output is not None:
            return self.output(states)
        return F.linear(states, self.item_table())

    def scored(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """States [S, D] and logits [S, V], as `forward` and `logits`; a tied table is computed once for both."""
        with nullcontext() if self.output is not None else self.items.one_table():
            states = self._states(history, length, row, column)
            return states, self.logits(states)

    @property
    def scores_by_layer(self) -> bool:
        """Whether scores are a product with `output_layer`; not so where a subclass makes its own `logits`."""
        return scores_by_layer(type(self))

    def encoded(
        self, history: Tensor, length: Tensor, row: Tensor, column: Tensor, ids: Tensor | None = None
    ) -> tuple[Tensor, OutputLayer]:
        """States [S, D], as `forward`, and the layer that scores items; a tied table is computed once for both.

        Args:
            history, length, row, column: as of `forward`.
            ids: int64 [U], ascending, each once, the padding id with them: the items in use, whose rows alone are read
                and get a (sparse) gradient. None for all.
        """
        table = nullcontext() if self.output is not None and ids is None else self.items.one_table(ids)
        with table:
            states = self._states(history, length, row, column)
            if self.output is None:
                # With the padding's row, so that the gradient needs no copy.
                return states, OutputLayer(self.items.padded_table(), None, self.num_items, ids)
        if ids is None:
            return states, OutputLayer(self.output.weight, self.output.bias, self.num_items)
        of_items = ids[:-1]
        weight, bias = read_rows(self.output.weight, of_items), read_rows(self.output.bias, of_items)
        return states, OutputLayer(weight, bias, self.num_items, ids)

    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        """Logits [B, V] after the last item of each history; see `Recommender.scores`."""
        row = torch.arange(history.shape[0], device=history.device)
        return self.logits(self._states(history, length, row, length - 1))

    def output_layer(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, D] and bias [V], or None for none, of the scores: ``logits = states @ weight^T + bias``."""
        if self.output is not None:
            return self.output.weight, self.output.bias
        return self.item_table(), None

    def item_table(self) -> Tensor:
        """The input table of all items [V, D], injection included."""
        return self.items.item_table()

    def _states(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States [S, D] of `forward`. Raises InputError where a subclass gives something else."""
        states = self(history, length, row, column)
        if not isinstance(states, Tensor) or states.shape != (len(row), self.state_size):
            found = list(states.shape) if isinstance(states, Tensor) else f"a {type(states).__name__}"
            raise InputError(
                f"student {type(self).__name__}: forward gives {found} for {len(row)} samples; give states "
                f"[{len(row)}, {self.state_size}], one of each sample, see students.student.gather_states"
            )
        return states

    def _check_length(self, history: Tensor) -> None:
        if history.shape[1] > self.max_length:
            raise InputError(
                f"windows of {history.shape[1]} items, but the student was built with max_length "
                f"{self.max_length}; cut the histories or build a longer student"
            )


def scores_by_layer(kind: type[Student]) -> bool:
    """See `Student.scores_by_layer`."""
    return kind.logits is Student.logits and kind.scored is Student.scored


def gather_states(states: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """``states[row, column]`` [S, D] of states [W, L, D]."""
    # index_select over the flattened windows: its backward is cheaper than that of indexing with two tensors.
    return states.flatten(0, 1).index_select(0, row * states.shape[1] + column)
