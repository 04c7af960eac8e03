"""A student that starts from an earlier one (``init_from``), whose catalogue may lack items of today."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.students.item_map import ItemMap
from recdistill.students.mapped import without_map
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape
from recdistill.students.student import Student

TABLE, MAP = "items.embedding.weight", "items.from_text.weight"
#: Tensors with a row for each item.
OF_ITEMS = (TABLE, "output.weight", "output.bias")
#: Of a shape: what changes no parameter.
FREE = "dropout"
WORD = re.compile(r"\w+")
#: Share of the items matched by id that may have another title: items are renamed, but seldom most of them at once.
RENAMED = 0.5


@dataclass(frozen=True, eq=False)
class EarlierStudent:
    """What a student of V items starts from.

    Attributes:
        tensors: the earlier student's, by name, its item table folded.
        rows: int64 [V], the row of each item in the earlier catalogue, -1 where that lacks it.
        new_rows: float32 [V, D], embeddings of items by their text, read where ``rows`` is -1; None for drawn ones.
        text_map: the earlier student's own map from texts, with its constant; None where it has none.
    """

    tensors: Mapping[str, Tensor]
    rows: Tensor
    new_rows: Tensor | None = None
    text_map: ItemMap | None = None

    @torch.no_grad()
    def start(self, model: Student) -> None:
        """Give a student with fresh parameters those of the earlier one.

        An item that the earlier catalogue lacks has its text's embedding, or keeps what was drawn for it. Where the
        student's embeddings start from texts, the map is the earlier one, and an item's own part the rest.

        Raises InputError where a parameter does not fit.
        """
        known = self.rows >= 0
        place = self.rows.clamp(min=0)
        given = model.state_dict()
        of_teacher = {name for name in given if name.startswith("items.projection.")}
        for name, tensor in given.items():
            if name == MAP or name in of_teacher:
                continue
            before = self.tensors.get(name)
            if before is not None and name in OF_ITEMS:
                self._rows(name, tensor, before, known, place, model)
            elif before is not None and before.shape == tensor.shape:
                tensor.copy_(before)
            else:
                raise InputError(f"init_from: the earlier student has no parameter {name} of that size")

    def _rows(self, name: str, tensor: Tensor, before: Tensor, known: Tensor, place: Tensor, model: Student) -> None:
        """Set the rows of known items, and of the item table those that texts give."""
        found = tensor[: len(known)].clone()
        if name == TABLE and self.new_rows is not None:
            found = self.new_rows.to(found)
        found[known] = before[place[known]].to(found)
        if name == TABLE and model.items.from_text is not None:
            assert self.text_map is not None
            assert model.items.text_vectors is not None
            model.items.go_on_from_map(self.text_map.weight, self.text_map.bias)
            weight, bias = self.text_map.weight.T.to(found), self.text_map.bias.to(found)
            found = found - F.linear(model.items.text_vectors[: len(known)], weight, bias if bias.any() else None)
            learns = model.items.learns
            # An item without a training target has nothing beside its text, and neither has one that is new.
            found[~known] = 0.0
            found = found if learns is None else found * learns[: len(known)]
        tensor[: len(known)] = found


def check_shape(earlier: StudentShape, shape: StudentShape, run: str) -> None:
    """Raise InputError, one line, where a student of another shape cannot start from an earlier one."""
    before, now = ({**one.values(), **one.options} for one in (earlier, shape))
    for name in ("student", *(name for name in now if name not in ("student", "options", FREE))):
        if before.get(name) != now[name]:
            raise InputError(
                f"{name}={now[name]}: the student of init_from={run} has {before.get(name)}; give that, or start anew"
            )


def rows_of(item_ids: Sequence[str], earlier_ids: Sequence[str]) -> Tensor:
    """The place of each item in the earlier catalogue, int64 [V]; -1 where that lacks it."""
    place = {item: row for row, item in enumerate(earlier_ids)}
    return torch.tensor([place.get(item, -1) for item in item_ids], dtype=torch.int64)


def check_same_items(
    rows: Tensor, item_ids: Sequence[str], titles: Sequence[str], earlier: Catalogue, run: str
) -> None:
    """Raise InputError, one line, where an earlier student's items are others, though some may have the same ids.

    So no item is matched, or most of those that are have another title than there. An item without title, which has its
    id in the place of one, is not compared.

    Args:
        rows: int64 [V], of `rows_of`.
        item_ids, titles: V of today's items.
        earlier: the earlier student's items.
        run: its name, for messages.
    """
    matched = (rows >= 0).nonzero().squeeze(1).tolist()
    if not matched:
        raise InputError(
            f"init_from={run}: has none of the {len(item_ids):,} items, as {item_ids[0]!r}; its own are such as "
            f"{earlier.item_ids[0]!r}; give a student of these items, or start anew"
        )
    pairs = [(item_ids[item], titles[item], earlier.titles[int(rows[item])]) for item in matched]
    pairs = [(item, now, before) for item, now, before in pairs if item not in (now, before)]
    others = [one for one in pairs if not are_alike(*one[1:])]
    if len(others) > RENAMED * len(pairs):
        item, now, before = others[0]
        raise InputError(
            f"init_from={run}: {len(others):,} of {len(pairs):,} items of the same id have another title, as {item!r}, "
            f"{now!r} here and {before!r} there; give a student of these items, or start anew"
        )


def are_alike(title: str, other: str) -> bool:
    """Whether two titles may be of one item: the same, or with more than half of the shorter one's words in common.

    >>> are_alike("The Godfather", "Godfather, The (1972)"), are_alike("Heat (1995)", "Casino (1995)")
    (True, False)
    """
    if title == other:
        return True
    words, other_words = (set(WORD.findall(one.casefold())) for one in (title, other))
    return 2 * len(words & other_words) > min(len(words), len(other_words))


def tensors_of(model: Recommender) -> dict[str, Tensor]:
    """The tensors of an earlier student, that of a mapped one within it. Raises InputError where it has no states."""
    found = without_map(model)
    if not isinstance(found, Student):
        raise InputError("init_from: the earlier recommender is not trained by gradient; choose a student's run")
    return dict(found.state_dict())
