"""A finished student that also scores new items: their embeddings are mapped from the vectors of their texts.

Scores of the items that the student was trained on are its own, bit for bit: new items are scored by products of their
own, of blocks of one size, so that further ones do not change theirs. Histories may hold new items, whose input is the
mapped embedding.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.data.samples import Int64Array
from recdistill.errors import InputError
from recdistill.students.build import NEW_ITEMS_FILE, build_student
from recdistill.students.item_embedding import ItemEmbedding
from recdistill.students.item_map import ItemMap, Terms, fit_item_map
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape
from recdistill.students.student import Student

MAP_FILE = "item_map.safetensors"
TABLE = "items.embedding.weight"
#: New items that are scored by one product: its last bits depend on how many there are.
BLOCK = 256


@dataclass(frozen=True)
class Interleaving:
    """Where new items stand among the others: ``scale * score + offset`` of their scores.

    A map shrinks what it does not know, so that its scores differ less than those that were learnt; and nothing was
    learnt of how often a new item is chosen.
    """

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores on the scale of the known items'."""
        return scores * self.scale + self.offset


@dataclass(frozen=True, eq=False)
class NewItemMap:
    """What gives new items their embeddings and scores.

    Attributes:
        map: from vectors of texts to item embeddings.
        terms: that it was fitted by; None where it was trained with the student.
        interleaving: sets new items among the others.
        texts: how an item's text is made: ``item_text``, ``text_template`` and the ``columns`` that the items had.
        vectors: what made the texts' vectors, as JSON values by view.
    """

    map: ItemMap
    terms: Terms | None
    interleaving: Interleaving
    texts: Mapping[str, Any]
    vectors: Mapping[str, Any]


