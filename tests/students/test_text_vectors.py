"""Item embeddings that start from the items' texts: what they are, what learns, and a training that is killed."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from text_students import SMALL, KilledRecorder, moved, of_data, texts_of

from recdistill.config import BaselineConfig, DistillConfig, narrow
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.students.build import build_recommender, build_student, load_recommender, save_recommender, shape_of
from recdistill.students.item_embedding import INITIAL_STD, ItemEmbedding
from recdistill.students.mapped import MappedStudent, has_own_map, with_own_map
from recdistill.students.text_vectors import TextVectors
from recdistill.students.training import fit_recommender, initial_student
from recdistill.training.recorder import NoRecorder


@pytest.mark.parametrize("constant", [0.0, 0.7])
@pytest.mark.parametrize("ed_weight", [0.0, 0.5])
def test_every_way_to_an_embedding_is_the_map_of_the_text_plus_what_was_learnt(ed_weight, constant, teacher_embedding):
    texts = texts_of(40)
    items = moved(ItemEmbedding(40, 16, teacher_embedding, ed_weight, texts=texts))
    items.go_on_from_map(torch.randn(5, 16).double(), torch.full((16,), constant).double())
    own = items.embedding.weight[:-1] * texts.trained.unsqueeze(1)
    expected = texts.vectors @ items.from_text.weight.T + constant + own
    if ed_weight:
        expected = expected + ed_weight * items.projection(teacher_embedding)
    expected = torch.cat([expected, torch.zeros(1, 16)])
    ids = torch.tensor([[2, 5, 40], [7, 39, 5]])
    used = torch.tensor([2, 5, 7, 39, 40])
    for training in (True, False):
        items.train(training)
        torch.testing.assert_close(items(ids), expected[ids])
        torch.testing.assert_close(items.padded_table(), expected)
        torch.testing.assert_close(items.item_table(), expected[:-1])
        with items.one_table():
            torch.testing.assert_close(items(ids), expected[ids])
        with items.one_table(used):
            torch.testing.assert_close(items(ids), expected[ids])
    with torch.no_grad():
        torch.testing.assert_close(items(ids), expected[ids])


def test_at_the_start_an_embedding_is_the_map_alone_and_as_long_as_a_drawn_one():
    texts = texts_of(400, size=50)
    items = ItemEmbedding(400, 64, texts=texts)
    assert not items.embedding.weight.any()
    torch.testing.assert_close(items.item_table(), items.from_text(texts.vectors))
    assert float(items.item_table().detach().std()) == pytest.approx(INITIAL_STD, rel=0.1)


def test_texts_change_neither_other_parameters_nor_the_random_state(shape):
    torch.manual_seed(3)
    plain, after = build_student(shape("sasrec"), 40), torch.rand(3)
    torch.manual_seed(3)
    started, after_started = build_student(shape("sasrec"), 40, texts=texts_of(40)), torch.rand(3)
    assert torch.equal(after, after_started)
    states = plain.state_dict(), started.state_dict()
    assert states[1].keys() - states[0].keys() == {"items.from_text.weight"}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] if "embedding" not in name)


@pytest.mark.parametrize("ids", [None, torch.arange(41)])
def test_items_without_a_training_target_learn_nothing_of_their_own(ids):
    items = moved(ItemEmbedding(40, 16, texts=texts_of(40)))
    with items.one_table(ids):
        (items.padded_table().square().sum() + items(torch.tensor([2, 3])).square().sum()).backward()
    gradient = items.embedding.weight.grad
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    assert gradient[[3, 4]].any(dim=1).all()
    assert not gradient[[2, 7]].any()
    assert items.from_text.weight.grad.any()


@pytest.mark.parametrize("base_loss", ["ce", "bce", "sampled", "gbce"])
@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
def test_a_training_leaves_untrained_items_to_their_text(student, base_loss, ring_data):
    config = BaselineConfig(student=student, base_loss=base_loss, negatives=20, **SMALL | {"epochs": 1})
    fitted = fit_recommender(config, ring_data, recorder=NoRecorder(), texts=of_data(ring_data))
    items, trained = fitted.model.items, torch.as_tensor(ring_data.trained)
    assert not trained.all()
    assert not items.embedding.weight[:-1][~trained].any()
    assert items.embedding.weight[:-1][trained].any(dim=1).all()


def test_a_sampled_step_changes_no_row_that_it_does_not_use(ring_data):
    config = BaselineConfig(base_loss="sampled", negatives=2, **SMALL | {"batch_size": 2, "window_stride": 1})
    torch.manual_seed(0)
    model = initial_student(config, shape_of(config), ring_data.num_items, None, of_data(ring_data)).train()
    ids = torch.tensor([0, 3, 5, ring_data.num_items])
    history, length = torch.tensor([[0, 3]]), torch.tensor([2])
    states, output = model.encoded(history, length, torch.tensor([0]), torch.tensor([1]), ids)
    (states.sum() + output.weight.square().sum()).backward()
    gradient = model.items.embedding.weight.grad
    assert gradient.is_sparse
    assert set(gradient.coalesce().indices()[0].tolist()) <= set(ids.tolist())


@pytest.mark.parametrize("base_loss", ["ce", "sampled"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_killed_training_goes_on_to_the_same_student(base_loss, ema_decay, ring_data, tmp_path):
    options = SMALL | {"epochs": 3, "base_loss": base_loss, "ema_decay": ema_decay, "negatives": 20}
    config, texts = BaselineConfig(**options), of_data(ring_data)
    expected = fit_recommender(config, ring_data, recorder=KilledRecorder(tmp_path / "a"), texts=texts)
    with pytest.raises(KeyboardInterrupt):
        fit_recommender(config, ring_data, recorder=KilledRecorder(tmp_path / "b", 1), texts=texts)
    found = fit_recommender(config, ring_data, recorder=KilledRecorder(tmp_path / "b"), texts=texts)
    weights = expected.model.state_dict(), found.model.state_dict()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_weight_zero_is_exactly_undistilled_and_other_weights_are_not(ring_data):
    samples = len(ring_data.train)
    embedding = torch.randn(ring_data.num_items, 6, generator=torch.Generator().manual_seed(0))
    answers = TeacherAnswers(
        covered=torch.ones(samples, dtype=torch.bool), ranking=torch.zeros(samples, 4, dtype=torch.int64),
        distance=torch.rand(samples, 4), item_embedding=embedding, sample=torch.arange(samples), covered_share=1.0,
    )  # fmt: skip
    texts, found = of_data(ring_data), {}
    for weight in (0.0, 0.1, 1.0):
        config = DistillConfig(**SMALL | {"epochs": 1}, lam=0.0, ed_weight=weight)
        fitted = fit_recommender(config, ring_data, teacher=answers, recorder=NoRecorder(), texts=texts)
        found[weight] = fitted.model.item_table().detach()
    plain = fit_recommender(narrow(config, BaselineConfig), ring_data, recorder=NoRecorder(), texts=texts)
    assert torch.equal(found[0.0], plain.model.item_table())
    assert len({float(table.sum()) for table in found.values()}) == 3


def test_a_step_reads_no_wide_table(ring_data):
    samples, wide = len(ring_data.train), 4096
    answers = TeacherAnswers(
        covered=torch.ones(samples, dtype=torch.bool), ranking=torch.zeros(samples, 4, dtype=torch.int64),
        distance=torch.rand(samples, 4), item_embedding=torch.randn(ring_data.num_items, wide),
        sample=torch.arange(samples),
    )  # fmt: skip
    config = DistillConfig(**SMALL, ed_weight=0.0)
    model = initial_student(config, shape_of(config), ring_data.num_items, answers, of_data(ring_data))
    assert not [one for one in (*model.parameters(), *model.buffers()) if wide in one.shape]


@pytest.mark.parametrize("student", STUDENTS.names(gradient=True))
def test_the_served_student_scores_as_the_trained_one_and_takes_further_items(student, shape, tmp_path):
    made, texts = shape(student), texts_of(40)
    model = build_student(made, 40, texts=texts).eval()
    moved(model.items)
    assert has_own_map(model)
    served = with_own_map(model, made, {"item_text": "", "text_template": "", "columns": []}, {"tfidf": {}})
    assert served.new_items.tolist() == [2, 7]
    save_recommender(tmp_path, served, made)
    loaded = load_recommender(tmp_path)
    assert isinstance(loaded, MappedStudent)
    assert json.loads((tmp_path / "new_items.json").read_text())["terms"] is None
    assert not [name for name in load_file(tmp_path / "student.safetensors") if "from_text" in name]
    history, length = torch.tensor([[1, 2, 3, 4, 5, 40], [7, 40, 40, 40, 40, 40]]), torch.tensor([5, 1])
    with torch.no_grad():
        expected = model.scores(history, length)
        torch.testing.assert_close(served.scores(history, length), expected)
        old = loaded.scores(history, length)
        torch.testing.assert_close(old, expected)
        vector = torch.randn(1, 5)
        more = loaded.with_items(made, torch.cat([vector, texts.vectors[2:3]]))
        found = more.scores(history.masked_fill(history == 40, 42), length)
        states = model(history, length, torch.arange(2), length - 1)
        torch.testing.assert_close(found[:, 40], (states @ (model.items.from_text(vector).T)).squeeze(1))
    known = texts.trained
    assert torch.equal(found[:, :40][:, known], old[:, known])
    torch.testing.assert_close(found[:, :40], old)
    # The same text scores the same, whether it came with the others or later.
    torch.testing.assert_close(found[:, 41], old[:, 2])


@pytest.mark.parametrize("ed_weight", [0.0, 0.5])
@torch.no_grad()
def test_a_copy_by_text_of_an_untrained_item_scores_as_it(ed_weight, shape, tmp_path):
    """Of a distilled student up to what the teacher's vectors say beside the text, which no regression can know."""
    made, texts, noise = shape("sasrec"), texts_of(40), torch.Generator().manual_seed(4)
    taught = 1 + texts.vectors @ torch.randn(5, 24, generator=noise) + 0.05 * torch.randn(40, 24, generator=noise)
    # As a teacher may, this one sees items without clicks otherwise.
    taught[~texts.trained] += 2
    model = build_student(made, 40, taught, ed_weight, texts=texts).eval()
    moved(model.items)
    served = with_own_map(model, made, {}, {})
    untrained, history, length = served.new_items, torch.tensor([[1, 2, 3, 4, 5], [8, 9, 10, 41, 41]]), [5, 3]
    assert untrained.tolist() == [2, 7]
    assert torch.equal(served.student.item_table(), model.item_table())
    save_recommender(tmp_path, served, made)
    more = load_recommender(tmp_path).with_items(made, texts.vectors[untrained])
    scores = more.scores(history, torch.tensor(length))
    as_before = F.linear(model(history.clamp(max=40), torch.tensor(length), torch.arange(2), torch.tensor(length) - 1),
                         model.items.from_text(texts.vectors[untrained]))  # fmt: skip
    if not ed_weight:
        torch.testing.assert_close(scores[:, 40:], scores[:, untrained])
        assert torch.equal(served.new_item_map.map.weight, model.items.from_text.weight.double().T)
        assert not served.new_item_map.map.bias.any()
        return
    off, off_before = ((one - scores[:, untrained]).norm() for one in (scores[:, 40:], as_before))
    assert off < 0.05 * scores[:, untrained].norm()
    assert off < 0.05 * off_before
    # With items as if they were new, as `map_items` chooses by, these are mapped as one of their text that is new.
    as_new = served.with_new(made, torch.tensor([2, 3, 7]), texts.vectors).student.item_table()[3]
    torch.testing.assert_close(
        as_new, load_recommender(tmp_path).with_items(made, texts.vectors[3:4]).student.item_table()[40]
    )


def test_a_student_with_an_output_layer_of_its_own_keeps_no_map(shape):
    assert not has_own_map(build_student(shape("sasrec", output="linear"), 40, texts=texts_of(40)))
    assert not has_own_map(build_student(shape("sasrec"), 40))


def test_mistakes_are_refused_in_one_line(shape, ring_data):
    with pytest.raises(InputError, match=r"^item_init=views: vectors of 30 items, the student has 40"):
        build_student(shape("sasrec"), 40, texts=texts_of(30))
    with pytest.raises(InputError, match=r"^item_init=views: ease has no item embedding"):
        build_recommender(shape("ease"), 40, texts=texts_of(40))
    with pytest.raises(InputError, match=r"NaN or infinity"):
        TextVectors(torch.full((3, 2), float("nan")), torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"give each item a vector"):
        TextVectors(torch.zeros(3, 2), torch.ones(4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"^item_init=views: vectors of the items' texts"):
        fit_recommender(BaselineConfig(**SMALL), ring_data, recorder=NoRecorder())
