"""What a command would make and what it finds, and from a minute or a few of timing how long the rest takes here."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recdistill.config import (
    BaselineConfig,
    Config,
    DataConfig,
    DistillConfig,
    MainConfig,
    MapItemsConfig,
    StudentConfig,
    StudyConfig,
    SweepConfig,
    TeacherConfig,
    WorthConfig,
    changed,
    narrow,
)
from recdistill.config.durations import spoken
from recdistill.config.lineage import run_key
from recdistill.config.steps import WITHOUT_RUN
from recdistill.config.teacher import reads_llm
from recdistill.data.item_texts import item_texts
from recdistill.data.sequences import SequenceData
from recdistill.data.some_users import of_some_users
from recdistill.errors import InputError
from recdistill.plugins import load_plugins
from recdistill.registry import STUDENTS
from recdistill.release.released_students import read_released_sasrec
from recdistill.runs.finished_runs import check_data, find_finished, finished_run, linked_run
from recdistill.runs.run import FINGERPRINT, StepRun
from recdistill.runs.tracking_store import fault, num_experiments
from recdistill.steps.backbone import as_released, frozen_backbone, key_of_baseline
from recdistill.steps.distill import start_of, start_of_refit
from recdistill.steps.inputs import data_of, imported_teacher, teacher_outputs_of, texts_in_key
from recdistill.steps.map_items import Source, made_from, source_of, student_options, taught_view
from recdistill.steps.paces import pace_of_student, pace_of_teacher
from recdistill.steps.student_start import StudentStart, keys_of, measured, student_start
from recdistill.steps.teacher import check_teacher_of, known_teacher, texts_read, wanted_teacher
from recdistill.steps.time_budget import within_time
from recdistill.steps.worth import (
    check_path,
    check_seeds,
    control_student,
    each_seed,
    fitted_baseline,
    from_texts,
    has_control,
    told_by_texts,
    told_in_main,
    without_llm,
)
from recdistill.students.sasrec import SASRec
from recdistill.students.together import check_together
from recdistill.students.training import check_student
from recdistill.study.cells import cells_to_make, read_cell
from recdistill.study.contents import AtHand
from recdistill.study.plan import Cell, cells_named, read_plan
from recdistill.study.worth import UNTAUGHT
from recdistill.sweep.final_jobs import final_jobs
from recdistill.sweep.named_study import most_epochs
from recdistill.sweep.shipped import plan_path
from recdistill.sweep.space import base_config
from recdistill.sweep.space_file import read_space
from recdistill.sweep.study_run import Sweep, check_final, check_sweep
from recdistill.teachers.checks import check_teacher

#: What no pace has, as a text.
OF_EACH_RUN = "some seconds a run to start, log and draw"
UNTIMED = "not timed"
MIB_A_GIB = 1024


@dataclass(frozen=True)
class Part:
    """A run that a command needs.

    Attributes:
        name: what it makes.
        found: id of the finished run that answers; '' where it would be made.
        work: how much is to do, in words.
        seconds: about how long, at most; None where it was not timed.
        memory_mib: most memory, 0 where unknown.
        times: how often it is made.
        key: of the run, where another part may need the same one; a run is made once.
    """

    name: str
    found: str = ""
    work: str = ""
    seconds: float | None = None
    memory_mib: float = 0.0
    times: int = 1
    key: str = ""


@dataclass(frozen=True, eq=False)
class Before:
    """A teacher that a student learns from.

    Attributes:
        key: of its run; '' where only the step itself can tell.
        run: the finished one; None where it would be made.
    """

    key: str = ""
    run: StepRun | None = None


@dataclass(frozen=True)
class Estimate:
    """What a command would make.

    Attributes:
        step: its name.
        parts: the runs, in the order in which they are made.
        measured: seconds that the measurement took.
    """

    step: str
    parts: tuple[Part, ...]
    measured: float = 0.0

    @property
    def missing(self) -> tuple[Part, ...]:
        """The runs that would be made."""
        return tuple(part for part in self.parts if not part.found)

    @property
    def seconds(self) -> float:
        """Of all parts that were timed."""
        return sum(part.times * (part.seconds or 0.0) for part in self.missing)

    @property
    def memory_mib(self) -> float:
        """Most memory of a part."""
        return max((part.memory_mib for part in self.parts), default=0.0)

    def lines(self) -> list[str]:
        """As text, a line a part."""
        wide = max((len(part.name) for part in self.parts), default=0)
        lines = [f"  {part.name:{wide}}  {described(part)}".rstrip() for part in self.parts]
        if not self.parts:
            return [f"{self.step}: reads finished runs or files, and trains nothing"]
        if not self.missing:
            return [f"{self.step}: everything is finished", *lines]
        untimed = any(part.seconds is None for part in self.missing)
        total = f"about {spoken(self.seconds)} at most, and {OF_EACH_RUN}" if self.seconds else UNTIMED
        memory = f", {self.memory_mib / MIB_A_GIB:.1f} GiB of memory" if self.memory_mib else ""
        more = "; what is not timed comes on top" if untimed and self.seconds else ""
        here = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        return [f"{self.step}: {total}{memory}{more} (measured in {self.measured:.0f} s; {here})", *lines]


def described(part: Part) -> str:
    """A part in words."""
    if part.found:
        return f"finished, run {part.found}"
    often = f"{part.times:,} times " if part.times > 1 else ""
    taken = UNTIMED if part.seconds is None else spoken(part.times * part.seconds)
    return ", ".join(word for word in (f"{often}{part.work}".strip(), taken) if word)


def estimate(step: str, config: Config) -> Estimate:
    """What the step would make with these options. Raises InputError as the step does, before any work."""
    load_plugins(config.plugin)
    if isinstance(config, TeacherConfig):
        config = within_time(config)
    started = time.perf_counter()
    parts = tuple(each_once(parts_of(step, config)))
    return Estimate(step, parts, time.perf_counter() - started)


def each_once(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts but for those whose run an earlier one makes, as ``main``'s undistilled student is its backbone."""
    made: set[str] = set()
    for part in parts:
        if part.key not in made:
            yield part
        if part.key:
            made.add(part.key)


