"""Students that start from earlier ones, over a catalogue that has grown."""

import pytest
import torch
from text_students import SMALL, moved, of_data, texts_of

from recdistill.config import BaselineConfig
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.build import build_student
from recdistill.students.earlier import EarlierStudent, check_shape, rows_of, tensors_of
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
    text_map = served.new_item_map.map.weight.T.float()
    EarlierStudent(tensors_of(served), rows, torch.randn(42, 16), text_map).start(model)
    torch.testing.assert_close(model.items.from_text.weight, before.items.from_text.weight)
    torch.testing.assert_close(model.item_table()[:40], before.item_table())
    torch.testing.assert_close(model.item_table()[40:], model.items.from_text(texts.vectors[40:]))
    assert not model.items.embedding.weight[[2, 7, 40, 41, 42]].any()


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
