"""Ranking teachers over a small data set: one whose scores a loop can repeat, and one over the tiny llama."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from small_data import write_csv
from tiny_llm import tiny_base_llm

from recdistill.config import DataConfig, TeacherConfig
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.students.build import StudentShape, build_student
from recdistill.students.student import Student
from recdistill.teachers.ilora.titles import TitleTokens
from recdistill.teachers.ranking.packing import one_prompt_a_sample, packed_prompts
from recdistill.teachers.ranking.teacher import RankingTeacher

CONTEXT, WINDOW, LENGTH = 3, 8, 12
OPTIONS = {"llm": "plain", "teacher_history": CONTEXT, "teacher_window": WINDOW, "top_n": 6, "tokens_per_batch": 200}


class KilledError(Exception):
    """What a test raises in place of a kill."""


class PlainModel:
    """Scores that a loop can repeat: a sum over the last three items of a history, whatever window they stand in."""

    llm_name = "plain"
    content = None

    def __init__(self, num_items, packing=True):
        generator = torch.Generator().manual_seed(3)
        self.shape = SimpleNamespace(packing=packing)
        lengths = 1 + np.arange(num_items) % 4
        start = np.concatenate([[0], np.cumsum(lengths)])
        self.titles = TitleTokens(np.ones(start[-1], dtype=np.int64), start, np.arange(5), 0)
        self.table = torch.randn(num_items, num_items, generator=generator)
        self.embedding = 4 + torch.randn(num_items, 7, generator=generator)
        self.calls = 0
        self.tokens = 0
        self.kill_at = None

    def tokens_of_texts(self, texts, reading):
        return SimpleNamespace(lengths=np.arange(len(texts))[::-1], read=np.ones(len(texts), dtype=np.int64))

    def text_states(self, texts, items):
        return self.embedding[items] + 1

    def prompts(self, history, row, column):
        lay_out = packed_prompts if self.shape.packing else one_prompt_a_sample
        return lay_out(self.titles, history, row, column, CONTEXT)

    def scores(self, items):
        weights = torch.tensor([0.2, 0.5, 1.0])[-len(items[-CONTEXT:]) :]
        return (weights.unsqueeze(1) * self.table[list(items[-CONTEXT:])]).sum(dim=0)

    def __call__(self, history, row, column, states):
        assert states.shape[:2] == history.shape
        if self.calls == self.kill_at:
            raise KilledError
        self.calls += 1
        self.tokens += self.prompts(history, row, column).num_tokens
        places = zip(row.tolist(), column.tolist(), strict=True)
        logits = torch.stack([self.scores(history[r, : c + 1].tolist()) for r, c in places])
        return logits, logits[:, :4] * 2

    def item_embedding(self):
        return self.embedding


def small(folder: Path, users: int = 30, **options: object) -> SequenceData:
    """The small data set, written to a folder and read."""
    return load_data(DataConfig(**write_csv(folder, users=users), **options))


def small_backbone(data: SequenceData, length: int = LENGTH) -> Student:
    """An untrained SASRec."""
    torch.manual_seed(0)
    shape = StudentShape("sasrec", 8, 0.0, length, "tied", {"blocks": 1, "heads": 1})
    return build_student(shape, data.num_items).eval().requires_grad_(False)


def config_of(**changes: object) -> TeacherConfig:
    """Small options."""
    return TeacherConfig(**(OPTIONS | changes))


def plain_teacher(data: SequenceData, backbone: Student, **changes: object) -> RankingTeacher:
    """A ranking teacher over the plain model."""
    config = config_of(**changes)
    model = PlainModel(data.num_items, config.value("packing"))
    return RankingTeacher(model=model, backbone=backbone, data=data, config=config)


def tiny_teacher(data: SequenceData, backbone: Student, **changes: object) -> RankingTeacher:
    """A ranking teacher over the tiny llama, its parameters moved off their initial values."""
    torch.manual_seed(0)
    teacher = RankingTeacher.build(config_of(**changes), tiny_base_llm(), backbone, data)
    with torch.no_grad():
        for parameter in teacher.model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape)
    return teacher


def history_of(samples, sample):
    """Items of a sample's history."""
    return samples.items[samples.start[sample] : samples.end[sample]].tolist()


def seen_by(samples, sample, exclude_seen):
    """Items left out of a sample's ranking."""
    return set(history_of(samples, sample)) if exclude_seen else set()
