"""A generative teacher beside its backbone: candidates, outputs and their cost against plain loops."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_teachers import LENGTH, KilledError, history_of
from tiny_generative import generative_config, generative_teacher, tiny_causal_llm

from recdistill.errors import InputError
from recdistill.teachers import shards
from recdistill.teachers.generative import teacher as module
from recdistill.teachers.generative.candidate_prompts import training_prompts
from recdistill.teachers.generative.judging import JUDGED
from recdistill.teachers.generative.teacher import GenerativeTeacher
from recdistill.teachers.protocol import text_tokens_of
from recdistill.teachers.scoring import make_outputs
from recdistill.training.distributed import Processes

pytestmark = pytest.mark.usefixtures("_small_batches")


@pytest.fixture
def over(data, backbone, model):
    """A teacher of some options over the shared model."""
    return lambda **changes: generative_teacher(data, backbone, model, **changes)


def all_batches(teacher, samples):
    return list(teacher.batches(samples, shuffle=False))


def test_states_and_histories_are_those_of_each_sample_alone(data, over):
    teacher = over()
    batches = all_batches(teacher, data.test)
    assert len(batches) > 1
    for batch in batches:
        states, histories = teacher.states(batch), teacher.histories(batch)
        for place, sample in enumerate(batch.sample.tolist()):
            history = history_of(data.test, sample)
            assert histories[place].tolist() == history[-3:]
            window = torch.tensor([history[-LENGTH:]])
            last = torch.tensor([window.shape[1] - 1])
            expected = teacher.backbone(window, last + 1, torch.tensor([0]), last)[0]
            torch.testing.assert_close(states[place], expected)


def test_judged_candidates_hold_the_target_and_nothing_seen_and_are_the_same_for_all(data, over):
    teacher = over()
    drawn = {}
    for batch in all_batches(teacher, data.test):
        candidates = teacher.drawn_candidates(data.test, batch, JUDGED)
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
    again = teacher.drawn_candidates(data.test, whole, JUDGED)
    assert dict(zip(whole.sample.tolist(), again.tolist(), strict=True)) == drawn


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_retrieved_candidates_are_the_backbones_best(data, over, exclude_seen):
    teacher = over(exclude_seen=exclude_seen)
    for batch in all_batches(teacher, data.test):
        states = teacher.states(batch)
        rows = teacher.retrieved_candidates(data.test, batch, states)
        logits = teacher.backbone.logits(states)
        for place, sample in enumerate(batch.sample.tolist()):
            left_out = set(history_of(data.test, sample)) if exclude_seen else set()
            order = [item for item in logits[place].argsort(descending=True).tolist() if item not in left_out]
            assert sorted(rows[place].tolist()) == sorted(order[:5])
            assert np.array_equal(rows[place], teacher.retrieved_candidates(data.test, batch, states)[place])
    assert any(list(row) != order[:5] for row in rows)


@pytest.mark.slow
def test_outputs_are_rankings_with_distances_for_students(data, over, tmp_path):
    teacher = over(answer="constrained", sequence_embeddings=True)
    outputs = make_outputs(teacher, teacher.config, tmp_path)
    taught = np.arange(len(data.train)) if data.trainable(True) is None else data.trainable(True)
    assert outputs.sample.tolist() == taught.tolist()
    assert (outputs.manifest.teacher, outputs.manifest.llm) == ("generative", "tiny")
    assert outputs.manifest.confidence == teacher.confidence
    assert "L2" in outputs.manifest.confidence
    assert outputs.top_n == 6
    assert bool((outputs.distance.diff(dim=1) >= 0).all())
    assert float(outputs.distance.min()) == 0.0
    for sample, ranking in zip(outputs.sample.tolist(), outputs.ranking.tolist(), strict=True):
        assert not set(ranking) & set(history_of(data.train, sample))
    # The title that was named is an item's: that item is the first, and its embedding the sample's.
    first = teacher.title_embedding[outputs.ranking[:, 0]]
    torch.testing.assert_close(outputs.sequence_embedding, first, atol=1e-4, rtol=1e-4)
    assert outputs.item_embedding.shape == (data.num_items, teacher.title_embedding.shape[1])


def test_the_tokens_of_titles_that_it_tells_are_read(data, over, monkeypatch):
    teacher, read = over(answer="likelihood"), []
    whole = teacher.model._text_tokens
    monkeypatch.setattr(teacher.model, "_text_tokens", lambda text: read.append(len(whole(text))) or whole(text))
    teacher.__dict__.pop("title_embedding", None)
    teacher.title_embedding  # noqa: B018
    expected = sum(read)
    assert text_tokens_of(teacher) == expected >= data.num_items


def test_a_budget_is_kept(data, over, tmp_path, monkeypatch):
    teacher, read = over(answer="likelihood"), []
    budget = 9000
    base = teacher.model.llm.get_base_model().model
    forward = base.forward
    teacher.title_embedding  # noqa: B018  # the catalogue's own is no sample's cost

    def counted(*args, **kwargs):
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        read.append(inputs.shape[0] * inputs.shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(base, "forward", counted)
    outputs = make_outputs(teacher, generative_config(answer="likelihood", outputs_token_budget=budget), tmp_path)
    assert 0 < len(outputs.sample) < len(data.train)
    assert 0.4 * budget < sum(read) <= budget


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_scoring_goes_on_and_ends_the_same(over, tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(shards, "SHARD_SECONDS", -1.0)
    teacher, calls = over(answer="likelihood", outputs_token_budget=12000), []
    expected = make_outputs(teacher, teacher.config, tmp_path / "whole")
    grounded = GenerativeTeacher.grounded

    def until(self, samples, batch):
        if len(calls) == killed_at:
            raise KilledError
        calls.append(batch)
        return grounded(self, samples, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GenerativeTeacher, "grounded", until)
        with pytest.raises(KilledError):
            make_outputs(teacher, teacher.config, tmp_path / "killed")
    monkeypatch.setattr(GenerativeTeacher, "grounded", lambda *given: calls.append(given) or grounded(*given))
    found = make_outputs(teacher, teacher.config, tmp_path / "killed")
    assert len(calls) == len(list((tmp_path / "whole").glob("shard-*")))
    for name in ("sample", "ranking", "distance", "item_embedding"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_a_sample_costs_about_what_is_said(data, over):
    teacher = over()
    lengths = []
    for batch in all_batches(teacher, data.train):
        candidates = teacher.drawn_candidates(data.train, batch, JUDGED)
        rows = (teacher.histories(batch), candidates, [sample % 3 for sample in batch.sample.tolist()])
        prompts = training_prompts(teacher.model.parts, *rows, batch.target.tolist())
        lengths += prompts.real.sum(dim=1).tolist()
    assert teacher.tokens_a_sample() == pytest.approx(np.mean(lengths), rel=0.03)


def test_processes_that_share_a_base_are_refused(data, backbone):
    llm = SimpleNamespace(most_tokens=None)
    with pytest.raises(InputError, match="--use_fsdp: a generative teacher"):
        GenerativeTeacher.build(generative_config(), llm, backbone, data, Processes(0, 2, sharded=True))


def test_gradient_checkpointing_gives_the_plain_gradients(data, backbone):
    gradients, passes = [], []
    for checkpointing in (True, False):
        teacher = generative_teacher(data, backbone, gradient_checkpointing=checkpointing, lora_dropout=0.1)
        layer = teacher.model.llm.get_base_model().model.layers[0].mlp.up_proj.lora_A["default"]
        layer.register_forward_hook(lambda *_, checkpointing=checkpointing: passes.append(checkpointing))
        lesson = teacher.lesson()
        lesson.module.train()
        torch.manual_seed(3)
        lesson.step(next(lesson.batches()))["total"].backward()
        parameters = [p for p in teacher.model.parameters() if p.grad is not None]
        gradients.append(torch.cat([p.grad.flatten() for p in parameters]))
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)
    assert passes == [True, True, False]


@pytest.mark.slow
def test_saved_and_loaded_it_answers_the_same(data, backbone, tmp_path):
    teacher = generative_teacher(data, backbone, gate="topk", gate_kept=2)
    teacher.save(tmp_path)
    loaded = GenerativeTeacher.load(tmp_path, generative_config(gate="topk"), tiny_causal_llm(), backbone, data)
    assert dict(loaded.model.shape.gate_options) == {"gate_kept": 2}
    own, again = teacher.answers(), loaded.answers()
    assert own.tables["test"].equals(again.tables["test"])
    assert {k: v for k, v in own.metrics.items() if "ms_" not in k} == {
        k: v for k, v in again.metrics.items() if "ms_" not in k
    }
