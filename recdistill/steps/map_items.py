"""``map_items``: new items in a finished student, from vectors of their texts.

The map from texts is fitted in closed form to the student's embeddings (``item_map=ridge``), or it is that which the
student was trained with (``own``). Where new items stand among the others is chosen on validation either way.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recdistill.config import STEPS, BaselineConfig, MapItemsConfig, changed, narrow, option_table
from recdistill.config.lineage import compared_settings
from recdistill.config.student import StudentConfig
from recdistill.config.views import OWN_OPTIONS, view_options
from recdistill.data.item_texts import item_texts, texts_digest
from recdistill.data.pinned_models import joined_terms
from recdistill.data.samples import Int64Array
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.report.new_items_figure import new_items_figure
from recdistill.runs.finished_runs import check_data, finished_run, linked_run
from recdistill.runs.plugins_of_runs import options_with_plugins
from recdistill.runs.registry import check_registry
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.backbone import backbone
from recdistill.steps.inputs import data_of, frozen_student, teacher_outputs_of
from recdistill.steps.registered import registered
from recdistill.steps.results import keep_student
from recdistill.steps.student_start import LEARNT, has_unlearnt
from recdistill.steps.student_texts import VECTORS_FOLDER, about_texts
from recdistill.students.build import StudentShape, read_shape
from recdistill.students.calibration import (
    COSTS,
    CalibrationScores,
    Outcome,
    among_new,
    at_cost,
    calibration_scores,
    choose_interleaving,
    outcome,
    some_samples,
    stand_ins,
)
from recdistill.students.item_map import fit_item_map
from recdistill.students.kept_student import load_kept
from recdistill.students.mapped import Interleaving, MappedStudent, NewItemMap, check_tied, with_new_items
from recdistill.students.measure import measure
from recdistill.students.student import Student
from recdistill.students.terms_file import terms_of_student
from recdistill.training.device import device_of
from recdistill.views.item_vectors import ItemVectors
from recdistill.views.text_teacher import TeacherTable

MAP_FOLDER = "new_items"
#: Share of the trained items that stand for new ones where validation has none.
STAND_INS = 0.1
#: Options of the student's run that are this step's own.
OWN = ("force", "plugin", "register", "device")


@dataclass(frozen=True, eq=False)
class Source:
    """The finished student that gets new items.

    Attributes:
        run: that trained it.
        step: of that run.
        settings: of that step alone, as JSON values: what two students may differ by that this step has no option for.
    """

    run: StepRun
    step: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TaughtView:
    """What ``views=teacher`` is made of.

    Attributes:
        run: of the teacher.
        table: its vectors of the items.
        terms: of its LLM.
    """

    run: StepRun
    table: TeacherTable
    terms: str


@dataclass(frozen=True, eq=False)
class Candidate:
    """A choice of views, its vectors, and the student with new items by them.

    Attributes:
        config: with nothing left open.
        vectors: of all items.
        mapped: its new items set by ``Interleaving()``.
        value: the higher, the better the views: see `choose_views`.
        scores: of validation's new targets, which ``value`` comes from; None where it has none.
        with_new: the student with further new items, int64, beside those that it has not learnt.
    """

    config: MapItemsConfig
    vectors: ItemVectors
    mapped: MappedStudent
    value: float
    scores: CalibrationScores | None
    with_new: Callable[[Int64Array], MappedStudent]


def map_items(config: MapItemsConfig) -> StepRun:
    """Map texts to the item space of a finished student, and measure and keep the student with its new items."""
    check_registry(config.register)
    config, source = source_of(config)
    data = data_of(config)
    if source is not None:
        # Items are numbered as the data have them now.
        check_data(source.run, data.fingerprint, f"student_run_id={source.run.run_id}")
    else:
        source = Source(backbone(student_options(config)), "backbone", {})
    texts = item_texts(data.titles, data.item_columns, config.item_text, config.text_template)
    teacher = taught_view(config, source, data, texts)
    upstream, contents = made_from(config, data, source, teacher, texts)
    with step_run("map_items", config, data=data, upstream=upstream, contents=contents) as run:
        if not run.reused:
            run.tag("mapped_run_id", source.run.run_id)
            mapping(config, data, source, texts, teacher, run)
    if config.register:
        registered(run, config.register)
    return run


def made_from(
    config: MapItemsConfig, data: SequenceData, source: Source, teacher: TaughtView | None, texts: tuple[str, ...]
) -> tuple[dict[str, StepRun], dict[str, Any]]:
    """The runs that a map starts from, by step, and what else its key has beside options and data."""
    upstream = {source.step: source.run} | ({} if teacher is None else {"teacher": teacher.run})
    # Of data with items that are targets of repeats alone, maps of before were fitted to such items, too.
    learnt = LEARNT if has_unlearnt(data, config.exclude_seen) else {}
    return upstream, {"item texts": texts_digest(texts), **learnt, **source.settings}


def source_of(config: MapItemsConfig) -> tuple[MapItemsConfig, Source | None]:
    """The options, and the student's run; None where the options of data and student say which to find or make.

    Of a run that is named, its options stand in the place of those of data and student. Raises InputError where that
    is no such run, or the student cannot have new items.
    """
    if not config.student_run_id:
        check_student_options(config)
        return config, None
    run, step, values = options_with_plugins(config.student_run_id, ("backbone", "distill"), "student_run_id")
    if values.get("refit"):
        raise InputError(
            f"student_run_id={run.run_id}: was trained on all interactions (refit), so that nothing is left to choose "
            "by; map the run that it refits, or refit with item_init=views and use add_items"
        )
    shared = option_table(StudentConfig)
    left = {*OWN, *(() if config.item_map == "own" else view_options())}
    taken = {name: value for name, value in values.items() if name in shared and name not in left}
    config = changed(config, student_run_id=run.run_id, **taken)
    check_student_options(config)
    own = compared_settings(STEPS[step], values, {})
    settings = {f"{step}.{name}": value for name, value in own.items() if name not in option_table(MapItemsConfig)}
    settings = settings if step != "backbone" else {}
    # The student's views are not those of the map.
    settings |= {f"{step}.{name}": value for name, value in values.items() if name in view_options()}
    return config, Source(run, step, settings)


def student_options(config: MapItemsConfig) -> BaselineConfig:
    """The options of the student that is found or made: its views are the map's, where it starts from any."""
    defaults = {name: option_table(BaselineConfig)[name].default for name in OWN_OPTIONS}
    unread = {} if config.starts_from_texts else defaults
    return narrow(config, BaselineConfig, register="", force=False, **unread)


