"""Candidate prompts against the LLM's positions."""

import pytest
from tiny_generative import generative_config, generative_teacher, tiny_causal_llm

from recdistill.errors import InputError
from recdistill.teachers.generative.prompt_length import check_candidates, check_prompts
from recdistill.teachers.generative.teacher import GenerativeTeacher


def test_prompts_that_the_llm_cannot_read_are_refused(data, backbone, model):
    teacher = generative_teacher(data, backbone, model)
    check_prompts(teacher, None)
    check_prompts(teacher, 2048)
    with pytest.raises(InputError, match=r"candidates=5: makes prompts of up to \d+ tokens, and llm=.* reads 100;"):
        check_prompts(teacher, 100)


def test_a_teacher_is_refused_before_it_is_trained(data, backbone):
    llm = tiny_causal_llm()
    llm.model.config.max_position_embeddings = 100
    with pytest.raises(InputError, match="candidates=5: makes prompts of up to"):
        GenerativeTeacher.build(generative_config(), llm, backbone, data)


def test_candidates_that_never_fit_are_refused_by_their_number():
    config = generative_config(candidates=20)
    check_candidates(config, None)
    check_candidates(config, 42)
    with pytest.raises(InputError, match="candidates=20: makes prompts of 42 tokens or more, and llm=tiny reads 41"):
        check_candidates(config, 41)
