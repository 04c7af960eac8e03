"""A teacher behind a server: what it asks, what it makes of the answers, and what it spends."""

import math

import numpy as np
import pytest
import torch
from fake_server import KEY, reversed_order, serving
from small_teachers import small, small_backbone

from recdistill.config import TeacherConfig
from recdistill.errors import InputError
from recdistill.evaluation.ranking import rank_of_target
from recdistill.teachers.checks import check_teacher
from recdistill.teachers.endpoint.teacher import EndpointTeacher, distances, text_of
from recdistill.teachers.protocol import AsksQueries
from recdistill.teachers.scoring import asked_for, make_outputs
from recdistill.testing.teachers import check_teacher_outputs
from recdistill.training.distributed import Processes

CANDIDATES = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"), users=12)


@pytest.fixture(scope="module")
def backbone(data):
    return small_backbone(data)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path / "cache"))


def config_of(server, **changes):
    options = {"endpoint_model": "tiny", "endpoint_candidates": CANDIDATES, "query_budget": 20, "top_n": 8}
    options |= {"endpoint_timeout": 1.0, "endpoint_tries": 2, "teacher_history": 3, "endpoint_evaluate": 0}
    return TeacherConfig(teacher="endpoint", endpoint=server.address, **(options | changes))


def teacher_of(server, data, backbone, **changes):
    config = config_of(server, **changes)
    check_teacher(config)
    return EndpointTeacher.build(config, None, backbone, data)


def outputs_of(teacher, tmp_path, name="outputs"):
    return make_outputs(teacher, teacher.config, tmp_path / name)


def test_its_outputs_are_the_order_named_and_then_the_sasrec_s(data, backbone, tmp_path):
    with serving() as server:
        teacher = teacher_of(server, data, backbone)
        assert isinstance(teacher, AsksQueries)
        outputs = outputs_of(teacher, tmp_path)
    check_teacher_outputs(outputs, data)
    asked = asked_for(teacher, teacher.config)
    assert len(asked) == 20
    assert outputs.sample.tolist() == sorted(asked.tolist())
    assert (outputs.manifest.llm, outputs.manifest.teacher) == ("tiny", "endpoint")
    assert "first 5" in outputs.manifest.confidence
    (batch,) = teacher.batches(data.train, shuffle=False, index=outputs.sample.numpy())
    logits, _ = teacher.backbone_scores(data.train, batch)
    best = logits.topk(8, dim=1).indices
    expected = torch.cat([best[:, :CANDIDATES].flip(1), best[:, CANDIDATES:]], dim=1)
    assert torch.equal(outputs.ranking[batch.sample.argsort()], expected[batch.sample.argsort()])
    torch.testing.assert_close(outputs.distance, torch.arange(1.0, 9).log().expand(20, 8))


def test_it_asks_by_title_for_the_sasrec_s_best(data, backbone, tmp_path):
    with serving() as server:
        teacher = teacher_of(server, data, backbone, query_budget=1)
        outputs = outputs_of(teacher, tmp_path)
        (text,) = server.asked
    sample = int(outputs.sample[0])
    history = data.train.items[data.train.start[sample] : data.train.end[sample]][-3:]
    assert "\n".join(f"- {data.titles[item]}" for item in history) + "\n\n" in text
    candidates = outputs.ranking[0, :CANDIDATES].flip(0).tolist()
    assert "".join(f"[{n}] {data.titles[item]}\n" for n, item in enumerate(candidates, 1)) in text


