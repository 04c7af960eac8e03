import dataclasses

import pytest
import torch

from recdistill.distillation.teacher_answers import TeacherAnswers, TeacherBatch
from recdistill.errors import InputError

SAMPLES, COUNT, STATE = 7, 3, 4


def make_answers(covered, with_states=True):
    generator = torch.Generator().manual_seed(0)
    sample = torch.tensor(covered, dtype=torch.int64)
    mask = torch.zeros(SAMPLES, dtype=torch.bool)
    mask[sample] = True
    return TeacherAnswers(
        covered=mask,
        ranking=torch.randint(20, (SAMPLES, COUNT), generator=generator),
        distance=torch.rand(SAMPLES, COUNT, generator=generator),
        item_embedding=torch.zeros(20, 2),
        sample=sample,
        sequence_embedding=torch.randn(len(sample), STATE, generator=generator) if with_states else None,
        llm="tiny",
        covered_share=len(sample) / SAMPLES,
    )


def test_a_batch_holds_the_rows_of_its_samples():
    answers = make_answers([0, 2, 5, 6])
    sample, distilled = torch.tensor([6, 1, 0, 5]), torch.tensor([True, False, False, True])
    batch = answers.batch(sample, distilled, "cpu")
    assert torch.equal(batch.candidates, answers.ranking[sample])
    assert torch.equal(batch.distance, answers.distance[sample])
    assert torch.equal(batch.distilled, distilled)
    # Row 1 is not covered; the states are those of the places 3, 0 and 2 of the covered samples.
    assert torch.equal(batch.sequence_embedding[[0, 2, 3]], answers.sequence_embedding[[3, 0, 2]])
    assert batch.sequence_embedding.shape == (4, STATE)


def test_a_teacher_may_keep_no_states_or_cover_nothing():
    assert make_answers([1], with_states=False).state_size is None
    assert make_answers([1], with_states=False).batch(torch.tensor([1]), torch.tensor([True]), "cpu") is not None
    nothing = make_answers([])
    assert nothing.state_size == STATE
    batch = nothing.batch(torch.tensor([3, 1]), torch.tensor([False, False]), "cpu")
    assert batch.sequence_embedding.shape == (2, STATE)


def test_filled_rows_are_the_target_at_distance_0():
    batch = TeacherBatch(
        torch.tensor([[4, 5], [-1, 99]]), torch.tensor([[0.1, 0.2], [torch.nan, 3.0]]), torch.tensor([True, False])
    )
    filled = batch.filled(torch.tensor([7, 8]))
    assert filled.candidates.tolist() == [[4, 5], [8, 8]]
    torch.testing.assert_close(filled.distance, torch.tensor([[0.1, 0.2], [0.0, 0.0]]))
    assert torch.equal(filled.distilled, batch.distilled)


def test_shapes_that_do_not_fit_are_refused():
    answers = make_answers([0, 2])
    for changed in (
        {"distance": answers.distance[:, 1:]},
        {"covered": answers.covered[1:]},
        {"sequence_embedding": answers.sequence_embedding[1:]},
        {"ranking": answers.ranking[:, 0]},
    ):
        with pytest.raises(InputError, match="do not fit"):
            dataclasses.replace(answers, **changed)
    batch, target = answers.batch(torch.arange(3), torch.ones(3, dtype=torch.bool), "cpu"), torch.zeros(3).long()
    with pytest.raises(InputError, match="do not fit 2 targets"):
        batch.filled(target[:2])
    with pytest.raises(InputError, match="do not fit"):
        dataclasses.replace(batch, distance=batch.distance[:, 1:]).filled(target)
    with pytest.raises(InputError, match="one bool a sample"):
        dataclasses.replace(batch, distilled=torch.ones(3)).filled(target)


@pytest.mark.parametrize("what", ["none", "rankings", "vectors", "both"])
def test_shuffled_answers_are_the_same_rows_elsewhere(what):
    answers = make_answers([0, 2, 3, 5, 6])
    answers = dataclasses.replace(answers, item_embedding=torch.arange(40.0).view(20, 2))
    dealt = answers.shuffled(what, seed=3)
    covered = answers.sample
    assert torch.equal(dealt.sample, covered)
    assert torch.equal(dealt.covered, answers.covered)
    # Each row keeps its distances and its state.
    whole = [torch.cat([one.ranking[covered], one.distance[covered], one.sequence_embedding], 1).tolist()
             for one in (answers, dealt)]  # fmt: skip
    assert sorted(whole[0]) == sorted(whole[1])
    assert (whole[0] != whole[1]) == (what in ("rankings", "both"))
    assert sorted(answers.item_embedding.tolist()) == sorted(dealt.item_embedding.tolist())
    assert torch.equal(answers.item_embedding, dealt.item_embedding) == (what in ("none", "rankings"))
    again, other = (answers.shuffled(what, seed) for seed in (3, 4))
    assert torch.equal(again.ranking, dealt.ranking)
    if what != "none":
        assert not (
            torch.equal(other.ranking, dealt.ranking) and torch.equal(other.item_embedding, dealt.item_embedding)
        )


def test_an_unknown_control_is_refused():
    with pytest.raises(InputError, match="teacher_shuffle=rows"):
        make_answers([1]).shuffled("rows", 1)


def test_the_distilled_rows_are_known_of_a_batch_and_of_its_parts():
    distilled = torch.tensor([True, False, True, True, False])
    told = TeacherBatch(torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2), distilled)
    known = told.to("cpu")
    assert known.row.tolist() == [0, 2, 3]
    for part in (slice(0, 2), slice(1, 4), slice(4, 5), slice(0, 5)):
        expected = distilled[part].nonzero().squeeze(1).tolist()
        assert known.rows(part).distilled_rows().tolist() == expected
        assert told.rows(part).known_rows().tolist() == expected
