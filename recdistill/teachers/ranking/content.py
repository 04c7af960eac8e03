"""What a ranking teacher knows of an item by its text alone: a vector of each item, and scores of items without clicks.

A backbone has nothing to say of an item that is no training target: its row in the tables is as it was drawn. Here such
rows are those of a linear map of the adapted LLM's states over the items' texts, fitted by ridge regression to the rows
of the trained items; so the teacher scores new items, injects them and offers them as candidates.
"""

import torch
from torch import Tensor, nn

from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.text_reading import TextTokens

#: Items whose texts are read together.
TEXT_ROWS = 64
#: Share of the mean variance that the ridge penalty is; and interactions at which a row counts half.
PENALTY, HALF = 0.1, 5.0


class ItemContent(nn.Module):
    """The items' texts as tokens, and what was learnt of them; its buffers and map are saved with the teacher.

    Args:
        llm: the frozen base, for its tokenizer and size.
        texts: V texts as tokens.
        count: how often each item is a training target [V].
        tables: the backbone's input and output tables [V, D].

    Attributes:
        texts: their tokens.
        new: ids of the items that are no training target [N].
        mean, deviation: of the frozen LLM's text states [H] over trained items.
        text_map: from standardised text states to the backbone's output space, H -> D.
        view: text states of all items after the contrast [V, H]; of no item where there was none.
        input_rows, output_rows: rows of the new items [N, D] in the backbone's tables.
    """

    mean: Tensor
    deviation: Tensor
    view: Tensor
    input_rows: Tensor
    output_rows: Tensor

    def __init__(self, llm: BaseLLM, texts: TextTokens, count: Tensor, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.texts = texts
        self.count = count
        self.new = (count == 0).nonzero().squeeze(1)
        self.tables = tuple(table.detach() for table in tables)
        self.register_buffer("mean", torch.zeros(llm.hidden_size))
        self.register_buffer("deviation", torch.ones(llm.hidden_size))
        self.register_buffer("view", torch.zeros(len(texts.read), llm.hidden_size))
        for name, table in zip(("input_rows", "output_rows"), tables, strict=True):
            self.register_buffer(name, table[self.new].detach().clone())
        self.text_map = nn.Linear(llm.hidden_size, tables[1].shape[1])

    def mapped(self, states: Tensor) -> Tensor:
        """Rows [B, D] in the backbone's output space, of text states [B, H]."""
        return self.text_map(self.standard(states))

    def standard(self, states: Tensor) -> Tensor:
        """Text states with the mean and deviation of the frozen LLM's over trained items taken away."""
        return (states - self.mean) / self.deviation

    @torch.no_grad()
    def start(self, states: Tensor) -> None:
        """Standardise by the frozen LLM's text states [V, H] of trained items, and start the map as ridge has it."""
        trained = states[self.count > 0]
        self.mean.copy_(trained.mean(dim=0))
        self.deviation.copy_(trained.std(dim=0, correction=0).clamp(min=1e-6))
        weight, bias = ridge(self.standard(states), self.tables[1].to(states.device), self.count)
        self.text_map.weight.copy_(weight)
        self.text_map.bias.copy_(bias)

    @torch.no_grad()
    def learnt(self, states: Tensor) -> None:
        """Keep the text states [V, H], and the rows of new items that ridge regression makes of them."""
        self.view.copy_(states)
        inputs = self.standard(states)
        for rows, table in zip((self.input_rows, self.output_rows), self.tables, strict=True):
            if len(self.new):
                weight, bias = ridge(inputs, table.to(states.device), self.count)
                rows.copy_(inputs[self.new] @ weight.T + bias)


def ridge(inputs: Tensor, targets: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [D, H] and bias [D] of the map from inputs [V, H] to targets [V, D], fitted on items with ``count`` > 0.

    An item weighs count / (count + 5). The penalty is a share of the mean variance of the inputs, in float64.
    """
    trained = (count > 0).to(inputs.device)
    count = count.to(inputs.device)
    x, y = inputs[trained].double(), targets[trained].double()
    weight = (count[trained] / (count[trained] + HALF)).double().unsqueeze(1)
    share = weight / weight.sum()
    x_mean, y_mean = (share * x).sum(dim=0), (share * y).sum(dim=0)
    x, y = x - x_mean, y - y_mean
    covariance = x.T @ (share * x)
    penalty = PENALTY * covariance.diagonal().mean().clamp(min=1e-12)
    eye = torch.eye(len(covariance), dtype=x.dtype, device=x.device)
    found = torch.linalg.solve(covariance + penalty * eye, x.T @ (share * y)).T
    return found.to(inputs.dtype), (y_mean - found @ x_mean).to(inputs.dtype)


def rows_of(texts: TextTokens, items: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] of the items' texts [B], right-padded.

    Returns with them those whose states are averaged, bool [B, T].
    """
    lengths, read = (torch.from_numpy(count)[items] for count in (texts.lengths, texts.read))
    tokens = torch.full((len(items), int(lengths.max())), texts.padding)
    for row, item in enumerate(items.tolist()):
        ids = texts.tokens[texts.start[item] : texts.start[item + 1]]
        tokens[row, : len(ids)] = torch.from_numpy(ids)
    end = lengths.unsqueeze(1)
    place = torch.arange(tokens.shape[1])
    return tokens, (place >= end - read.unsqueeze(1)) & (place < end)
