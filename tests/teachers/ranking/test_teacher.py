"""A ranking teacher beside its backbone: states and windows, the options that reach its model, a saved one."""

import json

import pytest
import torch
from small_teachers import CONTEXT, config_of, history_of, plain_teacher, small, small_backbone, tiny_teacher
from tiny_llm import tiny_base_llm

from recdistill.data.batches import batches
from recdistill.teachers.ranking import teacher as module
from recdistill.teachers.ranking.teacher import RankingTeacher
from recdistill.training.distributed import Processes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"))


def test_states_are_those_of_the_backbone_after_each_item(data):
    backbone = small_backbone(data)
    teacher = plain_teacher(data, backbone)
    batch = next(
        batches(data.train, length=teacher.window, batch_size=40, stride=7, padding_id=data.padding_id, seed=0, epoch=0)
    )
    states = teacher.states(batch)
    own = backbone(batch.history, batch.length, batch.row, batch.column)
    torch.testing.assert_close(states[batch.row, batch.column], own)


@pytest.mark.parametrize("split", ["leave-one-out", "chronological"])
def test_a_window_never_reaches_a_held_out_item(tmp_path, split, monkeypatch):
    """No training prompt holds a title that comes at or after its last sample's target."""
    monkeypatch.setattr(module, "TOKENS_A_BATCH", 100)
    data = small(tmp_path, split=split)
    teacher = plain_teacher(data, small_backbone(data))
    for batch in teacher.batches(data.train, shuffle=True):
        for sample, row, column in zip(batch.sample.tolist(), batch.row.tolist(), batch.column.tolist(), strict=True):
            read = batch.history[row, : column + 1].tolist()
            assert read == history_of(data.train, sample)[-len(read) :]
            assert len(read) >= min(CONTEXT, len(history_of(data.train, sample)))
        last = {int(row): int(batch.column[batch.row == row].max()) for row in batch.row}
        assert all(int(batch.length[row]) == column + 1 for row, column in last.items())


@pytest.mark.parametrize("packing", [True, False])
def test_a_sample_costs_about_what_is_said(data, packing):
    teacher = plain_teacher(data, small_backbone(data), packing=packing)
    costs = [teacher.num_tokens(data.train, batch) for batch in teacher.batches(data.train, shuffle=False)]
    found = sum(costs) / len(data.train)
    # Short histories fill no window: they cost less where prompts are single, and share less where they are packed.
    assert teacher.tokens_a_sample() == pytest.approx(found, rel=0.35)
    assert teacher.stride == (8 - CONTEXT + 1 if packing else 1)


def test_the_options_reach_the_model(data):
    backbone = small_backbone(data)
    options = {
        "lora_rank": 4, "lora_alpha": 5.0, "lora_dropout": 0.1, "experts": 2, "gate": "topk", "gate_kept": 2,
        "gate_per_layer": True, "backbone_residual": False, "packing": False, "plain_titles": False,
    }  # fmt: skip
    teacher = tiny_teacher(data, backbone, **options)
    shape = teacher.model.shape
    assert (shape.rank, shape.alpha, shape.dropout, shape.experts) == (4, 5.0, 0.1, 2)
    assert (shape.gate, dict(shape.gate_options), shape.gate_per_layer) == ("topk", {"gate_kept": 2}, True)
    assert (shape.residual, shape.packing, shape.context, shape.plain_titles) == (False, False, CONTEXT, False)
    assert all(gate.kept == 2 for gate in teacher.model.gate.gates)
    assert not teacher.model.training
    sharded = RankingTeacher.build(config_of(), tiny_base_llm(), backbone, data, Processes(0, 2, sharded=True))
    assert sharded.model.in_one_pass
    assert not teacher.model.in_one_pass


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradient_checkpointing_computes_layers_again(data, checkpointing):
    teacher = tiny_teacher(data, small_backbone(data), gradient_checkpointing=checkpointing)
    lesson, passes = teacher.lesson(), []
    layer = teacher.model.llm.get_base_model().layers[1].mlp.down_proj.lora_A["default"]
    layer.register_forward_hook(lambda *_: passes.append(1))
    batch = next(lesson.batches())
    lesson.module.train()
    loss = lesson.step(batch)["total"]
    forward = len(passes)
    assert forward >= 1
    loss.backward()
    assert len(passes) == (2 * forward if checkpointing else forward)


def test_checkpointed_and_plain_gradients_of_the_lesson_are_equal(data):
    backbone, gradients = small_backbone(data), []
    for checkpointing in (True, False):
        teacher = tiny_teacher(data, backbone, gradient_checkpointing=checkpointing, lora_dropout=0.1)
        lesson = teacher.lesson()
        lesson.module.train()
        torch.manual_seed(3)
        lesson.step(next(lesson.batches()))["total"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in teacher.model.parameters() if p.requires_grad]))
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


def test_the_gate_is_saved_with_its_options(data, tmp_path):
    backbone = small_backbone(data)
    teacher = tiny_teacher(data, backbone, gate="topk", gate_kept=3)
    teacher.save(tmp_path)
    assert json.loads((tmp_path / "teacher.json").read_text())["shape"]["gate_options"] == {"gate_kept": 3}
    # What was saved counts, not the options of whoever loads it.
    loaded = RankingTeacher.load(tmp_path, config_of(gate="topk"), tiny_base_llm(), backbone, data)
    state = torch.randn(5, 8)
    assert torch.equal(loaded.gate_weights(state), teacher.gate_weights(state))
    assert ((loaded.gate_weights(state) > 0).sum(dim=1) == 3).all()


def test_a_fresh_one_ranks_as_its_backbone(data):
    backbone = small_backbone(data)
    torch.manual_seed(0)
    fresh = RankingTeacher.build(config_of(), tiny_base_llm(), backbone, data)
    batch = next(fresh.batches(data.test, shuffle=False))
    with torch.no_grad():
        logits, _ = fresh.score(batch)
        expected = backbone.logits(backbone(batch.history, batch.length, batch.row, batch.column))
    torch.testing.assert_close(logits, expected)
