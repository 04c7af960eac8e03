"""What is tried of a family of LLMs: a ranking and a generative teacher over a tiny one, from options to answers."""

from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from small_teachers import small_backbone
from tiny_families import tiny_config
from tiny_llm import tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM

from recdistill.config import TeacherConfig
from recdistill.data.frames import data_from_frames
from recdistill.data.sequences import SequenceData
from recdistill.registry import TEACHERS
from recdistill.teachers.checks import check_teacher
from recdistill.teachers.generative.answers import (
    candidate_log_likelihoods,
    constrained_answers,
    free_answers,
    most_free_tokens,
)
from recdistill.teachers.generative.candidate_prompts import answer_prompts
from recdistill.teachers.generative.model import GenerativeModel
from recdistill.teachers.ilora.base_llm import load_base_llm

STEPS = 3
OPTIONS = {"teacher_history": 2, "token_budget": 1000, "tokens_per_batch": 300, "lora_rank": 4, "experts": 2}
OF_KIND = {"ranking": {"teacher_window": 6}, "generative": {"candidates": 4, "curriculum": False}}


def family_data() -> SequenceData:
    """Four users and twelve items with short titles: slow LLMs read them, token by token."""
    drawn = np.random.default_rng(0)
    log = [(f"u{user}", f"i{item}", time) for user in range(4) for time, item in enumerate(drawn.permutation(12)[:7])]
    return data_from_frames(
        pd.DataFrame(log, columns=["user", "item", "timestamp"]),
        pd.DataFrame({"item": [f"i{item}" for item in range(12)], "title": [f"F {item}" for item in range(12)]}),
    )


def write_family(family: str, folder: Path) -> Path:
    """A tiny random model of a family and a tokenizer, as a local path for ``llm=``."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(tiny_config(family))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # A model at its random start is sure of nothing: whatever it reads, its answers would be alike.
                if parameter.ndim > 1 and "norm" not in name:
                    parameter *= 3
    model.save_pretrained(folder)
    tiny_tokenizer(begin=True).save_pretrained(folder)
    return folder


def family_config(folder: Path, kind: str) -> TeacherConfig:
    """Small options of a teacher over it. Raises InputError, before any work, where it cannot be one."""
    config = TeacherConfig(llm=str(folder), teacher=kind, **OPTIONS, **OF_KIND[kind])
    check_teacher(config)
    return config


def try_family(config: TeacherConfig, data: SequenceData, work: Path) -> None:
    """Train a teacher for a few steps, save it and load it: it ranks, and answers, as before."""
    backbone = small_backbone(data)
    kind = TEACHERS.get(config.teacher)

    def llm():
        options = {"causal_lm": kind.needs_language_model_head, "dtype": torch.float32}
        return load_base_llm(config.llm, gguf=None, cache=work, **options)

    torch.manual_seed(0)
    teacher = kind.build(config, llm(), backbone, data)
    train_a_little(teacher)
    ranked = teacher.ranks()
    teacher.save(work / "teacher")
    loaded = kind.load(work / "teacher", config, llm(), backbone, data)
    for before, after in zip(ranked[:2], loaded.ranks()[:2], strict=True):
        assert torch.equal(before.ranks, after.ranks)
        assert torch.equal(before.best, after.best)
    if config.teacher == "generative":
        check_answers(loaded.model)
    elif loaded.model.longest_in_row:
        check_one_row(loaded)


def check_one_row(teacher) -> None:
    """States of prompts in one row are those of padded rows."""
    batch = next(iter(teacher.batches(teacher.data.train, shuffle=False)))
    with torch.no_grad():
        _, in_a_row = teacher.score(batch)
        teacher.model.longest_in_row = 0
        _, padded = teacher.score(batch)
    torch.testing.assert_close(in_a_row, padded, rtol=1e-3, atol=1e-3)


def train_a_little(teacher) -> None:
    """Some steps of the lesson; each trained part has a gradient, and the loss is finite."""
    lesson = teacher.lesson()
    lesson.module.train()
    optimizer = torch.optim.Adam(lesson.groups)
    reached = set()
    for batch in islice(lesson.batches(), STEPS):
        loss = lesson.step(batch)["total"]
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        named = lesson.module.named_parameters()
        reached |= {name for name, one in named if one.grad is not None and one.grad.abs().sum() > 0}
        optimizer.step()
    for part in ("lora_A", "lora_B", "gate.", "projector."):
        assert any(part in name for name in reached), part
    lesson.module.eval()


def check_answers(model: GenerativeModel) -> None:
    """Answers in all three ways are those of passes over one prompt alone, without padding and without cache."""
    histories = [np.array([2, 0, 3]), np.array([1])]
    candidates = np.array([[4, 1, 5], [0, 2, 6]])
    states = torch.randn(2, model.item_table.shape[1], generator=torch.Generator().manual_seed(5))
    template = [0, 1]
    both = answer_prompts(model.parts, histories, candidates, template)
    free, constrained = free_answers(model, both, states), constrained_answers(model, both, states, candidates)
    scores = candidate_log_likelihoods(model, both, states, candidates)
    closing, ends = model.parts.closing, {0}
    for row in range(2):
        alone = answer_prompts(
            model.parts, histories[row : row + 1], candidates[row : row + 1], template[row : row + 1]
        )
        own = states[row : row + 1]
        written: list[int] = []
        while len(written) < most_free_tokens(model) and not {closing, *ends} & set(written):
            written.append(int(logits_of(model, alone, own, written)[-1].argmax()))
        text = model.tokenizer.decode(written, skip_special_tokens=True)
        assert free[row] == text.strip().partition("\n")[0].strip()
        answers = [model.parts.answer(item).tolist() for item in candidates[row]]
        named: list[int] = []
        while named not in answers:
            open_to = sorted({one[len(named)] for one in answers if one[: len(named)] == named})
            logits = logits_of(model, alone, own, named)[-1]
            named.append(max(open_to, key=lambda token: float(logits[token])))
        assert constrained[row] == answers.index(named)
        for place, answer in enumerate(answers):
            logits = logits_of(model, alone, own, answer)[-len(answer) - 1 : -1]
            expected = -F.cross_entropy(logits, torch.tensor(answer))
            torch.testing.assert_close(scores[row, place], expected, atol=2e-3, rtol=2e-3)


@torch.no_grad()
def logits_of(model: GenerativeModel, prompt, states: Tensor, tokens: list[int]) -> Tensor:
    """Logits [T + n, W] of a prompt and some tokens after it, read alone and at once."""
    embedded = model.embedded(prompt)
    if tokens:
        embedded = torch.cat([embedded, model.llm.get_input_embeddings()(torch.tensor([tokens]))], dim=1)
    model.set_gates(states)
    return model.llm(inputs_embeds=embedded, use_cache=False).logits[0].float()