def check_student_options(config: MapItemsConfig) -> None:
    """Raise InputError, before any work, where new items cannot be mapped into the student of the options."""
    if config.student not in STUDENTS.names(gradient=True):
        raise InputError(
            f"student={config.student}: has no item embeddings that a text could be mapped to; choose one of "
            f"{', '.join(STUDENTS.names(gradient=True))}"
        )
    if config.output != "tied":
        raise InputError(f"output={config.output}: new items have no row in that layer; train with output=tied")
    if config.item_map == "own" and not config.starts_from_texts:
        raise InputError(
            "item_map=own: the student was not trained with item_init=views, so that it has no map from texts; "
            "leave item_map out"
        )


def taught_view(
    config: MapItemsConfig, source: Source, data: SequenceData, texts: tuple[str, ...]
) -> TaughtView | None:
    """The teacher of ``views=teacher`` and its vectors of the items; None where that view is not asked for."""
    if "teacher" not in config.view_names:
        if config.teacher_run_id:
            raise InputError(f"teacher_run_id={config.teacher_run_id}: is for views=teacher; add it, or leave this out")
        return None
    if config.teacher_run_id:
        found = finished_run(config.teacher_run_id, "teacher", data.fingerprint)
    elif source.step == "distill":
        found = linked_run(source.run, "teacher")
    else:
        raise InputError("views=teacher: the student was not distilled; set teacher_run_id=<run of a teacher>")
    # By item: what the teacher read of an item may be another text than this step's.
    outputs = teacher_outputs_of(found, data)
    return TaughtView(found, TeacherTable.of_outputs(outputs, texts, {"teacher": found.key}), outputs.manifest.terms)


