"""A teacher's answers for training samples, within a token budget: the outputs that students learn from."""

import shutil
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.data.batches import Batch
from recdistill.distillation.selection import query
from recdistill.errors import InputError
from recdistill.registry import POLICIES, part_errors
from recdistill.students.signals import signals_before_answers
from recdistill.students.student import Student
from recdistill.teachers.outputs import Manifest, TeacherOutputs
from recdistill.teachers.protocol import AsksQueries, LearnsContent, Teacher
from recdistill.teachers.shards import Shards, shared_batches

#: Where, in the folder of the shards, what is read of the items' texts is kept.
TEXTS_FOLDER = "texts"


@dataclass(frozen=True, eq=False)
class Asking:
    """What a query policy looks at, in place of the backbone and all samples.

    Attributes:
        student: whose doubt counts, in evaluation mode.
        known: what the teacher has answered for; that is not asked again, nor are the items read again.
    """

    student: Student
    known: TeacherOutputs


@part_errors()
def make_outputs(
    teacher: Teacher, config: TeacherConfig, work: Path, asking: Asking | None = None
) -> TeacherOutputs | None:
    """Rankings of training samples within the token budget, and the embedding of all items.

    Under a budget the query policy says which samples come first. ``random`` draws whole windows, whose samples may
    share a prompt; the others look at the backbone and ask for single samples, which may cost more tokens each.

    Args:
        teacher: in evaluation mode.
        config: budget, query policy, candidates kept, seed.
        work: folder for shards, from which a killed scoring goes on, the same for all processes.
        asking: a student that asks for further samples by the query policy; None for the first ones.

    Returns None in all processes but the main one, which has the outputs of all.
    """
    if isinstance(teacher, AsksQueries):
        # It keeps its answers itself, and counts all that they cost.
        shutil.rmtree(work, ignore_errors=True)
    shards = Shards(work, teacher.processes.index)
    embedding, view = scored(teacher, config, shards, asking)
    teacher.processes.wait()
    if not teacher.processes.is_main:
        return None
    # Outside of inference mode, for a student may be trained on these tensors in this process.
    found = outputs_of(teacher, shards.read(), embedding, None if view is None else view.clone())
    return found if asking is None else replace(found, item_embedding=asking.known.item_embedding)


@torch.inference_mode()
def scored(
    teacher: Teacher, config: TeacherConfig, shards: Shards, asking: Asking | None = None
) -> tuple[Tensor, Tensor | None]:
    """Score the training samples that are not in ``shards`` yet.

    Returns the embedding of all items [V, E], and their vectors by text alone where the teacher has them, on the CPU;
    of a teacher that is asked again those that are known.
    """
    train = teacher.data.train
    kept = min(config.top_n, teacher.data.num_items)
    # A process that wrote now would have another find less to do than the rest.
    teacher.processes.wait()
    index = teacher.processes.from_main(lambda: asked_for(teacher, config, asking))
    affordable = affordable_batches(teacher, config, index)
    total = expected_samples(teacher, config, index)
    for place, batch, wanted in shared_batches(teacher.processes, affordable, "teacher outputs", total, shards.done):
        distances, states = teacher.outputs(train, batch)
        if not wanted:
            continue
        nearest, ranking = distances.topk(kept, dim=1, largest=False)
        found = {"sample": batch.sample, "ranking": ranking.to(torch.int32), "distance": nearest}
        if config.sequence_embeddings:
            found["sequence_embedding"] = states
        if isinstance(teacher, AsksQueries):
            answered = distances.isfinite().any(dim=1).cpu()
            found = {name: tensor[answered] for name, tensor in found.items()}
        shards.add(place, found)
    shards.write()
    if isinstance(teacher, AsksQueries) and not any(len(tensors["sample"]) for tensors, _ in shards.on_disk()):
        raise InputError(
            f"teacher={teacher.kind}: none of the answers to {total} samples could be read, or its budget pays for "
            "none; choose another model, or a larger budget"
        )
    if asking is not None:
        return asking.known.item_embedding, asking.known.item_view
    texts = shards.folder and shards.folder / TEXTS_FOLDER
    view = teacher.item_view(texts).cpu() if isinstance(teacher, LearnsContent) else None
    return teacher.item_embedding().cpu(), view