def announce(step: str, config: Config) -> Estimate:
    """Print and return the estimate."""
    found = estimate(step, config)
    print("\n".join(found.lines()), flush=True)
    return found


def estimate_alone(step: str, config: Config) -> Estimate:
    """``estimate=true``: the estimate in the step's place.

    Raises InputError where the step would refuse the options before any work, or its store as its run is opened.
    """
    if step not in WITHOUT_RUN:
        num_experiments()
    load_plugins(config.plugin)
    try:
        check_step(config)
        return announce(step, config)
    except Exception as error:
        said = fault(error)
        if said is None:
            raise
        raise said from error


def check_step(config: Config) -> None:
    """Raise InputError as the step does, before any work; runs that are named are looked at as they are estimated."""
    match config:
        case WorthConfig():
            check_seeds(config)
        case MainConfig():
            check_path(config)
        case DistillConfig():
            # A sweep's students are of its trials.
            if not isinstance(config, SweepConfig):
                check_student(config, data_of(config).num_items)
            if config.teacher_files or config.teacher_run_id or config.backbone_run_id:
                check_teacher_of(config, data_of(config))
        case TeacherConfig():
            check_teacher(config)
        case BaselineConfig() if not config.released:
            check_student(config, data_of(config).num_items)
        case StudyConfig():
            # It announces its own estimate.
            from recdistill.steps.study import check_cells

            check_cells(missing_cells(config))
        case _:
            return


def parts_of(step: str, config: Config) -> Iterator[Part]:
    """The runs that a step needs, those included that it makes itself."""
    match config:
        case WorthConfig():
            for one in each_seed(config):
                yield from path_parts(one, with_baselines=False)
        case MainConfig():
            yield from path_parts(config, with_baselines=True)
        case SweepConfig():
            yield from sweep_parts(config)
        case DistillConfig():
            yield from taught_parts(config)
        case TeacherConfig():
            yield from teacher_parts(config)[0]
        case BaselineConfig():
            yield from student_parts(config)
        case MapItemsConfig():
            yield from map_parts(config)
        case StudyConfig():
            yield from study_parts(config)
        case DataConfig() if step == "prepare":
            data = data_of(config)
            found = None if config.force else finished(run_key("prepare", config, data.fingerprint))
            yield Part("data", id_of(found), sizes(data), 1.0)
        case _:
            return


def sizes(data: SequenceData) -> str:
    """How large a data set is, in words."""
    evaluated = len(data.validation) + len(data.test)
    return f"{len(data.train):,} training samples, {evaluated:,} to rank, {data.num_items:,} items"


def finished(key: str, upstream: Mapping[str, StepRun] | None = None) -> StepRun | None:
    """The finished run with a key, that started from these runs where they are known; None where there is none."""
    found = find_finished(key, upstream)
    return None if found is None else StepRun(found.info.run_id, key, found.data.tags[FINGERPRINT], reused=True)


