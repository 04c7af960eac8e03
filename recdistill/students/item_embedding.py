"""Item embedding: drawn at random or mapped from the items' texts, and with the teacher's embedding injected."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.distillation.projection import FactoredTable, generator_apart, projection_layer
from recdistill.errors import InputError
from recdistill.students.text_vectors import TextVectors
from recdistill.training.row_gradients import read_rows

INITIAL_STD = 0.02


class ItemEmbedding(nn.Module):
    """Embedding of item i: ``table[i] + ed_weight * Linear(E->D)(teacher_embedding[i])``; zero at padding.

    DLLM2Rec (RecSys 2024), collaborative embedding distillation. A teacher's table of E numbers an item may be given as
    a product of narrower ones: the layer is the same, and a step reads R numbers an item. With ``ed_weight`` 0 the
    layer is that of a student without teacher: no projection is made. The projection draws from a generator of its own,
    so the other parameters and the global random state are the same with and without injection.

    With ``texts``, x_i of item i, the embedding without a teacher is ``from_text(x_i) + table[i]``: a linear map that
    is trained, and what is not known by the text, which starts at zero and stays so for items without a training
    target. Where `go_on_from_map` gives a map with a constant, that is added, too; it is not trained. The other
    parameters and the random state are, again, the same as without.

    Args:
        num_items: V. Items are 0..V-1, the padding id is V.
        hidden_size: D.
        teacher_embedding: [V, E] or None; kept as a frozen buffer that is not saved with the model. Or its factors, of
            which two are kept: codes as ``teacher_embedding`` [V, R], and ``teacher_basis`` [R, E].
        ed_weight: weight of the injected embedding, at least 0.
        project_in_bf16: keep the teacher table and multiply in bfloat16; results are float32.
        texts: vectors of the items' texts; None for embeddings that are drawn. They are kept as a frozen buffer that
            is not saved with the model.

    Raises:
        InputError: the texts are of other items, the teacher embedding is missing, not [V, E] or not finite, or the
            weight is negative.
    """

    teacher_embedding: Tensor | None
    teacher_basis: Tensor | None
    text_vectors: Tensor | None
    learns: Tensor | None
    text_bias: Tensor | None

    def __init__(
        self,
        num_items: int,
        hidden_size: int,
        teacher_embedding: Tensor | FactoredTable | None = None,
        ed_weight: float = 0.0,
        project_in_bf16: bool = False,
        texts: TextVectors | None = None,
    ) -> None:
        super().__init__()
        self.num_items = num_items
        self.hidden_size = hidden_size
        self.ed_weight = float(ed_weight)
        self.embedding = nn.Embedding(num_items + 1, hidden_size, padding_idx=num_items)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.embedding.weight[num_items].zero_()
        self._start_from(texts)
        self.projection: nn.Linear | None = None
        self._cached: tuple[tuple[object, ...], Tensor] | None = None
        self._shared: Tensor | None = None
        self._ids: Tensor | None = None
        basis = None
        if isinstance(teacher_embedding, FactoredTable):
            basis = teacher_embedding.basis
            teacher_embedding = teacher_embedding.codes
        checked = _checked_teacher(num_items, teacher_embedding, self.ed_weight)
        if checked is not None:
            self.projection = projection_layer((checked if basis is None else basis).shape[1], hidden_size)
            checked = checked.to(torch.bfloat16 if project_in_bf16 else torch.float32)
        self.register_buffer("teacher_embedding", checked, persistent=False)
        self.register_buffer("teacher_basis", None if checked is None else basis, persistent=False)

    def _start_from(self, texts: TextVectors | None) -> None:
        """Make the map from texts, where there are some, and set the items' own embeddings to zero."""
        self.from_text: nn.Linear | None = None
        vectors, learns = None, None
        if texts is not None:
            texts.check(self.num_items)
            vectors = F.pad(texts.vectors.detach().float(), (0, 0, 0, 1))
            self.from_text = text_map(vectors, self.hidden_size)
            with torch.no_grad():
                self.embedding.weight.zero_()
            if not bool(texts.trained.all()):
                learns = F.pad(texts.trained.float(), (0, 1)).unsqueeze(1)
        self.register_buffer("text_vectors", vectors, persistent=False)
        self.register_buffer("learns", learns, persistent=False)
        self.register_buffer("text_bias", None, persistent=False)

    @torch.no_grad()
    def go_on_from_map(self, weight: Tensor, bias: Tensor) -> None:
        """Let the map from texts start from another one, whose constant stays as it is.

        Args:
            weight: [K, D], of vectors times weight.
            bias: [D]; zeros for none.
        """
        assert self.from_text is not None
        self.from_text.weight.copy_(weight.T)
        given = bias.to(self.from_text.weight)
        self.text_bias = given.clone() if bool(given.any()) else None

    @property
    def injected(self) -> bool:
        """Whether a teacher embedding is added."""
        return self.projection is not None

    @property
    def composed(self) -> bool:
        """Whether an embedding is more than a row of a table."""
        return self.injected or self.from_text is not None

    def forward(self, items: Tensor) -> Tensor:
        """Embeddings [..., D] of item ids [...]; zero where the id is the padding id V."""
        if self._shared is not None:
            if self._ids is not None:
                return F.embedding(torch.searchsorted(self._ids, items), self._shared)
            return F.embedding(items, self._shared, padding_idx=self.num_items)
        if not self.composed:
            return self.embedding(items)
        if not self.training and not torch.is_grad_enabled():
            return F.embedding(items, self.padded_table())
        # Each distinct item is projected once: [U, E], never [W, L, E].
        distinct, position = torch.unique(items, return_inverse=True)
        if len(distinct) >= self.num_items:
            distinct, position = torch.arange(self.num_items + 1, device=items.device), items
        own = self.embedding(items)
        own = own if self.learns is None else own * F.embedding(items, self.learns)
        return own + F.embedding(position, self._added(distinct))

    def item_table(self) -> Tensor:
        """The table [V, D] of all items, injection included, padding left out."""
        if not self.composed:
            return self.embedding.weight[: self.num_items]
        return self.padded_table()[: self.num_items]

    def padded_table(self) -> Tensor:
        """The table [V+1, D], injection included; its last row is the padding's zero.

        In evaluation mode without gradients the projected table is kept until a parameter changes.
        """
        if self._shared is not None:
            return self._shared
        if not self.composed:
            return self.embedding.weight
        if self.training or torch.is_grad_enabled():
            return self._whole_table()
        key = self._parameter_state()
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._whole_table())
        return self._cached[1]

    @contextmanager
    def one_table(self, ids: Tensor | None = None) -> Iterator[None]:
        """Project the table once for all uses within the context.

        For a training step with a tied output, which reads it for the histories and for the scores. With ``ids`` int64
        [U], ascending, each once, the padding id with them, the table is their rows alone, and the gradient of the
        embedding is sparse; no other item may be asked for.
        """
        if ids is not None:
            # The padding id, the largest, is the last, and does not learn.
            rows = read_rows(self.embedding.weight, ids, learning=len(ids) - 1)
            rows = rows if self.learns is None else rows * self.learns.index_select(0, ids)
            self._shared, self._ids = rows + self._added(ids) if self.composed else rows, ids
        elif self.composed:
            self._shared = self.padded_table()
        try:
            yield
        finally:
            self._shared = self._ids = None

    def train(self, mode: bool = True) -> "ItemEmbedding":
        """Switch the mode, and drop the projected table that was kept."""
        self._cached = None
        return super().train(mode)

    def own_table(self) -> Tensor:
        """The table [V+1, D] without the injection: drawn rows, or those mapped from texts with what was learnt."""
        own = self.embedding.weight if self.learns is None else self.embedding.weight * self.learns
        if self.from_text is None:
            return own
        return own + self._of_texts(torch.arange(self.num_items + 1, device=own.device))

    def injected_table(self) -> Tensor:
        """What the teacher adds to the rows of all items [V, D]; for an embedding that is `injected`."""
        return self._injection(torch.arange(self.num_items + 1, device=self.embedding.weight.device))[:-1]

    def _whole_table(self) -> Tensor:
        if not self.injected:
            return self.own_table()
        ids = torch.arange(self.num_items + 1, device=self.embedding.weight.device)
        return self.own_table() + self._injection(ids)

    def _added(self, distinct: Tensor) -> Tensor:
        """What is added to the rows of distinct ids [U]: [U, D]."""
        if self.from_text is None:
            return self._injection(distinct)
        mapped = self._of_texts(distinct)
        return mapped + self._injection(distinct) if self.injected else mapped

    def _of_texts(self, distinct: Tensor) -> Tensor:
        """What distinct ids [U] have of their texts: [U, D]; zero for the padding id."""
        assert self.from_text is not None
        assert self.text_vectors is not None
        vectors = self.text_vectors
        mapped = self.from_text(vectors if len(distinct) > self.num_items else vectors.index_select(0, distinct))
        if self.text_bias is None:
            return mapped
        return mapped + self.text_bias * (distinct < self.num_items).unsqueeze(1)

    def _injection(self, distinct: Tensor) -> Tensor:
        """``ed_weight * projection(teacher[i])`` [U, D] of distinct ids [U]; zero for the padding id."""
        assert self.projection is not None
        assert self.teacher_embedding is not None
        table, weight = self.teacher_embedding, self.projection.weight
        if self.teacher_basis is not None:
            weight = F.linear(weight, self.teacher_basis)
        padding = (distinct == self.num_items).unsqueeze(-1)
        if len(distinct) > self.num_items:
            projected = F.linear(table, weight.to(table.dtype))
            projected = F.pad(projected, (0, 0, 0, 1))
        else:
            # index_select copies whole rows; indexing with a tensor takes more than twice as long.
            rows = table.index_select(0, distinct.clamp(max=self.num_items - 1))
            projected = F.linear(rows, weight.to(table.dtype))
        projected = projected.to(weight.dtype) + self.projection.bias
        return (self.ed_weight * projected).masked_fill(padding, 0.0)

    def _parameter_state(self) -> tuple[object, ...]:
        """A value that changes whenever a parameter of the table is written, moved or replaced."""
        parameters = tuple((id(p), p.data_ptr(), p._version, p.dtype) for p in self.parameters())
        # A table made in inference mode must not reach code that differentiates.
        return (torch.is_inference_mode_enabled(), *parameters)