def outputs_of(
    teacher: Teacher, tensors: dict[str, Tensor], embedding: Tensor, view: Tensor | None = None
) -> TeacherOutputs:
    """The outputs made of the tensors of all shards, put in the order of the samples, and of vectors of the items.

    Args:
        teacher: that scored.
        tensors: of all shards.
        embedding: of the items [V, E].
        view: of the items by their texts alone [V, H], or None.
    """
    order = tensors["sample"].argsort()
    sequence = tensors.get("sequence_embedding")
    return TeacherOutputs(
        manifest=Manifest(
            fingerprint=teacher.data.fingerprint,
            llm=teacher.llm,
            num_items=teacher.data.num_items,
            num_samples=len(teacher.data.train),
            split=teacher.data.split,
            teacher=teacher.kind,
            confidence=teacher.confidence,
        ),
        sample=tensors["sample"][order],
        ranking=tensors["ranking"][order].long(),
        # A history may leave fewer items than are kept: the seen ones that fill up have the largest distance.
        distance=tensors["distance"][order].clamp(max=torch.finfo(torch.float32).max / 2),
        item_embedding=torch.nn.functional.normalize(embedding - embedding.mean(dim=0), dim=1),
        sequence_embedding=None if sequence is None else sequence[order],
        item_view=view,
    )


def affordable_batches(teacher: Teacher, config: TeacherConfig, index: np.ndarray | None) -> Iterator[Batch]:
    """Batches of the training samples at ``index`` (None: of all that teach) within the token budget, at least one."""
    budget = 0 if isinstance(teacher, AsksQueries) else config.outputs_token_budget
    tokens = 0
    samples = teacher.data.train
    # The samples that a policy asks for fit the budget, in this order.
    shuffle = index is None
    index = teacher.data.trainable(config.exclude_seen) if index is None else index
    for place, batch in enumerate(teacher.batches(samples, shuffle=shuffle, seed=config.seed, index=index)):
        if budget:
            tokens += teacher.num_tokens(samples, batch)
            if tokens > budget and place:
                return
        yield batch


def expected_samples(teacher: Teacher, config: TeacherConfig, index: np.ndarray | None) -> int:
    """Samples that the budget pays for, about, for the progress bar."""
    if index is not None:
        return len(index)
    samples = teacher.data.num_trainable(config.exclude_seen)
    if not config.outputs_token_budget:
        return samples
    return max(1, min(samples, round(config.outputs_token_budget / teacher.tokens_a_sample())))


def asked_for(teacher: Teacher, config: TeacherConfig, asking: Asking | None = None) -> np.ndarray | None:
    """The training samples that the query policy ranks first, as many as the budget pays for; None for all."""
    asks = isinstance(teacher, AsksQueries) or asking is not None
    if not asks and (not config.outputs_token_budget or config.query_policy == "random"):
        return None
    train, trainable = teacher.data.train, teacher.data.trainable(config.exclude_seen)
    eligible = torch.zeros(len(train), dtype=torch.bool)
    eligible[slice(None) if trainable is None else torch.from_numpy(trainable)] = True
    if asking is not None:
        eligible[asking.known.sample] = False
    student = teacher.backbone if asking is None else asking.student
    signals = signals_before_answers(student, teacher.data, eligible, config.seed, config.exclude_seen)
    budget = config.outputs_token_budget
    options = config.of_part(POLICIES, config.query_policy)
    if isinstance(teacher, AsksQueries):
        return query(config.query_policy, signals, teacher.query_budget(), options).numpy()
    most = min(len(train), 1 + int(2 * budget / teacher.tokens_a_sample()))
    wanted = query(config.query_policy, signals, most, options).numpy()

    def cost(count: int) -> int:
        # Samples that adjoin share a prompt: their cost together is known only when they are laid out.
        read = teacher.batches(train, shuffle=False, index=wanted[:count])
        return sum(teacher.num_tokens(train, batch) for batch in read)

    return wanted[: max(1, bisect_right(range(1, len(wanted) + 1), budget, key=cost))]