def mapping(
    config: MapItemsConfig,
    data: SequenceData,
    source: Source,
    texts: tuple[str, ...],
    teacher: TaughtView | None,
    run: StepRun,
) -> None:
    """Choose views and interleaving on validation, measure the student with new items, and log all of it."""
    device, started = device_of(config), time.perf_counter()
    kept = source.run.artifact("student")
    student, shape = frozen_student(source.run, torch.device("cpu")), read_shape(kept)
    check_tied(student)
    table = None if teacher is None else teacher.table
    candidates = (
        [own_candidate(config, data, kept, shape, table, device)]
        if config.item_map == "own"
        else [candidate(one, data, student, shape, texts, table, device) for one in config.alternatives()]
    )
    best = choose_views(candidates)
    scores = validation_scores(best, data, device)
    chosen = choose_interleaving(scores, config.warm_cost) if bool(scores.warm.any()) else None
    interleaving = Interleaving() if chosen is None else chosen.interleaving
    mapped = best.mapped.interleaved(interleaving).to(device)
    seconds = time.perf_counter() - started
    fitted = measure(mapped, shape, data, device, exclude_seen=config.exclude_seen)

    def beside(folder: Path) -> None:
        best.vectors.save(folder / VECTORS_FOLDER)

    taught = "" if teacher is None or "teacher" not in best.vectors.names else teacher.terms
    terms = joined_terms(terms_of_student(kept), *best.vectors.terms, taught)
    keep_student(run, config, data, fitted, beside, terms)
    tested = calibration_scores(mapped, data.test, data.new_test, config.exclude_seen, device)
    after = outcome(tested, interleaving)
    run.log_metrics(costs_logged(best, interleaving, chosen, after, seconds))
    log_curve(run, data, config, {"validation": scores, "test": tested}, interleaving, candidates)
    run.describe(described(config, data, source, best, fitted.metrics, after))


def candidate(
    config: MapItemsConfig,
    data: SequenceData,
    student: Student,
    shape: StudentShape,
    texts: tuple[str, ...],
    teacher: TeacherTable | None,
    device: torch.device,
) -> Candidate:
    """The vectors of one choice of views, and the map from them."""
    vectors = ItemVectors.fit(config, texts, data.trained, teacher if "teacher" in config.view_names else None, device)
    about, learnt = about_texts(config, data), data.learnt(config.exclude_seen)
    mapped, explained = mapped_student(student, shape, data, vectors, learnt, about)
    value, scores = among_validation(config, data, mapped, device)

    def with_new(further: Int64Array) -> MappedStudent:
        rest = learnt & ~np.isin(np.arange(data.num_items), further)
        return mapped_student(student, shape, data, vectors, rest, {})[0]

    return Candidate(config, vectors, mapped, explained if value is None else value, scores, with_new)


def own_candidate(
    config: MapItemsConfig,
    data: SequenceData,
    kept: Path,
    shape: StudentShape,
    teacher: TeacherTable | None,
    device: torch.device,
) -> Candidate:
    """The student with the map that it was trained with."""
    mapped = load_kept(kept)
    if not isinstance(mapped, MappedStudent) or mapped.new_item_map.terms is not None:
        raise InputError("item_map=own: the student keeps no map of its own; leave item_map out")
    mapped = mapped.interleaved(Interleaving())
    vectors = ItemVectors.load(kept / VECTORS_FOLDER, teacher, device)

    def with_new(further: Int64Array) -> MappedStudent:
        return mapped.with_new(shape, torch.as_tensor(further), torch.from_numpy(vectors.table))

    value, scores = among_validation(config, data, mapped, device)
    return Candidate(config, vectors, mapped, value or 0.0, scores, with_new)


def among_validation(
    config: MapItemsConfig, data: SequenceData, mapped: MappedStudent, device: torch.device
) -> tuple[float | None, CalibrationScores | None]:
    """NDCG@20 of validation's new targets among its new items, and the scores that it is of; None where it has none."""
    scores = calibration_scores(
        mapped.to(device), some_samples(data.validation, config.seed), data.new_validation, config.exclude_seen, device
    )
    if not bool(scores.counts.any()):
        return None, None
    return among_new(scores), scores


def mapped_student(
    student: Student,
    shape: StudentShape,
    data: SequenceData,
    vectors: ItemVectors,
    learnt: NDArray[np.bool_],
    about: Mapping[str, Any],
) -> tuple[MappedStudent, float]:
    """The student with all items mapped but those ``learnt``, bool [V], by a map of these; the share it explains."""
    known, new = np.flatnonzero(learnt), np.flatnonzero(~learnt)
    table, counts = torch.from_numpy(vectors.table), torch.as_tensor(data.item_count)
    found, terms = fit_item_map(table[known], student.item_table()[known], counts[known])
    new_item_map = NewItemMap(found, terms, Interleaving(), about, vectors.identity)
    mapped = with_new_items(student, shape, torch.as_tensor(new), table[new], new_item_map)
    return mapped, terms.explained


