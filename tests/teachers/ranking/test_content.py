"""What a ranking teacher learns of the items' texts: vectors, and scores of items without clicks."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from small_teachers import KilledError, config_of, small, small_backbone
from tiny_llm import tiny_base_llm

from recdistill.config import changed
from recdistill.config.lineage import key_parts
from recdistill.data.batches import batches
from recdistill.errors import InputError
from recdistill.teachers import shards as module
from recdistill.teachers.ilora import llm_source
from recdistill.teachers.ilora.text_reading import TEMPLATES
from recdistill.teachers.ranking import base_states
from recdistill.teachers.ranking import teacher as ranking
from recdistill.teachers.ranking.content import HALF, PENALTY, ridge, rows_of
from recdistill.teachers.ranking.contrast import (
    AMONG_NEW,
    ItemBatch,
    contrast_lesson,
    item_batches,
    new_targets,
    starts_of_batches,
    states_of_samples,
    validation_of,
)
from recdistill.teachers.ranking.lesson import ranking_lesson
from recdistill.teachers.ranking.model import RankingModel
from recdistill.teachers.ranking.teacher import RankingTeacher, texts_of
from recdistill.teachers.scoring import make_outputs
from recdistill.teachers.training import train_teacher
from recdistill.training.checkpoint import write_checkpoint
from recdistill.training.recorder import NoRecorder
from recdistill.views.build import build_view
from recdistill.views.llm import LLMOptions
from recdistill.views.view import ViewContext

NEW = {"new_items": 0.3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    found = small(tmp_path_factory.mktemp("new"), users=40, split="user-holdout", **NEW)
    assert 3 < (~found.trained).sum() < 25
    return found


@pytest.fixture(scope="module")
def backbone(data):
    return small_backbone(data)


@pytest.fixture
def trained(data, backbone, monkeypatch):
    """Trains a teacher over the tiny llama."""
    monkeypatch.setattr("recdistill.teachers.training.base_llm", lambda config, processes: tiny_base_llm())

    def train(**changes):
        config = config_of(**{"token_budget": 400, "split": "user-holdout", **NEW} | changes)
        return train_teacher(config, data, backbone, recorder=NoRecorder())[0]

    return train


def test_ridge_is_weighted_ridge_regression():
    torch.manual_seed(0)
    x, y = torch.randn(30, 6).double(), torch.randn(30, 4).double()
    count = torch.randint(0, 9, (30,))
    weight, bias = ridge(x, y, count)
    fitted = count > 0
    share = (count / (count + HALF)).double()[fitted]
    share = share / share.sum()
    mean = (share.unsqueeze(1) * x[fitted]).sum(0)
    covariance = (share.unsqueeze(1) * (x[fitted] - mean)).T @ (x[fitted] - mean)
    penalty = PENALTY * covariance.diagonal().mean()
    oracle = Ridge(alpha=float(penalty)).fit(x[fitted], y[fitted], sample_weight=share.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(oracle.coef_))
    torch.testing.assert_close(bias, torch.from_numpy(oracle.intercept_))


def test_text_states_do_not_depend_on_the_batch(data, backbone):
    teacher = RankingTeacher.build(config_of(**NEW), tiny_base_llm(), backbone, data)
    content = teacher.model.content
    whole, seconds = teacher.text_states(content.texts)
    assert seconds > 0
    for item in (0, 7, 20):
        alone = teacher.model.text_states(content.texts, torch.tensor([item]))
        torch.testing.assert_close(alone[0], whole[item], atol=1e-5, rtol=1e-4)
    tokens, real = rows_of(content.texts, torch.arange(4))
    assert real.sum(1).tolist() == content.texts.read[:4].tolist()
    assert tokens.shape == real.shape


@pytest.mark.parametrize("reading", TEMPLATES)
def test_an_untrained_teacher_reads_as_the_view_of_the_frozen_llm(
    data, backbone, reading, tiny_llm_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(llm_source, "compute_dtype", lambda device: torch.float32)
    config = config_of(teacher_reading=reading, **NEW)
    teacher = RankingTeacher.build(config, tiny_base_llm(), backbone, data)
    context = ViewContext(torch.device("cpu"), cache=tmp_path)
    view = build_view("llm", LLMOptions(view_llm=str(tiny_llm_folder), llm_reading=reading), context)
    texts = texts_of(config, data)
    np.testing.assert_allclose(teacher.item_view(), view.vectors(texts), atol=1e-4)


@pytest.mark.parametrize("case", ["the same texts", "other texts", "longer ones", "a file of older versions"])
def test_the_view_of_the_frozen_llm_has_what_a_teacher_has_read(
    data, backbone, case, tiny_llm_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(llm_source, "compute_dtype", lambda device: torch.float32)
    monkeypatch.setattr(base_states, "LEAST_SECONDS", 0.0)
    config = config_of(**NEW)
    texts = [*texts_of(config, data)[:-1], " ".join(["word"] * 60)] if case == "longer ones" else texts_of(config, data)
    monkeypatch.setattr(ranking, "texts_of", lambda *given: tuple(texts))
    teacher = RankingTeacher.build(config, tiny_base_llm(), backbone, data)
    content = teacher.model.content
    states, _ = teacher.base_text_states(content.texts)
    if case == "a file of older versions":
        path = teacher.model.kept_text_states(content.texts).path
        write_checkpoint(path, {"states": states}, {"base": teacher.model.base})
    view = build_view("llm", LLMOptions(view_llm=str(tiny_llm_folder)), ViewContext(torch.device("cpu")))
    read, whole = [], view.encode
    monkeypatch.setattr(view, "encode", lambda batch: read.extend(batch) or whole(batch))
    asked = [*texts, "One more"] if case == "other texts" else list(texts)
    vectors = view.vectors(asked)
    np.testing.assert_allclose(vectors[:4], states[:4], atol=1e-4)
    assert sorted(read) == ([] if case == "the same texts" else sorted(set(asked)))
    if not read:
        np.testing.assert_array_equal(vectors, states)
        assert view.cost(asked).tokens == len(content.texts.tokens)
        assert view.cost(asked).seconds > 0


def test_what_a_teacher_reads_before_it_learns_is_kept_for_the_next(trained, data, monkeypatch, tmp_path):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(base_states, "LEAST_SECONDS", 0.0)
    first = trained().model
    reads = []
    whole = RankingTeacher.text_states
    monkeypatch.setattr(
        RankingTeacher, "text_states", lambda own, texts, *folder: reads.append(len(texts.read)) or whole(own, texts)
    )
    assert torch.equal(trained(seed=2).model.content.input_rows, first.content.input_rows)
    assert not reads
    after_contrast = trained(contrast_token_budget=300).model.content
    assert reads == [data.num_items]
    assert torch.equal(after_contrast.mean, first.content.mean)
    assert not torch.equal(after_contrast.input_rows, first.content.input_rows)
    # Other texts are others.
    trained(teacher_reading="mean")
    assert reads == 2 * [data.num_items]


def test_what_the_cache_has_costs_the_seconds_that_it_took_once(data, backbone, monkeypatch, tmp_path):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(base_states, "LEAST_SECONDS", 0.0)

    def seconds():
        return RankingTeacher.build(config_of(**NEW), tiny_base_llm(), backbone, data).learn_content(None)

    first = seconds()
    assert first > 0
    assert seconds() == seconds() == first


@pytest.mark.parametrize("budget", [0, 300], ids=["without a contrast", "with one"])
@pytest.mark.parametrize("learns", [True, False], ids=["some items are new", "none is new"])
def test_the_tokens_of_texts_that_are_told_beforehand_are_read(
    data, tmp_path_factory, monkeypatch, tmp_path, learns, budget
):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    warm = small(tmp_path_factory.mktemp("warm"), users=40, split="user-holdout")
    catalogue, shares = (data, NEW) if learns else (warm, {"new_items": 0.0})
    config = config_of(**shares | {"split": "user-holdout", "contrast_token_budget": budget, "token_budget": 400})
    read, whole = [], RankingTeacher.text_states

    def counted(own, texts, folder=None):
        read.append(len(texts.tokens))
        return whole(own, texts, folder)

    def of_titles(llm, titles):
        read.append(len(titles.tokens))
        return titles_read(llm, titles)

    def of_trained(model, items):
        zero = torch.zeros(1, dtype=torch.int64)
        read.extend(model.prompts(torch.tensor([[item]]), zero, zero).num_tokens for item in items.tolist())
        return trained_read(model, items)

    backbone = small_backbone(catalogue)
    told = RankingTeacher.build(config, tiny_base_llm(), backbone, catalogue).text_tokens()
    titles_read, trained_read = base_states.read_titles, RankingModel._title_states
    monkeypatch.setattr(base_states, "read_titles", of_titles)
    monkeypatch.setattr(RankingModel, "_title_states", of_trained)
    monkeypatch.setattr(RankingTeacher, "text_states", counted)
    monkeypatch.setattr("recdistill.teachers.training.base_llm", lambda config, processes: tiny_base_llm())
    teacher = train_teacher(config, catalogue, backbone, recorder=NoRecorder())[0]
    teacher.item_view()
    teacher.item_embedding()
    assert sum(read) == told > 0


@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_reading_of_texts_goes_on_and_ends_the_same(data, backbone, tmp_path, monkeypatch, damaged):
    monkeypatch.setattr(module, "SHARD_SECONDS", -1.0)
    monkeypatch.setattr(ranking, "TEXT_ROWS", 5)
    teacher = RankingTeacher.build(config_of(**NEW), tiny_base_llm(), backbone, data)
    texts, whole, read = teacher.model.content.texts, RankingModel.text_states, []
    expected, _ = teacher.text_states(texts)

    def killed(model, texts, items):
        if len(read) == 3:
            raise KilledError
        read.append(items)
        return whole(model, texts, items)

    monkeypatch.setattr(RankingModel, "text_states", killed)
    with pytest.raises(KilledError):
        teacher.text_states(texts, tmp_path)
    shards = sorted(tmp_path.glob("shard-*"))
    assert len(shards) == 3
    if damaged:
        shards[1].write_bytes(shards[1].read_bytes()[:-9])
    again = []
    monkeypatch.setattr(
        RankingModel, "text_states", lambda model, texts, items: again.append(items) or whole(model, texts, items)
    )
    assert torch.equal(teacher.text_states(texts, tmp_path)[0], expected)
    found = torch.cat([*(items for place, items in enumerate(read) if place != 1 or not damaged), *again])
    assert found.sort().values.tolist() == list(range(data.num_items))


def test_new_items_are_scored_by_their_texts(data, backbone, trained):
    teacher = trained()
    new = ~torch.from_numpy(data.trained)
    table = backbone.item_table()
    torch.testing.assert_close(teacher.model.head.item_table[~new], table[~new])
    content = teacher.model.content
    inputs = content.standard(content.view)
    weight, bias = ridge(inputs, table, torch.as_tensor(data.item_count))
    expected = inputs[new] @ weight.T + bias
    torch.testing.assert_close(teacher.model.head.item_table[new], expected)
    torch.testing.assert_close(teacher.model.item_table[new], expected)
    assert not torch.allclose(table[new], expected)


def test_a_loaded_teacher_scores_as_the_saved_one(data, backbone, tmp_path, trained):
    teacher = trained(contrast_token_budget=300)
    teacher.save(tmp_path / "saved")
    loaded = RankingTeacher.load(tmp_path / "saved", teacher.config, tiny_base_llm(), backbone, data)
    batch = next(teacher.batches(data.test, shuffle=False))
    with torch.no_grad():
        torch.testing.assert_close(loaded.score(batch)[0], teacher.score(batch)[0])
        torch.testing.assert_close(loaded.item_view(), teacher.item_view())


def test_untrained_items_are_not_in_the_softmax(data, trained):
    teacher = trained()
    lesson = ranking_lesson(teacher)
    batch = next(iter(lesson.batches()))
    before = lesson.step(batch)["total"]
    new = torch.from_numpy(np.flatnonzero(~data.trained))
    # Not a constant: the backbone's states have mean zero.
    moved = torch.linspace(-3, 5, teacher.model.head.item_table.shape[1])
    teacher.model.head.item_table[new] += moved
    torch.testing.assert_close(lesson.step(batch)["total"], before)
    teacher.model.head.item_table[int(data.train.targets[0])] += moved
    assert not torch.isclose(lesson.step(batch)["total"], before)


def test_a_contrast_teaches_which_text_a_state_is_near(data, backbone):
    teacher = RankingTeacher.build(config_of(contrast_ridge=0.0, **NEW), tiny_base_llm(), backbone, data)
    teacher.model.content.start(teacher.text_states(teacher.model.content.texts)[0])
    lesson = contrast_lesson(teacher, states_of_samples(teacher))
    optimizer = torch.optim.Adam([p for group in lesson.groups for p in group["params"]], lr=0.02)
    batch = next(iter(lesson.batches()))
    first = lesson.step(batch)["contrast"].item()
    frozen = {name: p.clone() for name, p in teacher.model.named_parameters() if name not in lesson.parameters}
    for _ in range(20):
        optimizer.zero_grad()
        lesson.step(batch)["total"].backward()
        optimizer.step()
    assert lesson.step(batch)["contrast"].item() < first - 0.2
    for name, parameter in teacher.model.named_parameters():
        if name in frozen:
            torch.testing.assert_close(parameter, frozen[name], msg=name)


class Curve(NoRecorder):
    """A recorder of what a contrast is chosen by."""

    def __init__(self):
        self.values, self.of_start = [], set()

    def log_metrics(self, metrics, step=0):
        self.values += [value for name, value in metrics.items() if name == "contrast/new_among_new_ndcg_at_20"]
        self.of_start |= {value for name, value in metrics.items() if name.endswith("_of_start")}


@pytest.mark.parametrize("rate", [1e-3, 1e-2], ids=["learns", "leaves its start"])
def test_a_contrast_keeps_what_ranks_the_new_items_of_validation_best(data, backbone, rate, monkeypatch):
    monkeypatch.setattr("recdistill.teachers.training.base_llm", lambda config, processes: tiny_base_llm())
    options = {"token_budget": 0, "contrast_token_budget": 3000, "tokens_per_batch": 200, "contrast_ridge": 0.0}
    options |= {"contrast_learning_rate": rate, "contrast_kept": "validation"}
    config = config_of(split="user-holdout", **options, **NEW)
    curve = Curve()
    teacher = train_teacher(config, data, backbone, recorder=curve)[0]
    start = RankingTeacher.build(config, tiny_base_llm(), backbone, data)
    start.model.content.start(start.text_states(start.model.content.texts)[0])
    before = validation_of(start)()[AMONG_NEW]
    assert len(curve.values) > 5
    assert curve.of_start == {before}
    texts = start.model.content.texts
    read = (1 + len(curve.values)) * texts.lengths[data.new_validation].sum()
    last = RankingTeacher.build(changed(config, contrast_kept="last"), tiny_base_llm(), backbone, data)
    assert teacher.text_tokens() - last.text_tokens() == read
    assert validation_of(teacher)()[AMONG_NEW] == pytest.approx(max(before, *curve.values))
    if rate == 1e-2:
        assert max(curve.values[1:]) < before
        torch.testing.assert_close(teacher.model.content.view, start.text_states(start.model.content.texts)[0])
    else:
        assert max(curve.values) > before


def test_what_a_history_holds_is_not_ranked_where_a_contrast_is_chosen(data, backbone):
    """Without drawn items the new ones are those that nobody is trained on, which histories may hold."""
    sample, place = new_targets(data)
    seen = int(data.new_validation[(place[0] + 1) % len(data.new_validation)])
    items, part = data.validation.items.copy(), data.validation
    items[part.start[sample[0]]] = seen
    changed_data = replace(data, validation=replace(part, items=items))
    for exclude_seen in (True, False):
        config = config_of(exclude_seen=exclude_seen, contrast_token_budget=300, **NEW)
        teacher = RankingTeacher.build(config, tiny_base_llm(), backbone, changed_data)
        teacher.model.content.start(teacher.text_states(teacher.model.content.texts)[0])
        content = teacher.model.content
        with torch.no_grad():
            rows = content.mapped(teacher.model.text_states(content.texts, torch.from_numpy(data.new_validation)))
        states = states_of_samples(teacher, changed_data.validation.subset(sample))
        scores = states @ rows.T
        if exclude_seen:
            scores[0, np.searchsorted(data.new_validation, seen)] = -torch.inf
        rank = (scores >= scores.gather(1, torch.from_numpy(place)[:, None])).sum(1)
        gain = torch.where(rank <= 20, 1 / torch.log2(1.0 + rank), 0.0).mean()
        assert validation_of(teacher)()[AMONG_NEW] == pytest.approx(float(gain), abs=1e-6)


def test_a_contrast_cannot_be_chosen_without_new_items_of_validation(data, backbone):
    without = replace(data, new_validation=np.zeros(0, dtype=np.int64))
    config = config_of(contrast_token_budget=300, contrast_kept="validation", **NEW)
    with pytest.raises(InputError, match=r"^contrast_kept=validation: no target of validation is a new item; give new"):
        RankingTeacher.build(config, tiny_base_llm(), backbone, without)


def test_a_contrast_of_before_keeps_its_key():
    config = config_of(contrast_token_budget=300, **NEW)
    assert "contrast_kept" not in key_parts("teacher", config, "data")["options"]
    chosen = changed(config, contrast_kept="validation")
    assert key_parts("teacher", chosen, "data")["options"]["contrast_kept"] == "validation"


def test_a_pass_has_every_trained_item_once_with_its_own_samples(data, backbone):
    config = config_of(tokens_per_batch=40, **NEW)
    teacher = RankingTeacher.build(config, tiny_base_llm(), backbone, data)
    trainable = data.trainable(True)
    targets = data.train.targets
    items = np.unique(targets if trainable is None else targets[trainable])
    found, seen = list(islice(item_batches(teacher), 30)), []
    for batch in found:
        assert (torch.from_numpy(targets)[batch.sample] == batch.items[batch.label]).all()
        assert batch.tokens >= len(batch.items)
        seen += batch.items.tolist()
    assert set(seen) == set(items.tolist())
    assert seen[: len(items) - 2].count(seen[0]) == 1
    part, share = found[0].part(0, 2)
    other, rest = found[0].part(1, 2)
    assert share + rest == pytest.approx(1)
    assert part.items is found[0].items
    assert torch.cat([part.sample, other.sample]).tolist() == found[0].sample.tolist()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 100))
def test_batches_of_texts_have_two_at_least_and_no_more_tokens_than_asked(lengths, most):
    lengths = np.array(lengths)
    parts = np.split(lengths, starts_of_batches(lengths, most))
    assert np.concatenate(parts).tolist() == lengths.tolist()
    for place, part in enumerate(parts):
        assert len(part) >= min(2, len(lengths))
        # The last text of all is in no batch of its own.
        full = part[:-1] if place == len(parts) - 1 else part
        assert len(full) <= 2 or full.sum() <= most
    for part, later in pairwise(parts):
        assert part.sum() + later[0] > most


def test_states_are_those_of_the_samples_histories(data, backbone):
    teacher = RankingTeacher.build(config_of(**NEW), tiny_base_llm(), backbone, data)
    found = states_of_samples(teacher)
    for batch in islice(
        batches(
            data.train, length=backbone.max_length, batch_size=5, stride=1, padding_id=data.padding_id, seed=0, epoch=0
        ),
        3,
    ):
        with torch.no_grad():
            expected = backbone(batch.history, batch.length, batch.row, batch.column)
        torch.testing.assert_close(found[batch.sample], expected, atol=1e-5, rtol=1e-4)


def test_outputs_have_a_vector_of_every_text(data, tmp_path, trained):
    teacher = trained(contrast_token_budget=300)
    outputs = make_outputs(teacher, teacher.config, tmp_path / "outputs")
    torch.testing.assert_close(outputs.item_view, teacher.model.content.view)
    outputs.save(tmp_path / "kept")
    torch.testing.assert_close(type(outputs).load(tmp_path / "kept").item_view, outputs.item_view)
    # New items are offered as candidates.
    offered = np.unique(outputs.ranking.numpy())
    assert (~data.trained[offered]).any()


def test_where_all_items_are_trained_a_teacher_is_as_before(tmp_path):
    whole = small(tmp_path, users=40, split="leave-one-out")
    assert whole.trained.all()
    teacher = RankingTeacher.build(config_of(split="leave-one-out"), tiny_base_llm(), small_backbone(whole), whole)
    assert teacher.model.content is None
    assert not any(name.startswith("content") for name in teacher.model.trained())
    assert teacher.item_view().shape == (whole.num_items, teacher.model.head.query.in_features)
    assert texts_of(teacher.config, whole)[3] == whole.titles[3]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_processes_have_a_sample_each_and_the_shares_of_one(count):
    batch = ItemBatch(torch.arange(4), torch.tensor([7, 9, 11]), torch.tensor([0, 1, 3]), tokens=12)
    parts = [batch.part(index, count) for index in range(count)]
    assert all(len(part.sample) for part, _ in parts)
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert [one for part, share in parts if share for one in part.sample.tolist()] == [7, 9, 11]
    assert [one for part, share in parts if share for one in part.label.tolist()] == [0, 1, 3]
