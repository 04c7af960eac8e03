"""Shares of a generative teacher's answers that are valid, and right: ValidRatio, HitRatio@1 (iLoRA, NeurIPS 2024)."""

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from recdistill.data.samples import Samples
from recdistill.evaluation.answers import answer_metrics, share_metrics
from recdistill.teachers.protocol import JudgedAnswers
from recdistill.teachers.shards import shared_batches

if TYPE_CHECKING:
    from recdistill.teachers.generative.teacher import GenerativeTeacher

# First number of the seed of a sample's candidates. It does not depend on the run's seed: all runs are judged on the
# same candidates.
JUDGED = 1


class Judged(NamedTuple):
    """An answer: its text, the places among the candidates of the one named, the right one and the backbone's best.

    ``item`` is the candidate named; -1 where none is, as is ``named``.
    """

    text: str
    named: int
    right: int
    of_backbone: int
    item: int


def judged_parts(teacher: "GenerativeTeacher") -> JudgedAnswers:
    """Metrics and answers of the validation and of the test samples, as ``val`` and ``test``; see `judged_answers`."""
    started = time.perf_counter()
    parts = {"val": teacher.data.validation, "test": teacher.data.test}
    found = {part: judged_answers(teacher, part, samples) for part, samples in parts.items()}
    metrics = {name: value for own, _ in found.values() for name, value in own.items()}
    metrics["ms_per_answer"] = 1e3 * (time.perf_counter() - started) / sum(map(len, parts.values()))
    return JudgedAnswers(metrics, {part: table for part, (_, table) in found.items()})


@torch.inference_mode()
def judged_answers(teacher: "GenerativeTeacher", part: str, samples: Samples) -> tuple[dict[str, float], pd.DataFrame]:
    """ValidRatio and HitRatio@1 of iLoRA on a part (`answer_metrics`, named ``part/valid_ratio`` and so on).

    Beside them ``part/backbone_hit_ratio_at_1``, how often the backbone ranks the target first of the same candidates.
    Also returns a row a sample: ``user`` and ``item`` (the target), ids as the source writes them; ``title`` of the
    target; ``answer``, the text written; ``named``, the id of the candidate that it names, or none.
    """
    found: dict[int, Judged] = {}
    read = teacher.batches(samples, shuffle=False)
    for _, batch, _ in shared_batches(teacher.processes, read, f"{part} answers", len(samples)):
        candidates, states = teacher.drawn_candidates(samples, batch, JUDGED), teacher.states(batch)
        texts, named = teacher.written(samples, batch, candidates, states)
        right = (candidates == batch.target.numpy()[:, None]).argmax(axis=1)
        of_backbone = teacher.backbone.logits(states).cpu().gather(1, torch.from_numpy(candidates)).argmax(dim=1)
        items = np.where(named < 0, -1, candidates[np.arange(len(named)), named])
        rows = map(Judged, texts, named.tolist(), right.tolist(), of_backbone.tolist(), items.tolist())
        found |= dict(zip(batch.sample.tolist(), rows, strict=True))
    for other in teacher.processes.gathered(found):
        found |= other
    answers, data = [found[sample] for sample in range(len(samples))], teacher.data
    metrics = answer_metrics([one.named for one in answers], [one.right for one in answers], samples.user)
    hits = [one.of_backbone == one.right for one in answers]
    metrics |= share_metrics("backbone_hit_ratio_at_1", hits, samples.user)
    table = pd.DataFrame(
        {
            "user": np.asarray(data.user_ids, dtype=object)[samples.user],
            "item": np.asarray(data.item_ids, dtype=object)[samples.targets],
            "title": [data.titles[item] for item in samples.targets],
            "answer": [one.text for one in answers],
            "named": [data.item_ids[one.item] if one.named >= 0 else None for one in answers],
        }
    )
    return {f"{part}/{name}": value for name, value in metrics.items()}, table
