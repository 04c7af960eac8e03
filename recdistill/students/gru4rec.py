"""GRU4Rec: a recurrent layer over the history (Hidasi et al., ICLR 2016), as DLLM2Rec releases it."""

from dataclasses import dataclass

from torch import Tensor, nn

from recdistill.config.option import option
from recdistill.registry import STUDENTS
from recdistill.students.dropout import Dropout
from recdistill.students.gru_layers import gru_states, pays
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.student import Student, gather_states


@dataclass(frozen=True, kw_only=True)
class GRU4RecOptions:
    """Own options of a GRU4Rec."""

    blocks: int = option(2, "stacked blocks or layers", least=1)


@STUDENTS.register("gru4rec", options=GRU4RecOptions, gradient=True)
class GRU4Rec(Student):
    """Recurrent recommender, causal; see `Student` for the interface.

    Args:
        items: the item embedding, width D; the states have the same width.
        dropout: probability on the item embeddings and between layers.
        max_length: the longest history read.
        output: see `Student`.
        blocks: stacked GRU layers (the release has 1).
    """

    causal = True

    def __init__(self, items: ItemEmbedding, dropout: float, max_length: int, output: str, blocks: int = 1) -> None:
        hidden_size = items.hidden_size
        super().__init__(items, hidden_size, max_length, output)
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(hidden_size, hidden_size, blocks, batch_first=True, dropout=dropout if blocks > 1 else 0.0)
        for name, parameter in self.gru.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, history: Tensor, length: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """States [S, D] at ``(row, column)`` of windows [W, L]; see `Student.forward`."""
        self._check_length(history)
        inputs = self.dropout(self.items(history))
        states = gru_states(self.gru, inputs) if pays(inputs) else self.gru(inputs)[0]
        return gather_states(states, row, column)
