"""A generative teacher beside its backbone: candidates, answers and grounded rankings against plain loops."""

import numpy as np
import pytest
import torch
from small_data import write_csv
from tiny_generative import tiny_causal_llm

from recdistill.config import TeacherConfig
from recdistill.data.load import load_data
from recdistill.evaluation.answers import answer_metrics
from recdistill.steps import generative_scoring as module
from recdistill.steps import teacher_scoring
from recdistill.steps.generative_scoring import (
    JUDGED,
    GenerativeScorer,
    generative_scorer,
    grounded_ranks,
    judged_answers,
)
from recdistill.steps.teacher_generative import generative_shape
from recdistill.steps.teacher_scoring import make_outputs
from recdistill.students.build import StudentShape, build_student
from recdistill.teachers.generative.candidate_prompts import answer_prompts, training_prompts
from recdistill.teachers.generative.model import build_generative_model

OPTIONS = {"teacher": "generative", "candidates": 5, "teacher_history": 3, "top_n": 6}
LENGTH = 12


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(module, "TOKENS_A_BATCH", 700)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(**write_csv(tmp_path_factory.mktemp("data"), users=9))


@pytest.fixture(scope="module")
def parts(data):
    """A backbone, and a teacher moved off its initial values."""
    torch.manual_seed(0)
    shape = StudentShape("sasrec", hidden_size=8, blocks=1, heads=1, dropout=0.0, max_length=LENGTH, output="tied")
    backbone = build_student(shape, data.num_items).eval()
    table = backbone.item_table().detach()
    teacher = build_generative_model(tiny_causal_llm(), generative_shape(config_of()), data.titles, table).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape)
    return backbone, teacher


def config_of(**changes):
    return TeacherConfig(**(OPTIONS | changes))


def scorer_over(data, parts, **changes) -> GenerativeScorer:
    return generative_scorer(config_of(**changes), parts[1], parts[0], data)


def history_of(samples, sample):
    return samples.items[samples.start[sample] : samples.end[sample]].tolist()


def all_batches(scorer, samples):
    return list(scorer.batches(samples, scorer.stride, shuffle=False))


def test_states_and_histories_are_those_of_each_sample_alone(data, parts):
    scorer = scorer_over(data, parts)
    batches = all_batches(scorer, data.test)
    assert len(batches) > 1
    for batch in batches:
        states, histories = scorer.states(batch), scorer.histories(batch)
        for place, sample in enumerate(batch.sample.tolist()):
            history = history_of(data.test, sample)
            assert histories[place].tolist() == history[-3:]
            window = torch.tensor([history[-LENGTH:]])
            last = torch.tensor([window.shape[1] - 1])
            expected = scorer.backbone(window, last + 1, torch.tensor([0]), last)[0]
            torch.testing.assert_close(states[place], expected)


def test_judged_candidates_hold_the_target_and_nothing_seen_and_are_the_same_for_all(data, parts):
    scorer = scorer_over(data, parts)
    drawn = {}
    for batch in all_batches(scorer, data.test):
        candidates = scorer.drawn_candidates(data.test, batch, JUDGED)
        drawn |= dict(zip(batch.sample.tolist(), candidates.tolist(), strict=True))
    for sample, row in drawn.items():
        target = int(data.test.targets[sample])
        assert len(set(row)) == 5
        assert target in row
        assert not (set(row) - {target}) & set(history_of(data.test, sample))
    assert len({tuple(row) for row in drawn.values()}) == len(data.test)
    # Whatever the batches.
    whole = next(
        module.batches(data.test, length=LENGTH, batch_size=99, stride=1, padding_id=data.padding_id, seed=3, epoch=0)
    )
    again = scorer.drawn_candidates(data.test, whole, JUDGED)
    assert dict(zip(whole.sample.tolist(), again.tolist(), strict=True)) == drawn


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_retrieved_candidates_are_the_backbones_best(data, parts, exclude_seen):
    scorer = scorer_over(data, parts, exclude_seen=exclude_seen)
    for batch in all_batches(scorer, data.test):
        states = scorer.states(batch)
        rows = scorer.retrieved_candidates(data.test, batch, states)
        logits = scorer.backbone.logits(states)
        for place, sample in enumerate(batch.sample.tolist()):
            left_out = set(history_of(data.test, sample)) if exclude_seen else set()
            order = [item for item in logits[place].argsort(descending=True).tolist() if item not in left_out]
            assert sorted(rows[place].tolist()) == sorted(order[:5])
            assert np.array_equal(rows[place], scorer.retrieved_candidates(data.test, batch, states)[place])
    assert any(list(row) != order[:5] for row in rows)