def id_of(run: StepRun | None) -> str:
    """Of a finished run; '' of one that is still to be made."""
    return "" if run is None else run.run_id


def path_parts(config: MainConfig, *, with_baselines: bool) -> Iterator[Part]:
    """The runs of ``main``."""
    if with_baselines:
        yield from parts_of("prepare", narrow(config, DataConfig))
        for name in config.baseline_names:
            # What cannot be fitted is left out.
            with suppress(InputError):
                yield student_part(fitted_baseline(config, name, data_of(config).num_items))
    plain, student = narrow(config, BaselineConfig, register=""), narrow(config, DistillConfig, register="")
    yield student_part(plain)
    told = told_in_main(config) if with_baselines else told_by_texts(config)
    if told:
        yield student_part(from_texts(plain, config.cheap_views))
    student = from_texts(student, config.cheap_views) if told else student
    parts, before = teacher_of_path(config)
    yield from parts
    yield from from_teacher(student, data_of(config), before)
    if has_control(config):
        yield control_part(config, student, before)
    if told:
        yield Part("new items by their texts", work="maps of students to the items' texts")


def control_part(config: MainConfig, student: DistillConfig, taught: Before) -> Part:
    """The student that learns from the teacher's SASRec: on a CPU it is trained beside the distilled one."""
    frozen = None if taught.run is None else linked_run(taught.run, "backbone")
    control = control_student(student, without_llm(config, id_of(frozen)))
    _, alone = teacher_parts(wanted_teacher(control))
    part = distilled_part(control, data_of(config), alone)
    return replace(part, name=f"{config.student} {UNTAUGHT}, seed {config.seed}")


def student_parts(config: BaselineConfig) -> Iterator[Part]:
    """An undistilled student; one that is refitted comes after the one that is measured."""
    if not config.refit:
        yield student_part(config)
        return
    data, first = data_of(config), student_part(measured(config))
    yield first
    yield refitted_part("backbone", config, data, first, {}, student_start(config, data))


def student_part(config: BaselineConfig) -> Part:
    """An undistilled student that is measured."""
    data = data_of(config)
    if config.released:
        model = read_released_sasrec(Path(config.released).expanduser())
        assert isinstance(model, SASRec)
        config = as_released(config, model)
    start = student_start(config, data)
    key = key_of_baseline(config, data.fingerprint, start)
    found = "" if config.force else id_of(finished(key, start.upstream))
    kind = " undistilled" if config.student in STUDENTS.names(gradient=True) else ""
    texts = " from texts" if config.starts_from_texts else ""
    name = f"{config.student}{kind}{texts}, seed {config.seed}"
    if found or config.released:
        return Part(name, found, "imported", None if not found else 0.0, key=key)
    pace = pace_of_student(config, data, distilled=False)
    if pace is None:
        return Part(name, work=f"closed form, {data.num_items:,} items", key=key)
    evaluated = len(data.validation) + len(data.test)
    seconds = pace.seconds(config.epochs, evaluated)
    return Part(name, work=training(config.epochs, data), seconds=seconds, key=key)


def refitted_part(
    step: str,
    config: StudentConfig,
    data: SequenceData,
    first: Part,
    upstream: Mapping[str, StepRun],
    start: StudentStart,
) -> Part:
    """The student of ``first`` trained again on all interactions, for the epochs that its validation chose."""
    name = f"{config.student} refitted, seed {config.seed}"
    if first.found and not config.force:
        before = {**upstream, **start.upstream, "refitted": finished_run(first.found, step)}
        found = finished(run_key(step, config, data.fingerprint, keys_of(before), start.contents), before)
        if found is not None:
            return Part(name, found.run_id)
    return Part(name, work=first.work or training(config.epochs, data), seconds=first.seconds)


def training(epochs: int, data: SequenceData) -> str:
    """A student's training in words."""
    return f"{epochs} epochs at most of {len(data.train):,} samples"


def teacher_of_path(config: DistillConfig) -> tuple[list[Part], Before]:
    """The teacher of ``main`` and ``worth``, as `teacher_run` has it; none of files."""
    if config.teacher_run_id:
        found = finished_run(config.teacher_run_id, "teacher", data_of(config).fingerprint)
        return [Part("teacher", found.run_id)], Before(found.key, found)
    if config.teacher_files:
        return [], of_files(config)
    return teacher_parts(changed(wanted_teacher(config), force=config.force))


def of_files(config: DistillConfig) -> Before:
    """The teacher that is read from files."""
    run = imported_teacher(config.teacher_files, data_of(config)).run
    return Before(run.key, run)