@pytest.mark.parametrize("form", ["chat", "completions"])
def test_nothing_is_paid_twice(data, backbone, tmp_path, form):
    with serving() as server:
        teacher = teacher_of(server, data, backbone, endpoint_form=form)
        first = outputs_of(teacher, tmp_path)
        paid = len(server.asked)
        assert len(set(server.asked)) == paid
        assert teacher.metrics()["endpoint/queries_paid_now"] == paid
    # The server is gone.
    again = teacher_of(server, data, backbone, endpoint_form=form)
    second = outputs_of(again, tmp_path, "again")
    for name in ("sample", "ranking", "distance", "item_embedding"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    found, before = again.metrics(), teacher.metrics()
    assert found["endpoint/queries_paid_now"] == 0
    same = {"endpoint/queries": 20, "endpoint/prompt_tokens": 2000, "endpoint/answer_tokens": 200}
    assert found.items() >= same.items()
    assert before.items() >= same.items()


def test_a_server_that_dies_costs_nothing_that_was_answered(data, backbone, tmp_path):
    with serving() as server:
        server.answer = lambda text: server.faults.extend([500] * 99) or reversed_order(text)
        with pytest.raises(InputError, match="HTTP 500: fault 500") as caught:
            outputs_of(teacher_of(server, data, backbone, endpoint_queries=1), tmp_path)
        assert "\n" not in str(caught.value)
        assert len(server.asked) == 1
        server.answer, server.faults = reversed_order, []
        teacher = teacher_of(server, data, backbone)
        outputs = outputs_of(teacher, tmp_path)
        assert len(set(server.asked)) == len(server.asked)
        assert teacher.metrics()["endpoint/queries_paid_now"] == len(server.asked) - 1
    assert len(outputs.sample) == 20


def test_what_cannot_be_read_counts_as_not_asked(data, backbone, tmp_path):
    with serving(lambda text: reversed_order(text) if len(text) % 2 else "I would rather not.") as server:
        teacher = teacher_of(server, data, backbone)
        outputs = outputs_of(teacher, tmp_path)
        read = sum(len(text) % 2 for text in server.asked)
        assert 0 < len(outputs.sample) < 20
        share = teacher.metrics()["endpoint/readable_share"]
        assert share == len(outputs.sample) / 20
        assert 0 < read < len(server.asked)
    check_teacher_outputs(outputs, data)
    with serving(lambda text: "Sorry.") as server:
        teacher = teacher_of(server, data, backbone, endpoint_model="mute")
        with pytest.raises(InputError, match="none of the answers"):
            outputs_of(teacher, tmp_path, "mute")


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_outputs_do_not_depend_on_how_many_are_asked_at_once(data, backbone, tmp_path, at_once):
    with serving() as server:
        server.pause = 0.02
        options = {"cost_budget": 0.01, "price_prompt": 10.0, "price_answer": 20.0, "endpoint_tokens": 10}
        teacher = teacher_of(server, data, backbone, endpoint_queries=at_once, **options)
        outputs = outputs_of(teacher, tmp_path)
        assert 1 <= server.at_once <= at_once
        assert at_once == 1 or server.at_once > 1
    found = teacher.metrics()
    one = (100 * 10 + 10 * 20) / 1e6
    assert found["endpoint/cost"] == pytest.approx(one * found["endpoint/queries"])
    # Each is asked where what it may cost at most is still there.
    assert found["endpoint/cost"] <= 0.01
    assert found["endpoint/queries"] == len(outputs.sample) == expected_queries(teacher, one)
    # What is paid for is what the policy asks first.
    first = asked_for(teacher, teacher.config)[: len(outputs.sample)]
    assert outputs.sample.tolist() == sorted(first.tolist())


def expected_queries(teacher, one):
    """Queries that a loop asks one after another."""
    asked = asked_for(teacher, teacher.config)
    spent, count = 0.0, 0
    for batch in teacher.batches(teacher.data.train, shuffle=False, index=asked):
        logits, _ = teacher.backbone_scores(teacher.data.train, batch)
        for sample, row in zip(batch.sample, logits, strict=True):
            if spent + teacher.query(teacher.data.train, int(sample), row).most_cost > 0.01:
                return count
            spent, count = spent + one, count + 1
    return count


def test_a_cost_budget_needs_prices_and_a_count_of_tokens(data, backbone, tmp_path):
    with serving() as server:
        with pytest.raises(InputError, match=r"cost_budget=1\.0: has no prices"):
            check_teacher(config_of(server, cost_budget=1.0))
        server.usage = False
        teacher = teacher_of(server, data, backbone, cost_budget=1.0, price_prompt=1.0)
        with pytest.raises(InputError, match="does not say how many tokens"):
            outputs_of(teacher, tmp_path)


def test_test_samples_are_asked_for_metrics(data, backbone):
    with serving() as server:
        teacher = teacher_of(server, data, backbone, endpoint_evaluate=5)
        found = teacher.metrics()
        assert found["asked/samples"] == 5
        assert found["endpoint/test/queries"] == 5
        assert found["endpoint/queries"] == 0
        index = np.sort(np.random.default_rng(0).permutation(len(data.test))[:5])
        (batch,) = teacher.batches(data.test, shuffle=False, index=index)
        logits, _ = teacher.backbone_scores(data.test, batch)
        best = logits.topk(CANDIDATES, dim=1).indices
        ndcg = {"asked": [], "asked/backbone": []}
        for row in range(5):
            place = logits[row].argsort(descending=True, stable=True).tolist()
            of_backbone = place.index(int(batch.target[row])) + 1
            named = best[row].flip(0).tolist()
            own = (named + [item for item in place if item not in named]).index(int(batch.target[row])) + 1
            seen = set(data.test.items[data.test.start[index[row]] : data.test.end[index[row]]].tolist())
            missed = int(batch.target[row]) in seen
            for name, rank in (("asked", own), ("asked/backbone", of_backbone)):
                ndcg[name].append(1 / math.log2(rank + 1) if rank <= 10 and not missed else 0.0)
        for name, values in ndcg.items():
            assert found[f"{name}/ndcg_at_10"] == pytest.approx(np.mean(values))
    assert "asked/samples" not in teacher_of(server, data, backbone).metrics()
    assert teacher.ranks() is None


def test_embeddings_of_titles(data, backbone, tmp_path):
    with serving() as server:
        plain = teacher_of(server, data, backbone)
        assert torch.equal(plain.item_embedding(), backbone.item_table().detach())
        table = teacher_of(server, data, backbone, embeddings_model="vectors").item_embedding()
        assert table[:, 0].tolist() == [len(title) for title in data.titles]
    assert torch.equal(teacher_of(server, data, backbone, embeddings_model="vectors").item_embedding(), table)


def test_saved_and_loaded_it_answers_the_same(data, backbone, tmp_path):
    with serving() as server:
        teacher = teacher_of(server, data, backbone)
        before = outputs_of(teacher, tmp_path)
        teacher.save(tmp_path / "saved")
    loaded = EndpointTeacher.load(tmp_path / "saved", teacher.config, None, backbone, data)
    assert torch.equal(outputs_of(loaded, tmp_path, "loaded").ranking, before.ranking)
    other = config_of(server, endpoint_model="another")
    with pytest.raises(InputError, match="asked tiny, not another"):
        EndpointTeacher.load(tmp_path / "saved", other, None, backbone, data)
    with pytest.raises(InputError, match="no readable endpoint teacher"):
        EndpointTeacher.load(tmp_path / "nowhere", other, None, backbone, data)


def test_the_query_policy_picks(data, backbone, tmp_path):
    with serving() as server:
        teacher = teacher_of(server, data, backbone, query_policy="uncertainty", query_budget=7)
        assert len(outputs_of(teacher, tmp_path).sample) == 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"endpoint": ""}, "endpoint=: is empty"),
        ({"endpoint_model": ""}, "endpoint_model=: is empty"),
        ({"sequence_embeddings": True}, "a server gives no states"),
    ],
)
def test_what_cannot_be_asked_is_refused_first(changes, said):
    options = {"teacher": "endpoint", "endpoint": "http://localhost:1", "endpoint_model": "m"} | changes
    with pytest.raises(InputError, match=said):
        check_teacher(TeacherConfig(**options))


def test_several_processes_are_refused(data, backbone):
    with serving() as server, pytest.raises(InputError, match="start it in one process"):
        EndpointTeacher.build(config_of(server), None, backbone, data, Processes(count=2))


def test_the_key_is_kept_nowhere(data, backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        server.needs_key = True
        teacher = teacher_of(server, data, backbone)
        outputs = outputs_of(teacher, tmp_path)
        outputs.save(tmp_path / "written")
        teacher.save(tmp_path / "saved")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("endpoint" in str(path) for path in written)
    assert not any(KEY.encode() in path.read_bytes() for path in written)


def test_places_by_hand():
    logits = torch.tensor([[0.1, 0.4, -torch.inf, 0.3], [0.1, 0.4, 0.2, 0.3]])
    found = distances(logits, [[0, 3], None])
    torch.testing.assert_close(found[0].exp(), torch.tensor([1.0, 3.0, torch.inf, 2.0]))
    assert torch.isinf(found[1]).all()
    assert rank_of_target(-found[:1], torch.tensor([3]), None).tolist() == [2]


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, {"choices": 3}])
def test_an_answer_without_text_is_empty(answer):
    assert text_of(answer) == ""
