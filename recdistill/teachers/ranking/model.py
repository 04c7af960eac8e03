"""The ranking teacher: iLoRA (NeurIPS 2024) over any LLM, with an output layer over the whole catalogue.

The backbone comes in as tensors: its item table and the states of the windows at hand. The gate of a token is that of
the backbone's state after the item whose title or marker the token belongs to, so that a packed prompt leaks nothing;
with ``packing`` off a prompt holds one sample and has one gate, the paper's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.documents import BLOCK, Documents, longest_in_row
from recdistill.teachers.ilora.gated_lora import GatedLoRA
from recdistill.teachers.ilora.gated_model import GatedModel, GatedShape, load_gated_model, with_gated_lora
from recdistill.teachers.ilora.text_reading import TextReader, TextTokens
from recdistill.teachers.ilora.titles import MAX_TITLE_TOKENS, TitleTokens, plain_title, tokenise_titles
from recdistill.teachers.ranking.base_states import (
    KeptStates,
    base_of,
    by_item,
    title_batches,
    title_states,
    under_bar,
)
from recdistill.teachers.ranking.content import ItemContent, rows_of
from recdistill.teachers.ranking.head import RankingHead
from recdistill.teachers.ranking.packing import Prompts, one_prompt_a_sample, packed_prompts

CONTENT_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class RankingShape(GatedShape):
    """Settings of a ranking teacher: all that fixes its parameters and prompts, LLM, backbone and catalogue aside.

    Attributes:
        residual: see `RankingHead`.
        packing: see the module.
        context: history titles in a prompt, at least, where the user has them.
        plain_titles: read the titles as `plain_title` has them.
    """

    residual: bool
    packing: bool
    context: int
    plain_titles: bool


@dataclass(frozen=True, eq=False)
class BackboneTables:
    """The tables of a frozen backbone that a teacher reads, beside the states of windows.

    Attributes:
        items: input table of the items [V, D], injected at the markers.
        output: weight of the backbone's scores [V, D].
        bias: their bias [V], or None.
    """

    items: Tensor
    output: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ItemKnowledge:
    """What a teacher that learns of items by their texts is given.

    Attributes:
        texts: V texts.
        count: how often each item is a training target, int64 [V].
        reading: how the LLM reads a text, see `teachers.ilora.text_reading`.
    """

    texts: Sequence[str]
    count: Tensor
    reading: str


class RankingModel(GatedModel):
    """Gated LoRA over a frozen LLM, gate, projector and ranking head; see `build_ranking_model`.

    Attributes:
        longest_in_row: tokens of the longest prompts that are read in one row, see `longest_in_row`.
        in_one_pass: compute padded prompts of all lengths together. Where processes share the weights of a layer, each
            must run it as often as the others.
        base: digest of the frozen LLM's weights.
        content: what it learns of the items' texts; None where it learns nothing of them.
        title_seconds: that the frozen LLM took to read the titles, though it was another time.
    """

    def __init__(
        self,
        gated: GatedLoRA,
        llm: BaseLLM,
        shape: RankingShape,
        titles: TitleTokens,
        backbone: BackboneTables,
        title_embedding: Tensor,
        knowledge: ItemKnowledge | None = None,
        title_seconds: float = 0.0,
    ) -> None:
        super().__init__(gated, llm, shape, backbone.items)
        self.title_seconds = title_seconds
        self.shape = shape
        self.titles = titles
        self.tokenizer = llm.tokenizer
        self.most_tokens = llm.most_tokens
        self.base = llm.fingerprint
        self.in_one_pass = False
        self.longest_in_row = self._longest_in_row()
        self.head = RankingHead(
            llm.hidden_size, backbone.output, backbone.bias, title_embedding, shape.residual, CONTENT_SIZE
        )
        self.content: ItemContent | None = None
        if knowledge is not None:
            tables = (backbone.items, backbone.output)
            texts = self.tokens_of_texts(knowledge.texts, knowledge.reading)
            self.content = ItemContent(llm, texts, knowledge.count, tables)

    def trained(self) -> dict[str, Tensor]:
        """Every tensor that training changes, what was learnt of the items' texts included, by name."""
        content = {} if self.content is None else dict(self.content.named_buffers(prefix="content"))
        return super().trained() | content

    def load(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """See `GatedModel.load`; the rows of items that the backbone never trained are put into its tables."""
        super().load(folder, tensors)
        self.take_content()

    @torch.no_grad()
    def take_content(self) -> None:
        """Put the content's rows of untrained items into the tables that are injected and scored."""
        if self.content is not None:
            self.item_table[self.content.new] = self.content.input_rows
            self.head.item_table[self.content.new] = self.content.output_rows

    def tokens_of_texts(self, texts: Sequence[str], reading: str) -> TextTokens:
        """Texts as the LLM reads them, as long as titles may be."""
        return TextReader(self.tokenizer, reading, MAX_TITLE_TOKENS, self.most_tokens).all(texts)

    def text_states(self, texts: TextTokens, items: Tensor) -> Tensor:
        """Mean last hidden states of the adapted LLM over what is read of items' texts, at the uniform gate.

        float32 [B, H].

        Differentiable. ``items`` [B] are on the CPU.
        """
        device = self.item_table.device
        if texts.lengths[items].max() <= self.longest_in_row:
            return self._text_states_in_one_row(texts, items)
        tokens, real = rows_of(texts, items)
        self.slot.set(self._uniform(len(items)))
        hidden = self._through(input_ids=tokens.to(device)).float()
        weight = (real / real.sum(dim=1, keepdim=True)).to(device)
        return (hidden * weight.unsqueeze(-1)).sum(dim=1)

    def _text_states_in_one_row(self, texts: TextTokens, items: Tensor) -> Tensor:
        device = self.item_table.device
        lengths, read = (torch.from_numpy(count)[items] for count in (texts.lengths, texts.read))
        order = lengths.argsort(descending=True, stable=True)
        filled = -int(lengths.sum()) % BLOCK
        parts = [texts.tokens[texts.start[item] : texts.start[item + 1]] for item in items[order].tolist()]
        tokens = torch.from_numpy(np.concatenate([*parts, np.full(filled, texts.padding)]))
        documents = Documents.of(lengths[order].tolist() + [1] * filled, device)
        self.slot.set(self._uniform(1), documents)
        hidden = self._through(input_ids=tokens.unsqueeze(0).to(device))[0].float()
        text = order.repeat_interleave(lengths[order])
        from_end = lengths[text] - documents.position[0, : len(text)].cpu()
        # A product, for sums by index are in another order each time on a GPU.
        share = torch.zeros(len(items), len(hidden))
        share[text, torch.arange(len(text))] = (from_end <= read[text]) / read[text]
        return share.to(device) @ hidden

    def _uniform(self, rows: int) -> Tensor:
        """The uniform gate of each row."""
        shape = (rows, *self.slot.weights_shape)
        return torch.full(shape, 1 / self.shape.experts, device=self.item_table.device)

    def kept_text_states(self, texts: TextTokens) -> KeptStates:
        """Where the cache keeps the `text_states` of all items while nothing is learnt: those of the base LLM."""
        base = base_of(self.base, self._tokens().weight)
        return base.states_of((texts.tokens, texts.start, texts.read), len(texts.read))

    def prompts(self, history: Tensor, row: Tensor, column: Tensor) -> Prompts:
        """Prompts for the samples at ``(row, column)`` of windows [W, L], on the CPU."""
        lay_out = packed_prompts if self.shape.packing else one_prompt_a_sample
        return lay_out(self.titles, history, row, column, self.shape.context)

    def forward(self, history: Tensor, row: Tensor, column: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of all items, and the LLM's state.

        Args:
            history: item ids int64 [W, L] on the CPU, right-padded.
            row, column: int64 [S] each, on the CPU.
            states: the backbone's states of the windows [W, L, D], on the model's device.

        Returns:
            Logits float32 [S, V] and last hidden states float32 [S, H].
        """
        prompts = self.prompts(history, row, column)
        own = states[row, column]
        if not self.shape.packing:
            history, states = history[row], states[row]
        gates = self.token_gates(prompts, states, own)
        self.sample_gates = (gates[row, column] if self.shape.packing else gates).detach()
        hidden = self.hidden_states(prompts, history, gates, states)
        return self.head(hidden, own), hidden

    def token_gates(self, prompts: Prompts, states: Tensor, own: Tensor) -> Tensor:
        """Mixing weights of packed prompts by history column [W, L, K]; of one prompt a sample [S, K].

        Where layers have weights of their own, [N, K] stands in place of [K], here and below.
        """
        if not self.shape.packing:
            return self.gate(own)
        row, token = prompts.marker.nonzero(as_tuple=True)
        place = (row, prompts.column[row, token])
        weights = self.gate(states[place])
        return weights.new_full((*states.shape[:2], *weights.shape[1:]), 1 / self.shape.experts).index_put(
            tuple(index.to(states.device) for index in place), weights
        )

    def hidden_states(self, prompts: Prompts, history: Tensor, gates: Tensor, states: Tensor | None = None) -> Tensor:
        """Last hidden states [S, H] of the samples: all prompts in one row, or those of like length as padded rows.

        ``states`` [W, L, D] are those of `forward`, which users are read from.
        """
        users = self.users_before(prompts, states)
        if prompts.tokens.shape[1] <= self.longest_in_row:
            return self._states_in_one_row(prompts, history, gates, users)
        return self._states_in_groups(prompts, history, gates, users)

    def _states_in_one_row(self, prompts: Prompts, history: Tensor, gates: Tensor, users: Tensor | None) -> Tensor:
        device, row = gates.device, prompts.in_one_row()
        documents = Documents.of(row.lengths, device)
        self.slot.set(self._gates_of_tokens(gates, row.prompt, row.column).unsqueeze(0), documents)
        items = history[row.prompt, row.column.clamp(min=0)][row.marker]
        own = None if users is None else users[row.order.to(device)]
        # The last token of the instruction is the user's.
        of_user = torch.zeros_like(row.marker)
        of_user[row.begin + len(self.titles.instruction) - 1] = True
        tokens, marker, of_user = (one.unsqueeze(0).to(device) for one in (row.tokens, row.marker, of_user))
        found = self._read(tokens, marker, items.to(device), of_user, own)
        return found[0, row.sample.to(device)].float()

    def _states_in_groups(self, prompts: Prompts, history: Tensor, gates: Tensor, users: Tensor | None) -> Tensor:
        device = gates.device
        found, place = [], []
        together = [(torch.arange(len(history)), prompts.tokens.shape[1])]
        groups = together if self.in_one_pass else prompts.by_length(training=torch.is_grad_enabled())
        for rows, width in groups:
            column = prompts.column[rows, :width]
            marker = prompts.marker[rows, :width]
            self.slot.set(self._gates_of_tokens(gates, rows, column))
            items = history[rows].gather(1, column.clamp(min=0))[marker]
            own = None if users is None else users[rows.to(device)]
            of_user = torch.zeros_like(marker)
            of_user[:, len(self.titles.instruction) - 1] = True
            tokens, marker, of_user = (one.to(device) for one in (prompts.tokens[rows, :width], marker, of_user))
            found_states = self._read(tokens, marker, items.to(device), of_user, own)
            group_of_row = torch.full((len(history),), -1).index_put((rows,), torch.arange(len(rows)))
            samples = (group_of_row[prompts.row] >= 0).nonzero().squeeze(1)
            at = (group_of_row[prompts.row[samples]], prompts.position[samples])
            found.append(found_states[tuple(index.to(device) for index in at)].float())
            place.append(samples)
        return torch.cat(found)[torch.cat(place).argsort().to(device)]

    def _gates_of_tokens(self, gates: Tensor, prompt: Tensor, column: Tensor) -> Tensor:
        """Weights by column [W, L, K] at tokens' columns [N] or [B, T], uniform at the instruction: [..., K].

        ``prompt``, [N] or [B], is whose they are; weights by prompt [W, K] are taken as they are.
        """
        own, prompt, column = self.slot.weights_shape, prompt.to(gates.device), column.to(gates.device)
        if gates.ndim == 1 + len(own):
            return gates[prompt]
        found = gates[prompt.view(-1, *[1] * (column.ndim - 1)), column.clamp(min=0)]
        return found.masked_fill(column.view(*column.shape, *[1] * len(own)) < 0, 1 / self.shape.experts)

    def users_before(self, prompts: Prompts, states: Tensor | None) -> Tensor | None:
        """The backbone's state of the history before each prompt's first title [W, D], zeros where there is none.

        None where prompts have no user, or no states are given.
        """
        if self.user_projector is None or states is None:
            return None
        no_column = prompts.column < 0
        before = prompts.column.masked_fill(no_column, states.shape[1]).amin(dim=1) - 1
        before = before.to(states.device)
        found = states[torch.arange(len(before), device=states.device), before.clamp(min=0)]
        return found.masked_fill((before < 0).unsqueeze(1), 0.0)

    def _read(
        self, tokens: Tensor, marker: Tensor, items: Tensor, of_user: Tensor, users: Tensor | None = None
    ) -> Tensor:
        """Last hidden states [B, T, H]; arguments as of `injected`, and the users' states [W, D] at ``of_user``."""
        embedded = self.injected(tokens, marker, items)
        if self.user_projector is not None:
            embedded = self.with_users(embedded, of_user, users)
        return self._through(inputs_embeds=embedded)

    def _through(self, **inputs: Tensor) -> Tensor:
        """Last hidden states [B, T, H] of padded rows, or of the texts that the slot has of one row.

        ``inputs`` are tokens, or their embeddings, as transformers names them.
        """
        texts = self.slot.documents
        positions = {} if texts is None else {"position_ids": texts.position}
        with self.precision():
            # Right padding needs no mask in a causal LLM: no real token attends to a later one.
            return self.llm(**inputs, use_cache=False, **positions)[0]

    def _longest_in_row(self) -> float:
        """See `longest_in_row`; in evaluation mode."""

        def read(tokens: Tensor, documents: Documents | None) -> Tensor:
            self.slot.set(self._uniform(len(tokens)), documents)
            try:
                return self._through(inputs_embeds=self._tokens()(tokens))
            finally:
                self.slot.clear()

        was_training = self.llm.training
        self.llm.eval()
        layers = getattr(self.llm.config.get_text_config(), "num_hidden_layers", 0)
        try:
            return longest_in_row(read, layers, self.item_table.device)
        finally:
            self.llm.train(was_training)

    @torch.no_grad()
    def item_embedding(self) -> Tensor:
        """The trained LLM's state at each item's marker after its title alone, at the uniform gate: float32 [V, H]."""
        batches = title_batches(self.titles)
        return by_item(batches, [self._title_states(part) for part in under_bar(batches)])

    def _title_states(self, items: Tensor) -> Tensor:
        zero = torch.zeros(len(items), dtype=torch.int64)
        history = items.unsqueeze(1)
        prompts = packed_prompts(self.titles, history, torch.arange(len(items)), zero, 1)
        return self.hidden_states(prompts, history, self._uniform(len(items)))


def build_ranking_model(
    llm: BaseLLM,
    shape: RankingShape,
    titles: Sequence[str],
    backbone: BackboneTables,
    knowledge: ItemKnowledge | None = None,
) -> RankingModel:
    """A fresh teacher; ``llm`` gets the adapter in place.

    Args:
        llm: the frozen base, without language-model head.
        shape: sizes.
        titles: V titles.
        backbone: its tables.
        knowledge: texts and counts of the items, for a teacher that learns of their texts.

    Raises:
        InputError: sizes do not fit.
    """
    return _over(llm, shape, titles, backbone, knowledge, lambda: with_gated_lora(llm, shape))


def load_ranking_model(
    folder: Path,
    llm: BaseLLM,
    titles: Sequence[str],
    backbone: BackboneTables,
    knowledge: ItemKnowledge | None = None,
) -> RankingModel:
    """The teacher of `RankingModel.save` over the same base, backbone and catalogue, in evaluation mode.

    Raises:
        InputError: a file is missing or damaged, or another base is given.
    """
    return load_gated_model(
        folder, RankingShape, llm, lambda shape, attach: _over(llm, shape, titles, backbone, knowledge, attach)
    )


def _over(
    llm: BaseLLM,
    shape: RankingShape,
    titles: Sequence[str],
    backbone: BackboneTables,
    knowledge: ItemKnowledge | None,
    attach: Callable[[], GatedLoRA],
) -> RankingModel:
    """The teacher over a base that ``attach`` gives its adapter."""
    tokens = tokens_of(titles, llm, shape)
    # The head reads the titles as the base sees them, before there is an adapter.
    embedding, seconds = title_states(llm, tokens)
    return RankingModel(attach(), llm, shape, tokens, backbone, embedding, knowledge, seconds)


def tokens_of(titles: Sequence[str], llm: BaseLLM, shape: RankingShape) -> TitleTokens:
    """The titles as prompts have them."""
    read = [plain_title(title) for title in titles] if shape.plain_titles else titles
    tokens = tokenise_titles(llm.tokenizer, read)
    llm.check_tokens(tokens.instruction, tokens.tokens)
    if shape.encode_users:
        return replace(tokens, instruction=np.append(tokens.instruction, tokens.padding))
    return tokens