def choose_views(candidates: list[Candidate]) -> Candidate:
    """The best choice of views: by NDCG@20 of validation's new targets among its new items.

    Where validation has none, by the share of held-out items' embeddings that the map explains.
    """
    return max(candidates, key=lambda one: one.value)


def validation_scores(best: Candidate, data: SequenceData, device: torch.device) -> CalibrationScores:
    """What the interleaving is chosen on: validation's new targets, or trained items that stand for new ones."""
    if best.scores is not None:
        return best.scores
    config, samples = best.config, some_samples(data.validation, best.config.seed)
    targets, mapped = data.new_validation, best.mapped
    if not np.isin(samples.targets, targets).any():
        targets = stand_ins(data, mapped.is_known.cpu().numpy(), STAND_INS, config.seed)
        mapped = best.with_new(targets)
    return calibration_scores(mapped.to(device), samples, targets, config.exclude_seen, device)


def costs_logged(
    best: Candidate, interleaving: Interleaving, chosen: Outcome | None, test: Outcome, seconds: float
) -> dict[str, float]:
    """Metrics of the map: what it explains, how new items are set, what they cost, and what their vectors took."""
    terms, costs = best.mapped.new_item_map.terms, best.vectors.costs.values()
    found = {} if terms is None else {"map/explained": terms.explained, "map/penalty": terms.penalty}
    found |= {
        "map/scale": interleaving.scale,
        "map/offset": interleaving.offset,
        "map/test_warm_cost": test.warm_cost,
        "map/test_gain": test.gain,
        "map/seconds": seconds,
        "map/text_tokens": float(sum(one.tokens for one in costs)),
        "map/text_seconds": float(sum(one.seconds for one in costs)),
    }
    if chosen is not None:
        found |= {"map/val_warm_cost": chosen.warm_cost, "map/val_gain": chosen.gain}
    return found


def log_curve(
    run: StepRun,
    data: SequenceData,
    config: MapItemsConfig,
    parts: Mapping[str, CalibrationScores],
    interleaving: Interleaving,
    candidates: list[Candidate],
) -> None:
    """Keep warm against new targets as a picture and as JSON, and what each choice of views was worth."""
    costs = sorted({*COSTS, config.warm_cost})
    settings = [at_cost(parts["validation"], interleaving.scale, cost).interleaving for cost in costs]
    place = costs.index(config.warm_cost)
    settings[place] = interleaving
    curves = {name: [outcome(scores, one) for one in settings] for name, scores in parts.items()}
    tried = [{"views": one.config.views, **reading_of(one.config), "value": one.value} for one in candidates]

    def write(folder: Path) -> None:
        folder.mkdir()
        values = {"chosen": place, "curve": {name: list(map(asdict, points)) for name, points in curves.items()}}
        (folder / "curve.json").write_text(json.dumps(values | {"views": tried}, indent=2) + "\n", encoding="utf-8")
        points = {name: [(one.warm_cost, one.new) for one in found] for name, found in curves.items()}
        title = f"New items among the others, {config.student} on {data.name} ({data.split})"
        (folder / "curve.png").write_bytes(new_items_figure(points, dict.fromkeys(points, place), title))

    run.log_folder(MAP_FOLDER, write)


def reading_of(config: MapItemsConfig) -> dict[str, Any]:
    """How the LLM reads, where it does."""
    values = config.values()
    return {"llm_reading": values["llm_reading"]} if "llm_reading" in values else {}


def described(
    config: MapItemsConfig,
    data: SequenceData,
    source: Source,
    best: Candidate,
    metrics: Mapping[str, float],
    test: Outcome,
) -> str:
    """The run's description."""
    terms = best.mapped.new_item_map.terms
    by = "by the map that it was trained with" if terms is None else f"mapped from views {best.config.views}"
    text = (
        f"{config.student} of the {source.step} run {source.run.run_id} on {data.name} ({data.split}), new items {by}"
    )
    if terms is not None:
        text += f": the map explains {terms.explained:.0%} of item embeddings that it was not fitted to"
    if "test/new/ndcg_at_20" not in metrics:
        return f"{text}. Test has no new targets."
    among, chance = (metrics[f"test/new_among_new/{name}ndcg_at_20"] for name in ("", "chance_"))
    return (
        f"{text}. Test NDCG@20 of new targets {among:.4f} among the new (chance {chance:.4f}), "
        f"{metrics['test/new/ndcg_at_20']:.4f} in the whole catalogue; warm targets lose {test.warm_cost:.1%}."
    )
