"""Checks of a teacher and of its outputs: whoever writes one calls `check_teacher` on it and learns what to mend."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recdistill.config import TeacherConfig, changed
from recdistill.config.teacher import reads_llm
from recdistill.data.batches import Batch
from recdistill.data.frames import data_from_frames
from recdistill.data.samples import Int64Array, Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.evaluate import Ranked
from recdistill.registry import TEACHERS
from recdistill.students.build import StudentShape, build_student
from recdistill.students.measure import KEPT
from recdistill.students.student import Student
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.outputs import TeacherOutputs
from recdistill.teachers.protocol import LearnsContent, Lesson, Teacher
from recdistill.teachers.scoring import make_outputs
from recdistill.teachers.training import fit_lesson
from recdistill.testing.tiny_llm import tiny_base_llm
from recdistill.training.distributed import ALONE
from recdistill.training.fit import Progress
from recdistill.training.recorder import NoRecorder

USERS, ITEMS, LENGTH = 8, 40, 12
TOP_N = 6
LESSONS = 4
TOLERANCE = 1e-3
# Of a history that leaves fewer items than are kept, seen ones fill the rest, at this distance or more.
FILLED = 1e30

Item = TypeVar("Item")


def check_teacher(teacher: str | type, options: Any = None) -> None:
    """Check that a teacher keeps its contract, over a tiny random llama and a small data set.

    Its outputs fit (see `check_teacher_outputs`); permuted samples have permuted outputs; a budget is kept; it scores
    the same again; training changes its lesson's parameters alone; saved and loaded over a fresh LLM, it scores the
    same.

    Args:
        teacher: the name of a registered teacher, or the registered class.
        options: instance of its options dataclass; None for its defaults.

    Raises:
        AssertionError: the teacher breaks the contract; the message says how, and what to change.
    """
    name = _name_of(teacher)
    kind: type[Teacher] = TEACHERS.part(name)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config, data = _config(name, options), small_data()
        backbone = small_backbone(data)
        _check_declaration(name, kind, config)
        made = _of(name, "build", lambda: kind.build(config, _llm(kind), backbone, data))
        _check_names(name, made)
        if isinstance(made, LearnsContent):
            _of(name, "learn_content", lambda: made.learn_content(_fit(config), Path(folder) / "texts"))
        lesson = _of(name, "lesson", made.lesson)
        if lesson is not None:
            _check_lesson(name, lesson)
            _check_training(name, config, lesson, backbone)
        _check_outputs(name, made, config, Path(folder))
        _check_permuted(name, made)
        _check_costs(name, made, config, Path(folder))
        _check_ranks(name, made, Path(folder) / "ranks")
        _check_answers(name, made)
        _check_gate(name, made)
        _check_saved(name, kind, made, config, Path(folder))


def check_teacher_outputs(outputs: TeacherOutputs, data: SequenceData, *, exclude_seen: bool = True) -> None:
    """Check that a teacher's outputs fit the data, and are as students read them.

    Args:
        outputs: of a teacher, whoever made them.
        data: that they were made for.
        exclude_seen: whether rankings leave out the items of a sample's history.

    Raises:
        AssertionError: they do not; the message says how.
    """
    manifest = outputs.manifest
    of_data = (data.fingerprint, data.num_items, len(data.train))
    assert (manifest.fingerprint, manifest.num_items, manifest.num_samples) == of_data, (
        "teacher outputs: the manifest's fingerprint, num_items or num_samples are not those of the data"
    )
    assert manifest.confidence, "teacher outputs: the manifest's confidence is empty; say how distances are defined"
    assert len(outputs.sample), "teacher outputs: no sample is covered; score one at least"
    ranking, distance = outputs.ranking, outputs.distance
    assert not bool(((ranking < 0) | (ranking >= data.num_items)).any()), (
        f"teacher outputs: a ranking holds an id that is no item, as the padding id {data.num_items} is none"
    )
    assert bool((distance.diff(dim=1) >= 0).all()), (
        "teacher outputs: distances fall along a ranking; put the best item first, a small distance is sure"
    )
    for sample, row, far in zip(outputs.sample.tolist(), ranking.tolist(), (distance >= FILLED).tolist(), strict=True):
        assert len(set(row)) == len(row), f"teacher outputs: the ranking of sample {sample} holds an item twice"
        seen = set(_history(data.train, sample)) if exclude_seen else set()
        listed = {item for item, filled in zip(row, far, strict=True) if not filled}
        assert not listed & seen, (
            f"teacher outputs: the ranking of sample {sample} holds an item of its history; leave seen items out, "
            "or give them an infinite distance"
        )
    spread = float(outputs.item_embedding.std(dim=0).max())
    assert spread > 0, "teacher outputs: all items have the same embedding; students could not tell them apart"


# A small world.


def small_data(users: int = USERS, items: int = ITEMS, seed: int = 0) -> SequenceData:
    """A small data set: items follow each other in a ring, with some noise."""
    drawn = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(drawn.integers(items))
        for time in range(int(drawn.integers(5, 12))):
            rows.append((f"u{user}", f"i{item}", 1000 * user + time))
            item = (item + 1) % items if drawn.random() < 0.8 else int(drawn.integers(items))
    titles = [f"Film {'of the day ' * (item % 3)}{item}" for item in range(items)]
    return data_from_frames(
        pd.DataFrame(rows, columns=["user", "item", "timestamp"]),
        pd.DataFrame({"item": [f"i{item}" for item in range(items)], "title": titles}),
    )


def small_backbone(data: SequenceData) -> Student:
    """An untrained SASRec, its parameters moved so far that it is sure of some items."""
    shape = StudentShape("sasrec", 8, 0.0, LENGTH, "tied", {"blocks": 1, "heads": 1})
    model = build_student(shape, data.num_items)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.items.embedding.weight[data.num_items] = 0.0
    return model.eval().requires_grad_(False)


def _config(name: str, options: Any) -> TeacherConfig:
    own = {} if options is None else {spec.name: getattr(options, spec.name) for spec in fields(options)}
    return TeacherConfig(
        teacher=name,
        llm="tiny",
        device="cpu",
        teacher_history=3,
        top_n=TOP_N,
        sequence_embeddings=True,
        tokens_per_batch=400,
        token_budget=400 * LESSONS,
        llm_learning_rate=0.01,
        llm_weight_decay=0.0,
        warmup=0.0,
        **own,
    )


def _llm(kind: type[Teacher]) -> BaseLLM | None:
    return tiny_base_llm(causal_lm=kind.needs_language_model_head) if kind.needs_llm else None


def _history(samples: Samples, sample: int) -> list[int]:
    found: list[int] = samples.items[samples.start[sample] : samples.end[sample]].tolist()
    return found


# Its name and class attributes.


def _name_of(teacher: str | type) -> str:
    if isinstance(teacher, str):
        return teacher
    try:
        return TEACHERS.name_of(teacher)
    except KeyError:
        raise AssertionError(
            f'{teacher.__name__}: is not registered; write @TEACHERS.register("its name") above it'
        ) from None


def _of(name: str, what: str, call: Callable[[], Item]) -> Item:
    """The result of a call; an exception becomes a sentence."""
    try:
        return call()
    except InputError as error:
        raise AssertionError(f"{name}: {what} refuses small data ({error})") from error
    except Exception as error:
        raise AssertionError(f"{name}: {what} raises {type(error).__name__} ({error})") from error


def _check_declaration(name: str, kind: type[Teacher], config: TeacherConfig) -> None:
    for attribute in ("needs_llm", "needs_language_model_head"):
        assert isinstance(getattr(kind, attribute, None), bool), (
            f"{name}: has no class attribute {attribute}; set it to True or False"
        )
    assert kind.needs_llm == reads_llm(name), (
        f"{name}: needs_llm is {kind.needs_llm}, and its registration says otherwise; register it with llm=False where "
        "it needs none"
    )
    _of(name, "check", lambda: kind.check(config, None))


def _check_names(name: str, made: Teacher) -> None:
    assert made.kind == name, f"{name}: kind is {made.kind!r}; give the name that it is registered under"
    for attribute in ("llm", "confidence"):
        value = getattr(made, attribute)
        assert isinstance(value, str), f"{name}: {attribute} is {value!r}; give a text for the manifest"
        assert value or attribute == "llm", f"{name}: {attribute} is empty; say how its distances are defined"


# Its lesson and training.


def _check_lesson(name: str, lesson: Lesson[Any]) -> None:
    first, again = (list(islice(lesson.batches(), LESSONS)) for _ in range(2))
    assert len(first) == LESSONS, f"{name}: its lesson has {len(first)} batches; give them pass after pass, without end"
    for batch, other in zip(first, again, strict=True):
        size = lesson.size(batch)
        assert size.get("samples", 0) > 0, f"{name}: size names no samples of a batch; say how many there are"
        assert size.get("tokens", 0) > 0, f"{name}: size names no tokens of a batch; say how many there are"
        assert dict(size) == dict(lesson.size(other)), (
            f"{name}: batches are others when asked for again; a training that was killed goes on in the middle"
        )
    batch = first[0]
    losses = _of(name, "the lesson's step", lambda: lesson.step(batch))
    total = losses.get("total")
    differentiable = total is not None and total.ndim == 0 and total.requires_grad
    assert differentiable, f"{name}: its step gives no differentiable scalar named total; the loss must have that name"
    loss = float(losses["total"].detach())
    assert np.isfinite(loss), f"{name}: its loss is {loss} before training; make it finite"
    for count in (2, 50):
        shares = [lesson.divide(batch, index, count)[1] for index in range(count)]
        assert abs(sum(shares) - 1) < 1e-6, (
            f"{name}: the shares of a batch divided by {count} sum to {sum(shares):.3g}; they must sum to 1"
        )


def _fit(config: TeacherConfig) -> Callable[[Lesson[Any], int], Progress]:
    """Fits a lesson about the items' texts."""
    return lambda lesson, tokens: fit_lesson(changed(config, token_budget=tokens), lesson, NoRecorder(), ALONE)