class MappedStudent(Recommender):
    """A student with new items.

    Args:
        student: over all V' items, its table holding mapped embeddings for new ones; see `with_new_items`.
        base: V, the items that the student had when it was trained, with or without a training target.
        new_items: int64 [n], ascending, the items that are new: those from ``base`` on, and untrained ones before it.
        new_item_map: what their embeddings and scores come from.
    """

    def __init__(self, student: Student, base: int, new_items: Tensor, new_item_map: NewItemMap) -> None:
        super().__init__(student.num_items, student.max_length)
        self.student = student
        self.base = base
        self.new_item_map = new_item_map
        self.new_items: Tensor
        self.is_known: Tensor
        self.register_buffer("new_items", new_items, persistent=False)
        is_known = torch.ones(base, dtype=torch.bool)
        is_known[new_items[new_items < base]] = False
        self.register_buffer("is_known", is_known, persistent=False)
        # Whole blocks: the last is filled with any item, whose scores are dropped.
        blocks = F.pad(new_items, (0, -len(new_items) % BLOCK)).view(-1, BLOCK)
        self.blocks: Tensor
        self.register_buffer("blocks", blocks, persistent=False)

    def columns_of(self, items: Int64Array) -> Int64Array:
        """The columns of items among the new ones, int64, in the order of ``items`` [m].

        Raises ValueError where one of them is not new to the student.
        """
        new_items = self.new_items.cpu().numpy()
        if not np.isin(items, new_items).all():
            raise ValueError(
                "some of the items are not new to the student, so that they have no column; leave them out"
            )
        return np.searchsorted(new_items, items)

    def scores_apart(self, history: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B, V] by the student alone, and [B, n] of the new items before they are set among the others.

        Columns of new items in the first are meaningless. Arguments as of `scores`.
        """
        column = torch.arange(history.shape[1], device=history.device)
        history = history.masked_fill(column >= length.unsqueeze(1), self.num_items)
        rows = torch.arange(history.shape[0], device=history.device)
        states, table = self.student(history, length, rows, length - 1), self.student.item_table()
        new = [F.linear(states, table[block]) for block in self.blocks]
        new_scores = torch.cat(new, dim=1)[:, : len(self.new_items)] if new else states.new_empty(len(states), 0)
        return F.linear(states, table[: self.base]), new_scores

    def scores(self, history: Tensor, length: Tensor) -> Tensor:
        """Scores [B, V'] of all items; see `Recommender.scores`."""
        known, new = self.scores_apart(history, length)
        scores = torch.cat([known, known.new_empty(known.shape[0], self.num_items - self.base)], dim=1)
        scores[:, self.new_items] = self.new_item_map.interleaving(new)
        return scores

    def interleaved(self, interleaving: Interleaving) -> "MappedStudent":
        """The same student, its new items set otherwise."""
        new = NewItemMap(**{**vars(self.new_item_map), "interleaving": interleaving})
        return MappedStudent(self.student, self.base, self.new_items, new).train(self.training)

    def with_items(self, shape: StudentShape, vectors: Tensor) -> "MappedStudent":
        """The same student with m more items, which come after the others.

        Args:
            shape: of the student.
            vectors: [m, D], of their texts.
        """
        table = torch.cat([self.student.item_table().detach().cpu(), self.new_item_map.map(vectors)])
        more = torch.arange(self.num_items, len(table))
        student = over_items(self.student, shape, table)
        return MappedStudent(student, self.base, torch.cat([self.new_items.cpu(), more]), self.new_item_map).eval()

    def with_new(self, shape: StudentShape, items: Tensor, vectors: Tensor) -> "MappedStudent":
        """The same student as if further items of its were new: those that were not have their map's embeddings.

        Args:
            shape: of the student.
            items: int64; those that are new already stay so, whether they are among these or not.
            vectors: [V, D], of all items' texts.
        """
        table, before = self.student.item_table().detach().cpu().clone(), self.new_items.cpu()
        fresh = items[~torch.isin(items, before)]
        table[fresh] = self.new_item_map.map(vectors[fresh])
        new_items = torch.cat([before, fresh]).unique()
        return MappedStudent(over_items(self.student, shape, table), self.base, new_items, self.new_item_map).eval()

    def save_map(self, directory: Path) -> None:
        """Write what makes it more than its student, beside the student's files."""
        new = self.new_item_map
        tensors = {"weight": new.map.weight, "bias": new.map.bias, "new_items": self.new_items.cpu()}
        save_file({name: one.contiguous() for name, one in tensors.items()}, directory / MAP_FILE)
        described = {
            "base": self.base,
            "interleaving": asdict(new.interleaving),
            "terms": None if new.terms is None else asdict(new.terms),
            "texts": dict(new.texts),
            "vectors": dict(new.vectors),
        }
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
        (directory / NEW_ITEMS_FILE).write_text(text, encoding="utf-8")


def with_new_items(
    student: Student, shape: StudentShape, new_items: Tensor, vectors: Tensor, new_item_map: NewItemMap
) -> MappedStudent:
    """A finished student whose untrained items are new ones, on the CPU, in evaluation mode.

    Args:
        student: finished, with tied output; it is not changed.
        shape: its shape.
        new_items: int64 [n], ascending, those of its items that have no training target.
        vectors: [n, D], of their texts.
        new_item_map: what their embeddings and scores come from.

    Raises:
        InputError: the output is not tied.
    """
    check_tied(student)
    table = student.item_table().detach().cpu().clone()
    table[new_items] = new_item_map.map(vectors)
    extended = over_items(student, shape, table)
    return MappedStudent(extended, len(table), new_items, new_item_map).eval()


def has_own_map(student: Student) -> bool:
    """Whether a student was trained with a map from texts by which it can score new items, too."""
    return student.items.from_text is not None and student.output_kind == "tied" and student.scores_by_layer


def with_own_map(
    student: Student, shape: StudentShape, texts: Mapping[str, Any], vectors: Mapping[str, Any]
) -> MappedStudent:
    """A student whose embeddings start from texts, as it is served: on the CPU, with the map that it was trained with.

    New are the items without a training target; they keep the student's rows and score as in it. An item that comes
    later has what `own_map` gives its text: of an undistilled student just what an item without a training target and
    of that text has; of a distilled one that up to the error of a regression.

    Args:
        student: finished, see `has_own_map`; it is not changed.
        shape: its shape.
        texts, vectors: see `NewItemMap`.
    """
    items = student.items
    new_item_map = NewItemMap(own_map(items), None, Interleaving(), texts, vectors)
    extended = over_items(student, shape, student.item_table().detach().cpu().clone())
    return MappedStudent(extended, items.num_items, (~learnt_items(items)).nonzero().squeeze(1), new_item_map).eval()


@torch.no_grad()
def own_map(items: ItemEmbedding) -> ItemMap:
    """The map from a text's vector to the embedding of an item without clicks, where embeddings start from texts.

    It is the map that was trained, with the constant of the one that it went on from.

    Where a teacher's embeddings are injected, a new item has none of the teacher; so what they add to an item,
    which its text says in part, is mapped from the text, too: by the ridge regression of
    `fit_item_map` over the items that are learnt. All count the same: the teacher's vector of a rare item is no noise.
    A teacher may see items without clicks otherwise, all in one direction; so the constant is theirs where there are
    such items: what is added to them is then met on average.
    """
    assert items.from_text is not None
    weight = items.from_text.weight.detach().cpu().double().T.contiguous()
    constant = weight.new_zeros(weight.shape[1]) if items.text_bias is None else items.text_bias.cpu().double()
    trained = ItemMap(weight, constant)
    if not items.injected:
        return trained
    assert items.text_vectors is not None
    learnt, vectors, injected = learnt_items(items), items.text_vectors[:-1].cpu(), items.injected_table().cpu()
    found, _ = fit_item_map(vectors[learnt], injected[learnt], torch.ones(int(learnt.sum())))
    bias = found.bias
    if not bool(learnt.all()):
        bias = (injected[~learnt].double() - vectors[~learnt].double() @ found.weight).mean(dim=0)
    return ItemMap(trained.weight + found.weight, trained.bias + bias)


def learnt_items(items: ItemEmbedding) -> Tensor:
    """Whether an item has an embedding of its own beside its text's, bool [V] on the CPU."""
    return torch.ones(items.num_items, dtype=torch.bool) if items.learns is None else items.learns[:-1, 0].cpu() > 0


def without_map(model: Recommender) -> Recommender:
    """The student that a `MappedStudent` is made of; any other recommender as it is."""
    return model.student if isinstance(model, MappedStudent) else model


def check_tied(model: Recommender) -> None:
    """Raise InputError unless a recommender scores items by their embeddings."""
    if not isinstance(model, Student):
        raise InputError("item_map=ridge: needs item embeddings, which recommenders in closed form have none of")
    if model.output_kind != "tied":
        raise InputError(f"output={model.output_kind}: new items have no row in that layer; train with output=tied")
    if not model.scores_by_layer:
        raise InputError("item_map=ridge: this student makes its scores in a way of its own, not by item embeddings")


def over_items(student: Student, shape: StudentShape, table: Tensor) -> Student:
    """The same student over a table of V' items [V', d], its padding the item V'. Raises InputError where it cannot."""
    with torch.random.fork_rng(devices=[]):
        found = build_student(shape, len(table))
    given = {name: one.detach().cpu() for name, one in student.state_dict().items() if not _composes(name)}
    given[TABLE] = F.pad(table, (0, 0, 0, 1))
    for name, one in found.state_dict().items():
        if name not in given or given[name].shape != one.shape:
            raise InputError(f"student={shape.student}: its parameter {name} depends on the items; none can be added")
    # Parameters as they come: torch.matmul takes another way, of other last bits, for those that need no gradient.
    found.load_state_dict(given)
    return found.eval()


def _composes(name: str) -> bool:
    return name.startswith(("items.projection.", "items.from_text."))


def has_constant(directory: Path) -> bool:
    """Whether what `MappedStudent.save_map` wrote is the student's own map, with a constant.

    Raises InputError where it cannot be read.
    """
    new = _read_map(directory)[0]
    return new.terms is None and bool(new.map.bias.any())


def load_mapped(directory: Path, student: Recommender) -> MappedStudent:
    """The student with what `MappedStudent.save_map` wrote beside it. Raises InputError where it cannot be read."""
    new, base, new_items = _read_map(directory)
    check_tied(student)
    assert isinstance(student, Student)
    if base > student.num_items or (len(new_items) and int(new_items.max()) >= student.num_items):
        raise InputError(f"{directory}: its map of new items is of another student; make it again")
    return MappedStudent(student, base, new_items, new).eval()


def _read_map(directory: Path) -> tuple[NewItemMap, int, Tensor]:
    """What `MappedStudent.save_map` wrote: the map, ``base`` and the new items. Raises InputError."""
    try:
        described = json.loads((directory / NEW_ITEMS_FILE).read_text(encoding="utf-8"))
        tensors = load_file(directory / MAP_FILE)
        new = NewItemMap(
            ItemMap(tensors["weight"], tensors["bias"]),
            None if described["terms"] is None else Terms(**described["terms"]),
            Interleaving(**described["interleaving"]),
            described["texts"],
            described["vectors"],
        )
        base, new_items = int(described["base"]), tensors["new_items"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{directory}: its map of new items cannot be read ({error}); make it again") from None
    return new, base, new_items
