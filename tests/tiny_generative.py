"""A generative teacher over the tiny llama, and prompts for it."""

from dataclasses import replace

import numpy as np
import torch
from tiny_llm import tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM

from recdistill.config import TeacherConfig
from recdistill.data.sequences import SequenceData
from recdistill.students.student import Student
from recdistill.teachers.generative.candidate_prompts import CandidatePrompts, answer_prompts, training_prompts
from recdistill.teachers.generative.model import GenerativeModel, GenerativeShape, build_generative_model
from recdistill.teachers.generative.teacher import GenerativeTeacher
from recdistill.teachers.ilora.base_llm import BaseLLM, weights_fingerprint

TITLES = [f"Film {'of old ' * (item % 3)}{item}" for item in range(14)]
ITEMS, STATE = len(TITLES), 8
SHAPE = GenerativeShape(rank=8, alpha=16.0, dropout=0.0, experts=4, gate="linear", domain="movie")
HISTORIES = [np.array([2, 0, 3]), np.array([1]), np.array([5, 6, 7, 8])]
CANDIDATES = np.array([[4, 1, 5, 8], [0, 2, 4, 13], [9, 12, 11, 10]])
TARGETS = [1, 4, 12]
TEMPLATE = [0, 1, 2]


def tiny_causal_model() -> LlamaForCausalLM:
    """The tiny llama, its head enlarged: so small a model at its random start is sure of nothing, and could not be."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight *= 30
    return model


def tiny_causal_llm(dtype: torch.dtype = torch.float32) -> BaseLLM:
    """That llama as generative teachers take it: frozen, with its head."""
    model = tiny_causal_model().to(dtype).requires_grad_(False)
    return BaseLLM(model, tiny_tokenizer(), "tiny", weights_fingerprint(model))


def item_table(items: int = ITEMS, size: int = STATE) -> Tensor:
    """A backbone's item table."""
    return torch.randn(items, size, generator=torch.Generator().manual_seed(4))


def states() -> Tensor:
    """A backbone's states of the three samples."""
    return torch.randn(3, STATE, generator=torch.Generator().manual_seed(5))


def fresh(dtype: torch.dtype = torch.float32, **changes: object) -> GenerativeModel:
    """A teacher before training."""
    torch.manual_seed(0)
    return build_generative_model(tiny_causal_llm(dtype), replace(SHAPE, **changes), TITLES, item_table())


def trained(dtype: torch.dtype = torch.float32, **changes: object) -> GenerativeModel:
    """A teacher in evaluation mode, every trained parameter moved off its initial value, the gate decidedly."""
    teacher = fresh(dtype, **changes)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if parameter.requires_grad:
                scale = 2.0 if name.startswith("gate.") else 0.2
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return teacher.eval()


def with_answers(teacher: GenerativeModel, rows: slice = slice(None)) -> CandidatePrompts:
    """The three prompts with their answers, or some of them."""
    return training_prompts(teacher.parts, HISTORIES[rows], CANDIDATES[rows], TEMPLATE[rows], TARGETS[rows])


def waiting(teacher: GenerativeModel, rows: slice = slice(None)) -> CandidatePrompts:
    """The three prompts waiting for answers, or some of them."""
    return answer_prompts(teacher.parts, HISTORIES[rows], CANDIDATES[rows], TEMPLATE[rows])


OPTIONS = {"llm": "tiny", "teacher": "generative", "candidates": 5, "teacher_history": 3, "top_n": 6}


def generative_config(**changes: object) -> TeacherConfig:
    """Small options of a generative teacher."""
    return TeacherConfig(**(OPTIONS | changes))


def generative_teacher(
    data: SequenceData, backbone: Student, model: GenerativeModel | None = None, **changes: object
) -> GenerativeTeacher:
    """A generative teacher of small options, over a model or a new one, moved off its initial values."""
    config = generative_config(**changes)
    if model is not None:
        return GenerativeTeacher(model=model, backbone=backbone, data=data, config=config)
    torch.manual_seed(0)
    made = GenerativeTeacher.build(config, tiny_causal_llm(), backbone, data)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape)
    return made