@pytest.mark.parametrize("answer", ["free", "constrained", "likelihood"])
def test_answers_are_judged_one_by_one(data, parts, answer):
    scorer = scorer_over(data, parts, answer=answer)
    metrics, table = judged_answers(scorer, "test", data.test)
    named, right, of_backbone = [], [], []
    for batch in module.batches(
        data.test, length=LENGTH, batch_size=1, stride=1, padding_id=data.padding_id, seed=0, epoch=0, shuffle=False
    ):
        candidates = scorer.drawn_candidates(data.test, batch, JUDGED)
        texts, places = scorer.answers(batch, candidates, scorer.states(batch))
        sample = int(batch.sample)
        assert table["answer"][sample] == texts[0]
        expected = data.item_ids[candidates[0, places[0]]] if places[0] >= 0 else None
        assert table["named"][sample] == expected
        assert table["title"][sample] == data.titles[data.test.targets[sample]]
        named.append(int(places[0]))
        right.append(candidates[0].tolist().index(int(batch.target)))
        scores = scorer.backbone.logits(scorer.states(batch))[0, torch.from_numpy(candidates[0])]
        of_backbone.append(int(scores.argmax()))
    expected = {f"test/{name}": value for name, value in answer_metrics(named, right).items()}
    assert {name: metrics[name] for name in expected} == expected
    hits = np.mean([best == place for best, place in zip(of_backbone, right, strict=True)])
    assert metrics["test/backbone_hit_ratio_at_1"] == hits
    assert list(table["user"]) == list(data.user_ids)
    if answer == "free":
        # An untrained tiny llama writes no titles.
        assert metrics["test/valid_ratio"] < 1
    else:
        assert metrics["test/valid_ratio"] == 1
        assert set(table["answer"]) <= set(data.titles)


def test_prompts_have_a_wording_by_sample_not_by_batch(data, parts, monkeypatch):
    scorer = scorer_over(data, parts)
    seen = {}

    def noted(parts_, histories, candidates, wording):
        seen.setdefault("wording", []).extend(wording)
        return answer_prompts(parts_, histories, candidates, wording)

    monkeypatch.setattr(module, "answer_prompts", noted)
    judged_answers(scorer, "test", data.test)
    assert seen["wording"] == [sample % 3 for sample in range(len(data.test))]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_grounded_ranks_are_those_of_a_loop(data, parts, monkeypatch, exclude_seen):
    scorer = scorer_over(data, parts, exclude_seen=exclude_seen, popularity_adjustment=0.5)
    # A title that is written in part: its neighbours are near, and none is exactly it.
    written = {sample: f"Film of the {sample}" for sample in range(len(data.test))}

    def answers(self, batch, candidates, states):
        return [written[sample] for sample in batch.sample.tolist()], np.zeros(len(batch), dtype=np.int64)

    monkeypatch.setattr(GenerativeScorer, "answers", answers)
    titles = scorer.teacher.embed_texts(data.titles)
    count = torch.as_tensor(data.item_count).float()
    popularity = (count - count.min()) / (count.max() - count.min())
    validation, test, seconds = grounded_ranks(scorer)
    assert seconds > 0
    assert len(validation.ranks) == len(data.validation)
    for sample, target in enumerate(data.test.targets.tolist()):
        distance = (titles - scorer.teacher.embed_texts([written[sample]])).norm(dim=1)
        distance = (distance - distance.min()) / (distance.max() - distance.min()) * (1 + popularity) ** -0.5
        left_out = (set(history_of(data.test, sample)) if exclude_seen else set()) - {target}
        order = [item for item in distance.argsort().tolist() if item not in left_out]
        assert test.ranks[sample] == 1 + order.index(target)
        assert test.best[sample].tolist() == order[:10]