def _check_training(name: str, config: TeacherConfig, lesson: Lesson[Any], backbone: Student) -> None:
    module, parameters = lesson.module, lesson.parameters
    trained = {id(parameter) for group in lesson.groups for parameter in group["params"]}
    for key, parameter in module.named_parameters():
        assert not parameter.requires_grad or id(parameter) in trained, (
            f"{name}: {key} can be trained, but is in no group of its lesson; add it, or freeze it"
        )
    named = {id(tensor) for tensor in parameters.values()}
    assert trained <= named, f"{name}: its lesson trains a parameter that is not in parameters; a kill would lose it"
    before = _copies(dict(module.named_parameters())) | _copies(dict(module.named_buffers()))
    frozen = _copies(dict(backbone.state_dict()))
    _of(name, "training", lambda: fit_lesson(config, lesson, NoRecorder(), ALONE))
    after = dict(module.named_parameters()) | dict(module.named_buffers())
    moved = {key for key, tensor in before.items() if not torch.equal(after[key], tensor)}
    assert moved, f"{name}: training changes nothing; check that the loss depends on what is trained"
    aside = sorted(key for key in moved if id(after[key]) not in named)
    assert not aside, (
        f"{name}: training changes {aside[0]}, which is not in the lesson's parameters; a kill would lose it"
    )
    assert all(torch.equal(tensor, frozen[key]) for key, tensor in backbone.state_dict().items()), (
        f"{name}: training changes the backbone; its states must stay those of the frozen student"
    )
    assert not module.training, f"{name}: is in training mode after its training; `fit` leaves it in evaluation mode"


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in tensors.items()}