def text_map(vectors: Tensor, hidden_size: int) -> nn.Linear:
    """A linear map without bias of vectors [n, K] to embeddings that are at first as long as drawn ones, on average.

    It draws from a generator of its own.
    """
    linear = nn.utils.skip_init(nn.Linear, vectors.shape[1], hidden_size, bias=False)
    length = float(vectors.square().sum(dim=1).mean().sqrt())
    nn.init.normal_(linear.weight, std=INITIAL_STD / length if length else INITIAL_STD, generator=generator_apart())
    return linear


def _checked_teacher(num_items: int, teacher_embedding: Tensor | None, ed_weight: float) -> Tensor | None:
    """The teacher embedding to inject, or None where the weight is 0."""
    if not math.isfinite(ed_weight) or ed_weight < 0:
        raise InputError(f"ed_weight is {ed_weight}; give a number of at least 0 (0 injects nothing)")
    if ed_weight == 0:
        return None
    if teacher_embedding is None:
        raise InputError(f"ed_weight is {ed_weight} but there is no teacher embedding; give one, or ed_weight 0")
    if teacher_embedding.ndim != 2 or teacher_embedding.shape[0] != num_items:
        raise InputError(
            f"the teacher embedding has shape {list(teacher_embedding.shape)}; "
            f"give one row for each of the {num_items} items, [{num_items}, E]"
        )
    if not teacher_embedding.is_floating_point() or not bool(torch.isfinite(teacher_embedding).all()):
        raise InputError("the teacher embedding holds values that are not finite real numbers; recompute it")
    return teacher_embedding.detach()