def teacher_parts(config: TeacherConfig) -> tuple[list[Part], Before]:
    """A teacher and, where both are missing, its backbone; and the teacher for what starts from it."""
    data = data_of(config)
    frozen: StepRun | None
    if config.backbone_run_id:
        named = finished_run(config.backbone_run_id, "backbone", data.fingerprint)
        frozen, before = named, named.key
    else:
        start = student_start(frozen_backbone(config), data)
        before = key_of_baseline(frozen_backbone(config), data.fingerprint, start)
        frozen = finished(before, start.upstream)
    key = run_key("teacher", config, data.fingerprint, {"backbone": before}, texts_read(config, data))
    found = None if config.force else finished(key, {} if frozen is None else {"backbone": frozen})
    if found is None:
        check_teacher(config)
        of_some_users(data, config.ranked_users)
    parts = [student_part(frozen_backbone(config))] if found is None and frozen is None else []
    return [*parts, teacher_part(config, data, id_of(found))], Before(key, found)


def teacher_part(config: TeacherConfig, data: SequenceData, found: str) -> Part:
    """A teacher, timed where it is missing."""
    server = config.value("endpoint_model") if "endpoint_model" in config.values() else ""
    name = f"teacher over {server or config.llm}"
    if not server and not reads_llm(config.teacher):
        return Part(f"teacher {config.teacher}", found, f"{len(data.train):,} samples to score at most")
    if found:
        return Part(name, found)
    pace = pace_of_teacher(config, data)
    if pace is None:
        return Part(name, work=f"{config.value('query_budget'):,} queries to a server at most")
    all_of_them = round(len(data.train) * pace.tokens_a_sample)
    scored = min(config.outputs_token_budget or all_of_them, all_of_them)
    samples = min(len(data.train), round(scored / pace.tokens_a_sample))
    work = (
        f"{config.token_budget:,} tokens to learn from, {scored:,} to score {samples:,} of {len(data.train):,} samples"
    )
    if (asked := of_some_users(data, config.ranked_users)) is not data:
        work += f", {len(asked.validation) + len(asked.test):,} samples of {config.ranked_users:,} users to rank"
    learnt = config.token_budget + int(config.values().get("contrast_token_budget", 0))
    return Part(name, work=work, seconds=pace.seconds(learnt, scored), memory_mib=pace.memory_mib)


def taught_parts(config: DistillConfig) -> Iterator[Part]:
    """A distilled student, and what it learns from: the teacher that `find_teacher` finds, or would make."""
    parts, before = found_teacher(config)
    yield from parts
    yield from from_teacher(config, data_of(config), before)


def found_teacher(config: DistillConfig) -> tuple[list[Part], Before]:
    """The teacher of a step that takes the newest that fits; none of files."""
    if config.teacher_files:
        return [], of_files(config)
    known = known_teacher(config, config.teacher_run_id, data_of(config))
    if known is not None:
        return [Part("teacher", known.run_id)], Before(known.key, known)
    return teacher_parts(wanted_teacher(config))


def from_teacher(config: DistillConfig, data: SequenceData, before: Before) -> Iterator[Part]:
    """A distilled student, and the further rounds in which its teacher is asked."""
    if config.rounds > 1:
        yield rounds_part(config, data)
        before = Before()
    if not config.refit:
        yield distilled_part(config, data, before)
        return
    first = distilled_part(measured(config), data, before)
    yield first
    known, start = before.run, start_from(config, data, before)
    if known is None or start is None:
        yield replace(first, name=f"{config.student} refitted, seed {config.seed}", found="")
    else:
        start = start_of_refit(config, data, start)
        yield refitted_part("distill", config, data, first, {"teacher": known}, start)


def rounds_part(config: DistillConfig, data: SequenceData) -> Part:
    """What each further round takes: a student, and the teacher's answers to what it asks."""
    student = distilled_part(changed(config, rounds=1), data, Before())
    if config.query_share < 1:
        return Part("further rounds", work="a student", seconds=student.seconds, times=config.rounds - 1)
    teacher = teacher_part(wanted_teacher(changed(config, rounds=1, token_budget=0, force=True)), data, "")
    timed = [one.seconds for one in (student, teacher) if one.seconds is not None]
    seconds = sum(timed) if len(timed) == 2 else None
    work = "a student, and answers to what it asks"
    return Part("further rounds", work=work, seconds=seconds, memory_mib=teacher.memory_mib, times=config.rounds - 1)


