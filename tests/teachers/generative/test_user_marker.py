"""Prompts of a generative teacher that begin with the user: the backbone's state of what came before the titles."""

import torch
from small_teachers import LENGTH, history_of
from tiny_generative import (
    CANDIDATES,
    HISTORIES,
    TARGETS,
    TEMPLATE,
    fresh,
    generative_teacher,
    states,
    tiny_causal_llm,
    trained,
)

from recdistill.teachers.generative.answers import candidate_log_likelihoods, constrained_answers, free_answers
from recdistill.teachers.generative.candidate_prompts import USER, answer_prompts, training_prompts
from recdistill.teachers.generative.lesson import generative_lesson
from recdistill.teachers.generative.reading import trusted_caches
from recdistill.teachers.generative.teacher import GenerativeTeacher


def prompts_of(teacher, users):
    return answer_prompts(teacher.parts, HISTORIES, CANDIDATES, TEMPLATE, users)


def test_the_marker_stands_before_the_titles_and_holds_the_users_state():
    teacher, users = trained(encode_users=True), states().flip(0)
    prompts = prompts_of(teacher, users)
    assert ((prompts.item == USER).sum(dim=1) == 1).all()
    embedded, without = teacher.embedded(prompts), teacher.embedded(prompts_of(teacher, None))
    of_user = prompts.item == USER
    torch.testing.assert_close(embedded[of_user], teacher.user_projector(users))
    torch.testing.assert_close(without[of_user], teacher.user_projector(torch.zeros_like(users)))
    assert torch.equal(embedded[~of_user], without[~of_user])
    for row in range(len(prompts)):
        place = int(of_user[row].nonzero())
        assert (prompts.item[row, :place] < 0).all()
        head = teacher.parts.templates[TEMPLATE[row]][0]
        assert prompts.tokens[row, place - len(head) + 1 : place + 1].tolist() == head.tolist()
    # Text alone has the placeholder there.
    text = teacher.embedded(prompts, injected=False)
    words = teacher.llm.get_input_embeddings()
    assert torch.equal(text[of_user], words(torch.full((3,), teacher.parts.placeholder)))


def test_off_it_is_the_teacher_of_before():
    off, on = fresh(), fresh(encode_users=True)
    assert off.user_projector is None
    own = dict(on.named_parameters())
    assert all(torch.equal(parameter, own[name]) for name, parameter in off.named_parameters())
    assert not (prompts_of(off, None).item == USER).any()


def test_it_is_answered_of_the_users_state_in_every_way():
    teacher = trained(encode_users=True)
    assert trusted_caches(teacher) == (True, True)
    one, other = (prompts_of(teacher, users) for users in (states(), 3 * states().flip(1)))
    scores = candidate_log_likelihoods(teacher, one, states(), CANDIDATES)
    assert (scores - candidate_log_likelihoods(teacher, other, states(), CANDIDATES)).abs().max() > 1e-3
    for row in range(3):
        alone = one.rows(slice(row, row + 1))
        own = candidate_log_likelihoods(teacher, alone, states()[row : row + 1], CANDIDATES[row : row + 1])
        torch.testing.assert_close(own[0], scores[row], atol=1e-4, rtol=1e-4)
    assert len(free_answers(teacher, one, states())) == len(constrained_answers(teacher, one, states(), CANDIDATES))


def test_it_is_trained():
    teacher = trained(encode_users=True)
    prompts = training_prompts(teacher.parts, HISTORIES, CANDIDATES, TEMPLATE, TARGETS, states())
    teacher(prompts, states()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in teacher.user_projector.parameters())


def test_the_state_is_that_of_the_history_before_the_titles(data, backbone):
    teacher = generative_teacher(data, backbone, encode_users=True)
    assert generative_teacher(data, backbone).users_before(next(teacher.batches(data.test, shuffle=False))) is None
    earlier = 0
    for batch in teacher.batches(data.train, shuffle=False):
        users, histories = teacher.users_before(batch), teacher.histories(batch)
        for place, sample in enumerate(batch.sample.tolist()):
            history = history_of(data.train, sample)[-LENGTH:]
            before = history[: len(history) - len(histories[place])]
            expected = torch.zeros(users.shape[1])
            if before:
                earlier += 1
                last = torch.tensor([len(before) - 1])
                expected = teacher.backbone(torch.tensor([before]), last + 1, torch.tensor([0]), last)[0]
            torch.testing.assert_close(users[place], expected)
    assert earlier
    lesson = generative_lesson(teacher)
    assert torch.isfinite(lesson.step(next(lesson.batches()))["total"])


def test_saved_and_loaded_it_ranks_the_same(data, backbone, tmp_path):
    teacher = generative_teacher(data, backbone, encode_users=True, answer="likelihood")
    teacher.save(tmp_path / "teacher")
    loaded = GenerativeTeacher.load(tmp_path / "teacher", teacher.config, tiny_causal_llm(), backbone, data)
    assert torch.equal(teacher.ranks()[1].ranks, loaded.ranks()[1].ranks)
