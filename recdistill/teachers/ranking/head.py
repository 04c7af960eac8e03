"""The output layer that scores the whole catalogue from the LLM's last hidden state."""

import torch
from torch import Tensor, nn


class RankingHead(nn.Module):
    """Scores of all V items in one product.

    ``query = backbone state (where residual) + Linear(H->D)(hidden)`` against the backbone's frozen item table, and
    ``Linear(H->C)(hidden)`` against ``Linear(H->C)(title)``, the LLM's own view of each title. Both start at zero
    beside the backbone: a residual head begins as the backbone exactly, and the LLM learns what it adds.

    Args:
        hidden_size: H.
        item_table: the backbone's output table [V, D]; kept as a buffer that is not saved.
        item_bias: the backbone's output bias [V], or None for none.
        titles: the frozen LLM's embedding of each title [V, H]; kept as a buffer that is not saved.
        residual: whether the query starts from the backbone's state.
        content_size: C; 0 leaves the titles out.
    """

    item_table: Tensor
    item_bias: Tensor
    titles: Tensor

    def __init__(
        self,
        hidden_size: int,
        item_table: Tensor,
        item_bias: Tensor | None,
        titles: Tensor,
        residual: bool,
        content_size: int,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.content_size = content_size
        num_items, state_size = item_table.shape
        bias = torch.zeros(num_items) if item_bias is None or not residual else item_bias.detach().clone()
        self.register_buffer("item_table", item_table.detach().clone(), persistent=False)
        self.register_buffer("item_bias", bias, persistent=False)
        normed = (titles - titles.mean(dim=0)) / titles.std(dim=0).clamp(min=1e-6)
        self.register_buffer("titles", normed, persistent=False)
        self.norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, state_size)
        if residual:
            nn.init.zeros_(self.query.weight)
            nn.init.zeros_(self.query.bias)
        if content_size:
            self.content_query = nn.Linear(hidden_size, content_size)
            self.content_key = nn.Linear(hidden_size, content_size, bias=False)
            nn.init.zeros_(self.content_query.weight)
            nn.init.zeros_(self.content_query.bias)

    def forward(self, hidden: Tensor, state: Tensor) -> Tensor:
        """Logits [S, V] of last hidden states [S, H] and backbone states [S, D]."""
        hidden = self.norm(hidden.float())
        query = self.query(hidden)
        if self.residual:
            query = query + state
        logits = torch.addmm(self.item_bias, query, self.item_table.T)
        if self.content_size:
            keys = self.content_key(self.titles) / self.titles.shape[1] ** 0.5
            logits = logits + self.content_query(hidden) @ keys.T
        return logits