def start_from(config: DistillConfig, data: SequenceData, before: Before) -> StudentStart | None:
    """What a distilled student's training starts from; None where that is of a teacher that is still to be made."""
    if not config.starts_from_teacher:
        return student_start(config, data)
    if before.run is None:
        return None
    files = imported_teacher(config.teacher_files, data).outputs if config.teacher_files else None
    return start_of(config, data, before.run, files or teacher_outputs_of(before.run, data))


def distilled_part(config: DistillConfig, data: SequenceData, before: Before) -> Part:
    """A distilled student, timed where it is missing."""
    name = f"{config.student} distilled, seed {config.seed}"
    start = start_from(config, data, before)
    if before.key and start is not None and not config.force:
        runs = start.upstream | ({} if before.run is None else {"teacher": before.run})
        keys = {"teacher": before.key} | keys_of(start.upstream)
        found = finished(run_key("distill", config, data.fingerprint, keys, start.contents), runs)
        if found is not None:
            return Part(name, found.run_id)
    pace = pace_of_student(config, data, distilled=True)
    assert pace is not None
    evaluated = len(data.validation) + len(data.test)
    return Part(name, work=training(config.epochs, data), seconds=pace.seconds(config.epochs, evaluated))


def map_parts(config: MapItemsConfig) -> Iterator[Part]:
    """New items in a finished student, and the student where it is not named."""
    config, source = source_of(config)
    data, name, work = data_of(config), "new items by their texts", "a map of the student to the items' texts"
    if source is not None:
        check_data(source.run, data.fingerprint, f"student_run_id={source.run.run_id}")
        there = True
    else:
        student = student_part(student_options(config))
        yield student
        run, there = StepRun(student.found, student.key, data.fingerprint, reused=True), bool(student.found)
        source = Source(run, "backbone", {})
    texts = item_texts(data.titles, data.item_columns, config.item_text, config.text_template)
    teacher = taught_view(config, source, data, texts)
    upstream, contents = made_from(config, data, source, teacher, texts)
    key = run_key("map_items", config, data.fingerprint, keys_of(upstream), contents)
    yield Part(name, id_of(finished(key, upstream)) if there and not config.force else "", work)


def sweep_parts(config: SweepConfig) -> Iterator[Part]:
    """A sweep's teacher, or those of its trials, its trials and final trainings."""
    space = read_space(config.space)
    base = base_config(space, config)
    sweep = Sweep(config, space, base, "", "")
    check_sweep(sweep)
    check_final(sweep, check_together)
    data, times = data_of(base), config.trials * space.seeds
    if not sweep.searches_teacher:
        yield from found_teacher(base)[0]
    else:
        *frozen, taught = teacher_parts(changed(wanted_teacher(base), force=True))[0]
        yield from frozen
        yield replace(taught, name=f"{taught.name}, one a trial at most", times=times)
    trials, epochs = pace_of_student(base, data, distilled=True), most_epochs(space, base)
    seconds = None if trials is None else trials.epoch_seconds * epochs / config.jobs
    work = f"trainings of {epochs} epochs at most, before any is pruned"
    yield Part(f"{config.trials} trials", work=work, seconds=seconds, times=times)
    if config.final_seeds:
        work, times = "final trainings: best, default and undistilled", 3 * config.final_seeds
        if seconds is not None:
            seconds *= config.jobs / final_jobs(config, times)
        yield Part(f"{config.final_seeds} seeds each", work=work, seconds=seconds, times=times)


def missing_cells(config: StudyConfig) -> list[Cell]:
    """The cells of a plan that the command would make."""
    cells = cells_named(read_plan(plan_path(config.plan), config.plan), config.cells)
    at_hand = AtHand(data_of, texts_in_key)
    missing = cells_to_make(cells, Path(config.results).expanduser(), at_hand, force=config.force)
    return missing if config.most_cells < 0 else missing[: config.most_cells]


def study_parts(config: StudyConfig) -> Iterator[Part]:
    """The missing cells of a plan by row, timed by the finished cells of the row."""
    folder, taken = Path(config.results).expanduser(), defaultdict(list)
    for cell in read_plan(plan_path(config.plan)).cells:
        done = read_cell(folder, cell)
        if done is not None and done.seconds:
            taken[cell.row].append(done.seconds)
    for row, count in Counter(cell.row for cell in missing_cells(config)).items():
        known = taken.get(row)
        seconds = sum(known) / len(known) / config.jobs if known else None
        yield Part(f"row {row}", work="a cell", seconds=seconds, times=count)
