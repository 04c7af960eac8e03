"""Answers with a cache and without: the same, and a cache that gives others is not trusted."""

import pytest
import torch
from tiny_families import tiny_config
from tiny_generative import CANDIDATES, SHAPE, TITLES, item_table, states, trained, waiting
from tiny_llm import tiny_tokenizer
from transformers import AutoModelForCausalLM

from recdistill.teachers.generative import reading as module
from recdistill.teachers.generative.answers import (
    candidate_log_likelihoods,
    constrained_answers,
    free_answers,
    padded_answers,
)
from recdistill.teachers.generative.model import build_generative_model
from recdistill.teachers.generative.reading import (
    TrustedCaches,
    answer_logits_anew,
    answer_logits_with_cache,
    compared_caches,
    generated_anew,
    generated_with_cache,
    moved_left,
    trusted_caches,
)
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.llm_source import load_llm


@pytest.fixture(scope="module", params=[{}, {"gate_per_layer": True}])
def teacher(request):
    return trained(**request.param)


def test_a_llamas_caches_are_trusted_in_either_precision(teacher):
    assert trusted_caches(teacher) == (True, True)
    assert trusted_caches(trained(torch.bfloat16)) == (True, True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_those_of_a_real_llm_are_trusted(dtype):
    llm = load_llm("smollm2-135m", torch.device("cpu"), causal_lm=True)
    torch.nn.Module.to(llm.model, dtype)
    assert trusted_caches(build_generative_model(llm, SHAPE, TITLES, item_table()).eval()) == (True, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_that_takes_padding_for_text_is_not_trusted_in_either_precision(dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config("rwkv")).to(dtype).eval().requires_grad_(False)
    llm = BaseLLM(model, tiny_tokenizer(), "rwkv", "")
    assert trusted_caches(build_generative_model(llm, SHAPE, TITLES, item_table()).eval()) == (False, False)


def test_answers_without_cache_are_those_with_it(teacher, monkeypatch):
    expected = (
        free_answers(teacher, waiting(teacher), states()),
        constrained_answers(teacher, waiting(teacher), states(), CANDIDATES).tolist(),
    )
    scores = candidate_log_likelihoods(teacher, waiting(teacher), states(), CANDIDATES)
    monkeypatch.setitem(module._trusted, teacher, TrustedCaches(False, False))
    monkeypatch.setattr(module, "DynamicCache", None)
    monkeypatch.setattr(teacher.llm, "generate", None)
    found = (
        free_answers(teacher, waiting(teacher), states()),
        constrained_answers(teacher, waiting(teacher), states(), CANDIDATES).tolist(),
    )
    assert found == expected
    anew = candidate_log_likelihoods(teacher, waiting(teacher), states(), CANDIDATES)
    torch.testing.assert_close(anew, scores, atol=1e-4, rtol=1e-4)


def test_an_answer_ends_at_its_end_token_in_both_ways(teacher):
    free = generated_with_cache(teacher, waiting(teacher), states(), 6, [])
    end = int(free[0, 2])
    with_cache = generated_with_cache(teacher, waiting(teacher), states(), 6, [end])
    anew = generated_anew(teacher, waiting(teacher), states(), 6, [end])
    assert torch.equal(anew, with_cache)
    assert (anew[0, 3:] == teacher.parts.titles.padding).all()


@torch.no_grad()
def test_logits_are_the_same_in_both_ways(teacher):
    answers, _ = padded_answers(teacher, CANDIDATES)
    for found, expected in zip(
        *(way(teacher, waiting(teacher), states(), answers) for way in (answer_logits_anew, answer_logits_with_cache)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_prompts_are_moved_to_the_left(teacher):
    prompts = waiting(teacher)
    embedded, length = moved_left(teacher, prompts)
    whole = teacher.embedded(prompts)
    assert length.tolist() == prompts.real.sum(dim=1).tolist()
    for row in range(3):
        assert torch.equal(embedded[row, : length[row]], whole[row, prompts.real[row]])


def test_a_cache_that_forgets_is_not_trusted(monkeypatch):
    teacher = trained()
    base = teacher.llm.get_base_model()
    forward = base.forward

    def forgetful(*args, cache=None, **named):
        if cache is not None and cache.get_seq_length():
            for layer in cache.layers:
                layer.values = layer.values * 0.9
        return forward(*args, cache=cache, **named)

    monkeypatch.setattr(base, "forward", forgetful)
    assert compared_caches(teacher) == (False, False)


def test_a_family_without_such_a_cache_is_not_trusted(monkeypatch):
    teacher = trained()

    def refused(*_, **__):
        raise TypeError("no such argument")

    monkeypatch.setattr(module, "DynamicCache", refused)
    monkeypatch.setattr(teacher.llm, "generate", refused)
    assert compared_caches(teacher) == (False, False)