# Its outputs, ranks and answers.


def _outputs(name: str, made: Teacher, config: TeacherConfig, folder: Path) -> TeacherOutputs:
    found = _of(name, "scoring", lambda: make_outputs(made, config, folder))
    assert found is not None
    return found


def _check_outputs(name: str, made: Teacher, config: TeacherConfig, folder: Path) -> None:
    outputs = _outputs(name, made, config, folder / "first")
    index = made.data.trainable(config.exclude_seen)
    wanted = list(range(len(made.data.train))) if index is None else index.tolist()
    assert outputs.sample.tolist() == wanted, (
        f"{name}: scores {len(outputs.sample)} of {len(wanted)} samples without a budget; batches must hold each once"
    )
    assert outputs.top_n == TOP_N, f"{name}: keeps {outputs.top_n} candidates for top_n={TOP_N}"
    try:
        check_teacher_outputs(outputs, made.data)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from None
    again = _outputs(name, made, config, folder / "again")
    for tensor in ("ranking", "distance", "item_embedding"):
        assert torch.equal(getattr(outputs, tensor), getattr(again, tensor)), (
            f"{name}: gives another {tensor} when asked again; draw no random numbers while scoring, or by the sample"
        )


def _batches(made: Teacher) -> Iterator[Batch]:
    return made.batches(made.data.train, shuffle=False)


