"""What a ranking teacher is trained on: masked next items, parts of batches, tokens of a batch."""

import pytest
import torch
import torch.nn.functional as F
from small_teachers import plain_teacher, seen_by, small, small_backbone, tiny_teacher

from recdistill.data.batches import Batch
from recdistill.teachers.ranking import teacher as module
from recdistill.teachers.ranking.lesson import training_batches


@pytest.fixture(scope="module", params=["leave-one-out", "chronological"])
def data(request, tmp_path_factory):
    return small(tmp_path_factory.mktemp("data"), split=request.param)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_what_training_scores_has_no_seen_items_but_all_targets(data, exclude_seen, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_A_BATCH", 100)
    teacher = plain_teacher(data, small_backbone(data), exclude_seen=exclude_seen)
    repeated = 0
    for batch in teacher.batches(data.train, shuffle=True):
        scores = torch.randn(len(batch), data.num_items).requires_grad_()
        found = teacher.exclude(scores.clone(), data.train, batch.sample, batch.target)
        for row, sample in enumerate(batch.sample.tolist()):
            out = seen_by(data.train, sample, exclude_seen)
            repeated += int(batch.target[row]) in out
            out -= {int(batch.target[row])}
            assert set(found[row].isinf().nonzero().squeeze(1).tolist()) == out
        loss = torch.nn.functional.cross_entropy(found, batch.target)
        assert loss.isfinite()
        (slope,) = torch.autograd.grad(loss, scores)
        assert (slope[found.isinf()] == 0).all()
    assert repeated or not exclude_seen


@pytest.mark.parametrize("mask_seen", [True, False])
def test_the_loss_leaves_the_seen_out_where_it_is_masked(data, mask_seen):
    teacher = tiny_teacher(data, small_backbone(data), mask_seen=mask_seen)
    lesson = teacher.lesson()
    batch = next(lesson.batches())
    losses = lesson.step(batch)
    with torch.no_grad():
        logits, _ = teacher.score(batch)
    for row, sample in enumerate(batch.sample.tolist()):
        logits[row, list((seen_by(data.train, sample, mask_seen)) - {int(batch.target[row])})] = -torch.inf
    torch.testing.assert_close(losses["total"].detach(), F.cross_entropy(logits, batch.target))
    assert {"gate_entropy", "expert_usage_0", "expert_usage_3"} <= set(losses)
    tokens = teacher.model.prompts(batch.history, batch.row, batch.column).num_tokens
    assert lesson.size(batch) == {"samples": len(batch), "tokens": tokens}


def test_a_part_of_a_batch_has_its_part_of_the_gradient(data):
    teacher = tiny_teacher(data, small_backbone(data), tokens_per_batch=600)
    model = teacher.model.train()
    batch = next(training_batches(teacher))
    assert len(batch.history) > 2
    assert teacher.lesson().divide is Batch.part

    def gradient(parts):
        model.zero_grad()
        for part, share in parts:
            logits, _ = teacher.score(part)
            (share * F.cross_entropy(logits, part.target)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    whole = gradient([(batch, 1.0)])
    for count in (2, 3, 50):
        parts = gradient([batch.part(index, count) for index in range(count)])
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("packing", [True, False])
def test_training_costs_about_the_tokens_of_its_budget(tmp_path, packing):
    data = small(tmp_path, users=60)
    teacher = plain_teacher(data, small_backbone(data), packing=packing)
    steps, tokens = 50, 0
    for batch, _ in zip(training_batches(teacher), range(steps), strict=False):
        tokens += teacher.model.prompts(batch.history, batch.row, batch.column).num_tokens
    assert tokens == pytest.approx(steps * teacher.config.tokens_per_batch, rel=0.15)
