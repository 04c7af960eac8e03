import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.students.build import build_recommender, load_recommender, save_recommender
from recdistill.students.item_map import ItemMap, Terms
from recdistill.students.mapped import (
    BLOCK,
    Interleaving,
    MappedStudent,
    NewItemMap,
    has_constant,
    with_new_items,
)

NUM_ITEMS, LENGTH = 40, 10  # of the students that `build` makes
NEW = torch.tensor([3, 17, 39])
SIZE = 5
AS_IT_IS = Interleaving()


def new_item_map(interleaving=AS_IT_IS, width=16):
    random = torch.Generator().manual_seed(3)
    weight = torch.randn(SIZE, width, generator=random).double()
    bias = torch.randn(width, generator=random).double()
    texts = {"item_text": "", "text_template": "", "columns": ["year"]}
    return NewItemMap(ItemMap(weight, bias), Terms(0.1, 0.5, 0.2), interleaving, texts, {"tfidf": {"size": 5}})


def vectors(items, seed=4):
    return torch.randn(items, SIZE, generator=torch.Generator().manual_seed(seed))


def histories(items, seed=0):
    random = torch.Generator().manual_seed(seed)
    length = torch.randint(1, LENGTH + 1, (12,), generator=random)
    history = items[torch.randint(len(items), (12, LENGTH), generator=random)]
    return history, length


def old_items():
    return torch.from_numpy(np.setdiff1d(np.arange(NUM_ITEMS), NEW))


@pytest.fixture(params=["sasrec", "gru4rec", "caser", "esasrec"])
def name(request):
    return request.param


@torch.no_grad()
def test_old_scores_stay_bit_for_bit_also_where_items_are_added(name, build, shape):
    student = build(name)
    history, length = histories(old_items())
    before = student.scores(history, length)
    mapped = with_new_items(student, shape(name), NEW, vectors(3), new_item_map(Interleaving(1.5, -2.0)))
    more = mapped.with_items(shape(name), vectors(7, seed=6)).with_items(shape(name), vectors(2, seed=7))
    assert (mapped.num_items, more.num_items) == (NUM_ITEMS, NUM_ITEMS + 9)
    for model in (mapped, more):
        scores = model.scores(history, length)
        assert scores.shape == (12, model.num_items)
        assert torch.equal(scores[:, old_items()], before[:, old_items()])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    before=st.sampled_from([0, 1, 2, 5, 13, BLOCK - 4, BLOCK, 3 * BLOCK]),
    added=st.sampled_from([1, 2, 7, 100, BLOCK, 2 * BLOCK + 1]),
    rows=st.sampled_from([1, 2, 3, 12]),
    count=st.sampled_from([1, 2]),
)
@torch.no_grad()
def test_scores_of_new_items_stay_bit_for_bit_where_further_ones_are_added(
    before, added, rows, count, build, shape, threads
):
    threads(count)
    mapped = with_new_items(build("gru4rec"), shape("gru4rec"), NEW, vectors(3), new_item_map(Interleaving(1.25, 0.3)))
    one = mapped.with_items(shape("gru4rec"), vectors(before, seed=6))
    two = one.with_items(shape("gru4rec"), vectors(added, seed=7))
    history, length = histories(torch.arange(one.num_items))
    history, length = history[:rows], length[:rows]
    assert torch.equal(two.scores(history, length)[:, : one.num_items], one.scores(history, length))


def test_columns_are_those_of_the_student_s_own_new_items(build, shape):
    mapped = with_new_items(build("gru4rec"), shape("gru4rec"), NEW, vectors(3), new_item_map())
    assert mapped.columns_of(np.array([39, 3])).tolist() == [2, 0]
    assert mapped.columns_of(np.zeros(0, dtype=np.int64)).tolist() == []
    for known in (4, 0, 77):
        with pytest.raises(ValueError, match="not new to the student"):
            mapped.columns_of(np.array([3, known]))


@torch.no_grad()
def test_further_items_are_as_if_new_and_those_that_are_new_stay_so(build, shape):
    mapped = with_new_items(build("gru4rec"), shape("gru4rec"), NEW, vectors(3), new_item_map())
    of_texts = vectors(NUM_ITEMS, seed=9)
    for items in ([20, 5], [5, 17, 20, 39]):
        found = mapped.with_new(shape("gru4rec"), torch.tensor(items), of_texts)
        assert found.new_items.tolist() == [3, 5, 17, 20, 39]
        table = found.student.item_table()
        assert torch.equal(table[NEW], mapped.student.item_table()[NEW])
        assert torch.equal(table[[5, 20]], mapped.new_item_map.map(of_texts[[5, 20]]))


def test_what_is_saved_says_whether_the_own_map_has_a_constant(build, shape, tmp_path):
    weight, bias = torch.ones(SIZE, 16).double(), torch.ones(16).double()
    for number, (constant, terms, expected) in enumerate(
        ((bias, None, True), (0 * bias, None, False), (bias, Terms(0, 0, 0), False))
    ):
        made = NewItemMap(ItemMap(weight, constant), terms, AS_IT_IS, {}, {})
        mapped = with_new_items(build("gru4rec"), shape("gru4rec"), NEW, vectors(3), made)
        save_recommender(tmp_path / str(number), mapped, shape("gru4rec"))
        assert has_constant(tmp_path / str(number)) == expected