@torch.no_grad()
def _check_permuted(name: str, made: Teacher) -> None:
    for batch in _batches(made):
        order, windows = torch.randperm(len(batch)), torch.randperm(len(batch.history))
        place = torch.empty_like(windows).index_put((windows,), torch.arange(len(windows)))
        permuted = Batch(
            history=batch.history[windows],
            length=batch.length[windows],
            row=place[batch.row[order]],
            column=batch.column[order],
            target=batch.target[order],
            sample=batch.sample[order],
        )
        expected = made.outputs(made.data.train, batch)
        found = made.outputs(made.data.train, permuted)
        for own, other in zip(found, expected, strict=True):
            assert own.shape[0] == len(batch), f"{name}: gives {own.shape[0]} rows for {len(batch)} samples"
            assert torch.allclose(own, other[order.to(other.device)], atol=TOLERANCE, rtol=TOLERANCE), (
                f"{name}: the outputs of a permuted batch are not the permuted outputs; a sample's answer must not "
                "depend on its place in a batch"
            )


def _check_costs(name: str, made: Teacher, config: TeacherConfig, folder: Path) -> None:
    costs = [made.num_tokens(made.data.train, batch) for batch in _batches(made)]
    assert min(costs) > 0, f"{name}: a batch costs {min(costs)} tokens; count those that it is asked with"
    estimate = made.tokens_a_sample()
    assert estimate > 0, f"{name}: a sample costs {estimate} tokens by tokens_a_sample; estimate it"
    outputs = _outputs(name, made, changed(config, outputs_token_budget=sum(costs) // 2), folder / "limited")
    # The first batch is scored whatever it costs.
    assert len(outputs.sample) < made.data.num_trainable(config.exclude_seen) or len(costs) == 1, (
        f"{name}: half the tokens that all samples cost pay for all of them; count the tokens of each batch"
    )


def _check_ranks(name: str, made: Teacher, folder: Path) -> None:
    data = made.data
    found = _of(name, "ranks", lambda: made.ranks(folder))
    if found is None:
        return
    validation, test, seconds = found
    assert seconds > 0, f"{name}: ranking took {seconds} seconds; measure it"
    parts = (
        ("validation", data.validation, validation, data.new_validation),
        ("test", data.test, test, data.new_test),
    )
    for part, samples, ranked, new in parts:
        where = f"{name}: ranks of the {part} samples"
        _check_ranked(where, samples, ranked, data.num_items)
        _check_among(where, samples, ranked, new)


def _check_ranked(where: str, samples: Samples, ranked: Ranked, num_items: int) -> None:
    assert ranked.ranks.shape == (len(samples),), f"{where}: there are {len(ranked.ranks)}; give one a sample"
    inside = bool(((ranked.ranks >= 1) & (ranked.ranks <= num_items + 1)).all())
    assert inside, f"{where}: one is not in 1..{num_items + 1}; the best item has rank 1"
    assert ranked.best.shape == (len(samples), KEPT), f"{where}: keep the {KEPT} best items of each sample"
    for sample, (rank, best) in enumerate(zip(ranked.ranks.tolist(), ranked.best.tolist(), strict=True)):
        target, seen = int(samples.targets[sample]), set(_history(samples, sample))
        assert not seen & set(best), f"{where}: the best items of sample {sample} hold one of its history"
        assert (rank == num_items + 1) == (target in seen), (
            f"{where}: rank {rank} of sample {sample}; a target in its own history, and no other, is a miss of rank "
            f"{num_items + 1}"
        )
        assert (target in best) == (rank <= KEPT), f"{where}: rank {rank} is not that of the target in its best items"


def _check_among(where: str, samples: Samples, ranked: Ranked, new: Int64Array) -> None:
    is_new = np.isin(samples.targets, new)
    if ranked.among is None:
        assert not is_new.any(), f"{where}: targets that are new items have no rank among them; give Ranked.among"
        return
    found = ranked.among.numpy()
    assert np.array_equal(found > 0, is_new), (
        f"{where}: Ranked.among is above 0 for {np.sum(found > 0)} samples, and {is_new.sum()} have a new item for a "
        "target; give 0 to the others"
    )
    assert bool((found <= ranked.ranks.numpy()).all()), (
        f"{where}: a target ranks lower among new items than among all; rank it by the same scores"
    )


def _check_answers(name: str, made: Teacher) -> None:
    answered = _of(name, "answers", made.answers)
    if answered is None:
        return
    sizes = {"val": len(made.data.validation), "test": len(made.data.test)}
    found = {part: len(table) for part, table in answered.tables.items()}
    assert found == sizes, f"{name}: its tables of answers have {found} rows; give a row a sample, {sizes}"
    wrong = [key for key, value in answered.metrics.items() if not np.isfinite(value)]
    assert not wrong, f"{name}: the metric {wrong[0] if wrong else ''} of its answers is not a finite number"


def _check_gate(name: str, made: Teacher) -> None:
    state = torch.randn(5, made.backbone.state_size, device=next(made.backbone.parameters()).device)
    weights = _of(name, "gate_weights", lambda: made.gate_weights(state))
    if weights is not None:
        assert len(weights) == len(state), f"{name}: gate_weights gives {len(weights)} rows for {len(state)} states"
        assert torch.allclose(weights.sum(dim=-1), torch.ones(weights.shape[:-1], device=weights.device), atol=1e-4), (
            f"{name}: the gate's weights of a state do not sum to 1"
        )


# Saving and loading.


def _check_saved(name: str, kind: type[Teacher], made: Teacher, config: TeacherConfig, folder: Path) -> None:
    _of(name, "save", lambda: made.save(folder / "saved"))
    torch.manual_seed(1)
    loaded = _of(name, "load", lambda: kind.load(folder / "saved", config, _llm(kind), made.backbone, made.data))
    own, other = (_outputs(name, one, config, folder / f"saved {place}") for place, one in enumerate((made, loaded)))
    for tensor in ("sample", "ranking", "distance", "item_embedding", "sequence_embedding"):
        assert torch.equal(getattr(own, tensor), getattr(other, tensor)), (
            f"{name}: loaded over a fresh LLM, its {tensor} is not that of before; save all that it learnt"
        )
    ranks, again = made.ranks(), loaded.ranks()
    assert (ranks is None) == (again is None), f"{name}: ranks before it is saved or after, but not both; do both"
    if ranks is None or again is None:
        return
    for before, after in zip(ranks[:2], again[:2], strict=True):
        assert torch.equal(before.ranks, after.ranks), (
            f"{name}: loaded over a fresh LLM, it ranks otherwise than before; save all that it learnt"
        )
