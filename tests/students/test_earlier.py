"""Students that start from earlier ones, over a catalogue that has grown."""

import numpy as np
import pytest
import torch
from text_students import SMALL, moved, of_data, texts_of

from recdistill.config import BaselineConfig
from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.build import build_student, load_recommender, save_recommender
from recdistill.students.earlier import EarlierStudent, check_same_items, check_shape, rows_of, tensors_of
from recdistill.students.mapped import with_own_map
from recdistill.students.text_vectors import TextVectors
from recdistill.students.training import fit_recommender
from recdistill.training.recorder import NoRecorder

HISTORY, LENGTH = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([5])


def test_rows_are_found_by_id():
    assert rows_of(("a", "c", "b", "d"), ("b", "a", "x")).tolist() == [1, -1, 0, -1]


@pytest.mark.parametrize("output", ["tied", "linear"])
@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
def test_it_scores_as_the_earlier_one_and_new_items_are_as_drawn(student, output, shape):
    made = shape(student, output=output)
    before = build_student(made, 40).eval()
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    # Today: the earlier items in another order, and two that came since.
    order = torch.cat([torch.randperm(40), torch.tensor([-1, -1])])
    model = build_student(made, 42).eval()
    drawn = model.items.embedding.weight[40:42].clone()
    EarlierStudent(tensors_of(before), order).start(model)
    place = torch.full((41,), 42)
    place[order[:40]] = torch.arange(40)
    with torch.no_grad():
        found, expected = model.scores(place[HISTORY], LENGTH), before.scores(HISTORY, LENGTH)
    torch.testing.assert_close(found[:, :40], expected[:, order[:40]])
    assert torch.equal(model.items.embedding.weight[40:42], drawn)
    assert not model.items.embedding.weight[42].any()


def test_new_items_have_the_embedding_of_their_text_where_there_is_a_map(shape):
    made, new_rows = shape("gru4rec"), torch.randn(42, 16)
    before, model = build_student(made, 40), build_student(made, 42)
    rows = torch.cat([torch.arange(40), torch.tensor([-1, -1])])
    EarlierStudent(tensors_of(before), rows, new_rows).start(model)
    assert torch.equal(model.items.embedding.weight[40:42], new_rows[40:])
    assert torch.equal(model.items.embedding.weight[:40], before.items.embedding.weight[:40])


@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
def test_a_map_of_texts_goes_on_and_an_item_s_own_part_with_it(student, shape):
    made, texts = shape(student), texts_of(42)
    before = build_student(made, 40, texts=TextVectors(texts.vectors[:40], texts.trained[:40])).eval()
    moved(before.items)
    served = with_own_map(before, made, {}, {})
    rows = torch.cat([torch.arange(40), torch.tensor([-1, -1])])
    model = build_student(made, 42, texts=texts).eval()
    EarlierStudent(tensors_of(served), rows, torch.randn(42, 16), served.new_item_map.map).start(model)
    torch.testing.assert_close(model.items.from_text.weight, before.items.from_text.weight)
    torch.testing.assert_close(model.item_table()[:40], before.item_table())
    torch.testing.assert_close(model.item_table()[40:], model.items.from_text(texts.vectors[40:]))
    assert not model.items.embedding.weight[[2, 7, 40, 41, 42]].any()


@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
@torch.no_grad()
def test_the_constant_of_a_distilled_student_s_map_goes_on(student, shape, tmp_path):
    """Start, `with_items` and the item table agree: of what was learnt, of what was not, and of what came since."""
    made, texts, noise = shape(student), texts_of(42), torch.Generator().manual_seed(4)
    teacher = 1 + torch.randn(40, 24, generator=noise)
    before = build_student(made, 40, teacher, 0.5, texts=TextVectors(texts.vectors[:40], texts.trained[:40])).eval()
    moved(before.items)
    save_recommender(tmp_path / "before", with_own_map(before, made, {}, {}), made)
    served = load_recommender(tmp_path / "before")
    assert served.new_item_map.map.bias.norm() > 0.1 * served.student.item_table().norm(dim=1).mean()
    added = served.with_items(made, texts.vectors[40:]).student.item_table()[40:]
    rows = torch.cat([torch.arange(40), torch.tensor([-1, -1])])
    for teaches in (False, True):
        taught = (torch.randn(42, 24, generator=noise), 0.5) if teaches else ()
        model = build_student(made, 42, *taught, texts=texts).eval()
        EarlierStudent(tensors_of(served), rows, None, served.new_item_map.map).start(model)
        own, learnt = model.items.own_table(), texts.trained.clone()
        learnt[40:] = False
        torch.testing.assert_close(own[:-1][learnt], served.student.item_table()[learnt[:40]])
        torch.testing.assert_close(own[:-1][~texts.trained], served.new_item_map.map(texts.vectors[~texts.trained]))
        torch.testing.assert_close(own[40:42], added)
        assert not own[-1].any()
    # A student of one generation more has it still, in the table that is served and in the map.
    model = build_student(made, 42, texts=texts).eval()
    EarlierStudent(tensors_of(served), rows, None, served.new_item_map.map).start(model)
    save_recommender(tmp_path / "after", with_own_map(model, made, {}, {}), made)
    again = load_recommender(tmp_path / "after")
    torch.testing.assert_close(again.student.item_table(), model.item_table())
    torch.testing.assert_close(again.new_item_map.map.bias, served.new_item_map.map.bias, rtol=1e-5, atol=1e-7)
    more = again.with_items(made, texts.vectors[40:]).student.item_table()[42:]
    torch.testing.assert_close(more, added)