@torch.no_grad()
def test_a_teacher_that_is_injected_counts_in_old_scores_and_is_folded_in(name, build, shape, teacher_embedding):
    student = build(name, ed_weight=0.4)
    history, length = histories(old_items())
    mapped = with_new_items(student, shape(name), NEW, vectors(3), new_item_map())
    known = mapped.scores(history, length)[:, old_items()]
    torch.testing.assert_close(known, student.scores(history, length)[:, old_items()])


@torch.no_grad()
def test_new_scores_are_states_times_mapped_embeddings_set_among_the_others(name, build, shape):
    student, made = build(name), new_item_map(Interleaving(1.5, -2.0))
    history, length = histories(old_items())
    mapped = with_new_items(student, shape(name), NEW, vectors(3), made)
    states = student(history, length, torch.arange(12), length - 1)
    expected = 1.5 * (states @ (vectors(3).double() @ made.map.weight + made.map.bias).float().T) - 2.0
    torch.testing.assert_close(mapped.scores(history, length)[:, NEW], expected)


@torch.no_grad()
def test_a_history_may_hold_new_items_whose_input_is_the_mapped_embedding(name, build, shape):
    student, made = build(name), new_item_map()
    mapped = with_new_items(student, shape(name), NEW, vectors(3), made).with_items(shape(name), vectors(2, seed=8))
    all_items = torch.arange(NUM_ITEMS + 2)
    history, length = histories(all_items, seed=5)
    assert bool((history >= NUM_ITEMS).any())
    assert bool(torch.isin(history, NEW).any())
    # A student of one item more, whose own rows are these embeddings, reads the same.
    own = build_recommender(shape(name), NUM_ITEMS + 2)
    own.load_state_dict(student.state_dict() | {"items.embedding.weight": own.items.embedding.weight})
    own.eval()
    rows = torch.cat([student.item_table(), made.map(vectors(2, seed=8)), torch.zeros(1, 16)])
    rows[NEW] = made.map(vectors(3))
    own.items.embedding.weight.copy_(rows)
    torch.testing.assert_close(mapped.scores(history, length), own.scores(history, length))


@torch.no_grad()
def test_what_stands_at_the_padding_does_not_count(build, shape):
    mapped = with_new_items(build("sasrec"), shape("sasrec"), NEW, vectors(3), new_item_map())
    more = mapped.with_items(shape("sasrec"), vectors(4))
    history, length = histories(old_items())
    columns = torch.arange(LENGTH) >= length[:, None]
    for padding in (NUM_ITEMS, NUM_ITEMS + 4, 0):
        assert torch.equal(more.scores(history.masked_fill(columns, padding), length), more.scores(history, length))


@torch.no_grad()
def test_it_is_saved_and_loaded_with_all_that_more_items_need(name, build, shape, tmp_path):
    mapped = with_new_items(build(name), shape(name), NEW, vectors(3), new_item_map(Interleaving(1.25, 0.5)))
    mapped = mapped.with_items(shape(name), vectors(2))
    save_recommender(tmp_path, mapped, shape(name), fold=True)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, MappedStudent)
    history, length = histories(torch.arange(NUM_ITEMS + 2))
    assert torch.equal(loaded.scores(history, length), mapped.scores(history, length))
    again = loaded.with_items(shape(name), vectors(1, seed=9))
    expected = mapped.with_items(shape(name), vectors(1, seed=9))
    assert torch.equal(again.scores(history, length), expected.scores(history, length))
    assert loaded.new_item_map.terms == mapped.new_item_map.terms
    assert json.loads((tmp_path / "new_items.json").read_text())["vectors"] == {"tfidf": {"size": 5}}


def test_a_student_without_new_items_is_saved_as_it_always_was(build, shape, tmp_path):
    student = build("sasrec")
    save_recommender(tmp_path, student, shape("sasrec"))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["student.json", "student.safetensors"]
    assert type(load_recommender(tmp_path)) is type(student)


@torch.no_grad()
def test_a_student_without_any_new_item_scores_as_before(build, shape):
    student, none = build("sasrec"), torch.zeros(0, dtype=torch.int64)
    mapped = with_new_items(student, shape("sasrec"), none, vectors(0), new_item_map())
    history, length = histories(torch.arange(NUM_ITEMS))
    assert torch.equal(mapped.scores(history, length), student.scores(history, length))


def test_an_untied_student_is_refused_in_one_line(build, shape):
    student = build("sasrec", output="linear")
    with pytest.raises(InputError, match=r"^output=linear: new items have no row in that layer"):
        with_new_items(student, shape("sasrec", output="linear"), NEW, vectors(3), new_item_map())


@pytest.mark.parametrize("damage", ["{}", "not json", '{"base": 99, "terms": {}}'])
def test_a_damaged_map_is_refused(build, shape, tmp_path, damage):
    mapped = with_new_items(build("sasrec"), shape("sasrec"), NEW, vectors(3), new_item_map())
    save_recommender(tmp_path, mapped, shape("sasrec"))
    (tmp_path / "new_items.json").write_text(damage)
    with pytest.raises(InputError, match="map of new items cannot be read"):
        load_recommender(tmp_path)


def test_a_map_of_another_student_is_refused(build, shape, tmp_path):
    mapped = with_new_items(build("sasrec"), shape("sasrec"), NEW, vectors(3), new_item_map())
    save_recommender(tmp_path, mapped, shape("sasrec"))
    described = json.loads((tmp_path / "new_items.json").read_text())
    (tmp_path / "new_items.json").write_text(json.dumps(described | {"base": NUM_ITEMS + 1}))
    with pytest.raises(InputError, match="of another student"):
        load_recommender(tmp_path)