def test_outputs_are_rankings_with_distances_for_students(data, parts, tmp_path):
    config = config_of(answer="constrained", sequence_embeddings=True)
    scorer = scorer_over(data, parts, answer="constrained")
    outputs = make_outputs(scorer, config, "tiny", tmp_path)
    assert outputs.sample.tolist() == list(range(len(data.train)))
    assert (outputs.manifest.teacher, outputs.manifest.llm) == ("generative", "tiny")
    assert outputs.manifest.confidence == scorer.confidence
    assert "L2" in outputs.manifest.confidence
    assert outputs.top_n == 6
    assert bool((outputs.distance.diff(dim=1) >= 0).all())
    assert float(outputs.distance.min()) == 0.0
    for sample in range(len(data.train)):
        assert not set(outputs.ranking[sample].tolist()) & set(history_of(data.train, sample))
    # The title that was named is an item's: that item is the first, and its embedding the sample's.
    first = scorer.title_embedding[outputs.ranking[:, 0]]
    torch.testing.assert_close(outputs.sequence_embedding, first, atol=1e-4, rtol=1e-4)
    assert outputs.item_embedding.shape == (data.num_items, scorer.title_embedding.shape[1])


def test_a_budget_is_kept(data, parts, tmp_path, monkeypatch):
    scorer, read = scorer_over(data, parts, answer="likelihood"), []
    budget = 9000
    base = scorer.teacher.llm.get_base_model().model
    forward = base.forward
    scorer.title_embedding  # noqa: B018  # the catalogue's own is no sample's cost

    def counted(*args, **kwargs):
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        read.append(inputs.shape[0] * inputs.shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(base, "forward", counted)
    outputs = make_outputs(scorer, config_of(answer="likelihood", outputs_token_budget=budget), "tiny", tmp_path)
    assert 0 < len(outputs.sample) < len(data.train)
    assert 0.4 * budget < sum(read) <= budget


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_scoring_goes_on_and_ends_the_same(data, parts, tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(teacher_scoring, "SHARD_SECONDS", -1.0)
    config = config_of(answer="likelihood", outputs_token_budget=12000)
    scorer, calls = scorer_over(data, parts, answer="likelihood"), []
    expected = make_outputs(scorer, config, "tiny", tmp_path / "whole")
    grounded = GenerativeScorer.grounded

    def until(self, samples, batch):
        if len(calls) == killed_at:
            raise KilledError
        calls.append(batch)
        return grounded(self, samples, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GenerativeScorer, "grounded", until)
        with pytest.raises(KilledError):
            make_outputs(scorer, config, "tiny", tmp_path / "killed")
    monkeypatch.setattr(GenerativeScorer, "grounded", lambda *given: calls.append(given) or grounded(*given))
    found = make_outputs(scorer, config, "tiny", tmp_path / "killed")
    assert len(calls) == len(list((tmp_path / "whole").glob("shard-*")))
    for name in ("sample", "ranking", "distance", "item_embedding"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_a_sample_costs_about_what_is_said(data, parts):
    scorer = scorer_over(data, parts)
    lengths = []
    for batch in all_batches(scorer, data.train):
        candidates = scorer.drawn_candidates(data.train, batch, JUDGED)
        rows = (scorer.histories(batch), candidates, [sample % 3 for sample in batch.sample.tolist()])
        prompts = training_prompts(scorer.teacher.parts, *rows, batch.target.tolist())
        lengths += prompts.real.sum(dim=1).tolist()
    assert scorer.tokens_a_sample(packed=False) == pytest.approx(np.mean(lengths), rel=0.03)