ITEMS = tuple(f"{item}" for item in range(6))
TITLES = ("Heat (1995)", "Toy Story (1995)", "The Fan (1996)", "Fargo (1996)", "Big Night (1996)", "Alien (1979)")
OTHERS = ("Casino (1995)", "Babe (1995)", "Twister (1996)", "Sleepers (1996)", "Emma (1996)", "Alien (1979)")


def catalogue(ids, titles):
    return Catalogue(tuple(ids), tuple(titles), np.ones(len(ids), dtype=np.int64))


@pytest.mark.parametrize(
    "titles",
    [
        TITLES,
        # All of them written otherwise.
        ("Heat", "TOY STORY", "Fan, The", "Fargo: remastered (1996)", "Big Night", "Alien"),
        # Up to half of them with another name.
        (*OTHERS[:3], *TITLES[3:]),
        # Without titles, ids stand in their place.
        ITEMS,
    ],
)
def test_items_of_one_id_may_be_named_anew(titles):
    rows = rows_of(ITEMS, ITEMS)
    check_same_items(rows, ITEMS, titles, catalogue(ITEMS, TITLES), "run")
    check_same_items(rows, ITEMS, TITLES, catalogue(ITEMS, titles), "run")


@pytest.mark.parametrize("few", [6, 3])
def test_other_items_of_the_same_ids_are_refused(few):
    ids = (*ITEMS[:few], *(f"later {item}" for item in range(6 - few)))
    said = rf"^init_from=run: {min(few, 5)} of {few} items of the same id have another title, as '0', 'Casino \(1995\)'"
    with pytest.raises(InputError, match=said + r" here and 'Heat \(1995\)' there"):
        check_same_items(rows_of(ids, ITEMS), ids, OTHERS, catalogue(ITEMS, TITLES), "run")


def test_a_student_of_no_item_of_today_is_refused():
    ids = tuple(f"film {item}" for item in ITEMS)
    with pytest.raises(InputError, match=r"^init_from=run: has none of the 6 items, as 'film 0'; its own are such as"):
        check_same_items(rows_of(ids, ITEMS), ids, TITLES, catalogue(ITEMS, TITLES), "run")


def test_a_training_from_an_earlier_student_begins_where_that_ended(ring_data):
    config = BaselineConfig(**{k: v for k, v in SMALL.items() if k not in ("item_init", "views")} | {"epochs": 6})
    before = fit_recommender(config, ring_data, recorder=NoRecorder())
    earlier = EarlierStudent(tensors_of(before.model), torch.arange(ring_data.num_items))
    slow = BaselineConfig(**SMALL | {"item_init": "random", "views": "", "learning_rate": 1e-9, "epochs": 1})
    after = fit_recommender(slow, ring_data, recorder=NoRecorder(), earlier=earlier)
    torch.testing.assert_close(after.model.item_table(), before.model.item_table())
    assert after.metrics["test/ndcg_at_20"] == pytest.approx(before.metrics["test/ndcg_at_20"])
    assert of_data(ring_data).vectors.shape[0] == ring_data.num_items


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 8}, r"^hidden_size=8: the student of init_from=run has 16; give that"),
        ({"blocks": 1}, r"^blocks=1: the student of init_from=run has 2"),
        ({"max_length": 12}, r"^max_length=12: the student of init_from=run has 10"),
        ({"output": "linear"}, r"^output=linear: the student of init_from=run has tied"),
    ],
)
def test_other_sizes_are_refused_in_one_line(change, message, shape):
    with pytest.raises(InputError, match=message):
        check_shape(shape("sasrec"), shape("sasrec", **change), "run")
    check_shape(shape("sasrec"), shape("sasrec", dropout=0.4), "run")
    with pytest.raises(InputError, match=r"^student=gru4rec: the student of init_from=run has sasrec"):
        check_shape(shape("sasrec"), shape("gru4rec"), "run")
