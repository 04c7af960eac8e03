"""What a command would make and what it finds, and from a minute or a few of timing how long the rest takes here."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recdistill.config import (
    BaselineConfig,
    Config,
    DataConfig,
    DistillConfig,
    MainConfig,
    StudyConfig,
    SweepConfig,
    TeacherConfig,
    WorthConfig,
    changed,
    narrow,
)
from recdistill.config.durations import spoken
from recdistill.config.lineage import run_key
from recdistill.config.teacher import reads_llm
from recdistill.data.sequences import SequenceData
from recdistill.data.some_users import of_some_users
from recdistill.plugins import load_plugins
from recdistill.registry import STUDENTS
from recdistill.runs.finished_runs import find_finished, run_of
from recdistill.runs.run import KEY
from recdistill.steps.backbone import frozen_backbone, key_of_baseline
from recdistill.steps.inputs import data_of
from recdistill.steps.paces import pace_of_student, pace_of_teacher
from recdistill.steps.student_start import keys_of, student_start
from recdistill.steps.teacher import texts_read, wanted_teacher
from recdistill.steps.time_budget import within_time
from recdistill.steps.worth import (
    control_student,
    from_texts,
    has_control,
    told_by_texts,
    told_in_main,
    without_llm,
)
from recdistill.study.cells import read_cell
from recdistill.study.plan import cells_named, read_plan
from recdistill.study.worth import UNTAUGHT
from recdistill.sweep.final_jobs import final_jobs
from recdistill.sweep.shipped import plan_path
from recdistill.sweep.space_file import read_space

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


def parts_of(step: str, config: Config) -> Iterator[Part]:
    """The runs that a step needs, those included that it makes itself."""
    match config:
        case WorthConfig():
            for offset in range(config.seeds):
                seed = {"seed": config.seed + offset, "new_items_seed": config.new_items_seed + offset}
                yield from path_parts(changed(config, **seed), with_baselines=False)
        case MainConfig():
            yield from path_parts(config, with_baselines=True)
        case SweepConfig():
            yield from sweep_parts(config)
        case DistillConfig():
            yield from taught_parts(config)
        case TeacherConfig():
            yield from teacher_parts(config)
        case BaselineConfig():
            yield student_part(config)
        case StudyConfig():
            yield from study_parts(config)
        case DataConfig() if step == "prepare":
            data = data_of(config)
            yield Part("data", finished(run_key("prepare", config, data.fingerprint)), sizes(data), 1.0)
        case _:
            return


def sizes(data: SequenceData) -> str:
    """How large a data set is, in words."""
    evaluated = len(data.validation) + len(data.test)
    return f"{len(data.train):,} training samples, {evaluated:,} to rank, {data.num_items:,} items"


def finished(key: str) -> str:
    """Id of the finished run with a key; '' where there is none."""
    found = find_finished(key)
    return "" if found is None else str(found.info.run_id)


def path_parts(config: MainConfig, *, with_baselines: bool) -> Iterator[Part]:
    """The runs of ``main``."""
    if with_baselines:
        yield from parts_of("prepare", narrow(config, DataConfig))
        for name in config.baseline_names:
            yield student_part(changed(frozen_backbone(config), student=name))
    plain, student = narrow(config, BaselineConfig, register=""), narrow(config, DistillConfig, force=config.force)
    yield student_part(plain)
    told = told_in_main(config) if with_baselines else told_by_texts(config)
    if told:
        yield student_part(from_texts(plain, config.cheap_views))
    student = from_texts(student, config.cheap_views) if told else student
    yield from taught_parts(student)
    if has_control(config):
        yield control_part(config, student)
    if told:
        yield Part("new items by their texts", work="maps of students to the items' texts")


def control_part(config: MainConfig, student: DistillConfig) -> Part:
    """The student that learns from the teacher's SASRec: on a CPU it is trained beside the distilled one."""
    data, backbone_run_id = data_of(config), config.backbone_run_id
    if config.teacher_run_id:
        backbone_run_id = run_of(config.teacher_run_id).data.tags.get("recdistill.backbone_run_id", "")
    alone = without_llm(config, backbone_run_id)
    upstream, _ = teacher_key(alone, data)
    part = distilled_part(control_student(student, alone), data, upstream)
    return replace(part, name=f"{config.student} {UNTAUGHT}, seed {config.seed}")


def student_part(config: BaselineConfig) -> Part:
    """An undistilled student."""
    data = data_of(config)
    key = key_of_baseline(config, data.fingerprint, student_start(config, data))
    found = "" if config.force else finished(key)
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


def training(epochs: int, data: SequenceData) -> str:
    """A student's training in words."""
    return f"{epochs} epochs at most of {len(data.train):,} samples"


def teacher_parts(config: TeacherConfig) -> Iterator[Part]:
    """A teacher and, where it is missing, its backbone."""
    data = data_of(config)
    key, backbone = teacher_key(config, data)
    found = "" if config.force else finished(key)
    if not found and not config.backbone_run_id:
        yield student_part(backbone)
    yield teacher_part(config, data, found)


def teacher_key(config: TeacherConfig, data: SequenceData) -> tuple[str, BaselineConfig]:
    """The key of the teacher that the options name, and the options of its backbone."""
    backbone = frozen_backbone(config)
    if config.backbone_run_id:
        before = run_of(config.backbone_run_id).data.tags.get(KEY, config.backbone_run_id)
    else:
        before = key_of_baseline(backbone, data.fingerprint)
    return run_key("teacher", config, data.fingerprint, {"backbone": before}, texts_read(config, data)), backbone


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
    """A distilled student, and what it learns from."""
    data = data_of(config)
    upstream = ""
    if config.teacher_run_id:
        upstream = run_of(config.teacher_run_id).data.tags.get(KEY, config.teacher_run_id)
        yield Part("teacher", config.teacher_run_id)
    elif not config.teacher_files:
        wanted = changed(wanted_teacher(config), force=config.force)
        upstream, _ = teacher_key(wanted, data)
        yield from teacher_parts(wanted)
    if config.rounds > 1:
        yield rounds_part(config, data)
        upstream = ""
    yield distilled_part(config, data, upstream)


def rounds_part(config: DistillConfig, data: SequenceData) -> Part:
    """What each further round takes: a student, and the teacher's answers to what it asks."""
    student = distilled_part(changed(config, rounds=1), data, "")
    if config.query_share < 1:
        return Part("further rounds", work="a student", seconds=student.seconds, times=config.rounds - 1)
    teacher = teacher_part(wanted_teacher(changed(config, rounds=1, token_budget=0, force=True)), data, "")
    timed = [one.seconds for one in (student, teacher) if one.seconds is not None]
    seconds = sum(timed) if len(timed) == 2 else None
    work = "a student, and answers to what it asks"
    return Part("further rounds", work=work, seconds=seconds, memory_mib=teacher.memory_mib, times=config.rounds - 1)


def distilled_part(config: DistillConfig, data: SequenceData, upstream: str) -> Part:
    """A distilled student, timed where it is missing."""
    name = f"{config.student} distilled, seed {config.seed}"
    # Vectors of a teacher that is still to be made cannot be read.
    found = ""
    if upstream and not config.force and not config.starts_from_teacher:
        start = student_start(config, data)
        before = {"teacher": upstream} | keys_of(start.upstream)
        found = finished(run_key("distill", config, data.fingerprint, before, start.contents))
    if found:
        return Part(name, found)
    pace = pace_of_student(config, data, distilled=True)
    assert pace is not None
    evaluated = len(data.validation) + len(data.test)
    return Part(name, work=training(config.epochs, data), seconds=pace.seconds(config.epochs, evaluated))


def sweep_parts(config: SweepConfig) -> Iterator[Part]:
    """A sweep's teacher, trials and final trainings."""
    space = read_space(config.space)
    student = narrow(config, DistillConfig)
    # The student itself is the trials'.
    yield from list(taught_parts(student))[:-1]
    trials = pace_of_student(student, data_of(config), distilled=True)
    seconds = None if trials is None else trials.epoch_seconds * config.epochs / config.jobs
    work = f"trainings of {config.epochs} epochs at most, before any is pruned"
    yield Part(f"{config.trials} trials", work=work, seconds=seconds, times=config.trials * space.seeds)
    if config.final_seeds:
        work, times = "final trainings: best, default and undistilled", 3 * config.final_seeds
        if seconds is not None:
            seconds *= config.jobs / final_jobs(config, times)
        yield Part(f"{config.final_seeds} seeds each", work=work, seconds=seconds, times=times)


def study_parts(config: StudyConfig) -> Iterator[Part]:
    """The missing cells of a plan by row, timed by the finished cells of the row."""
    plan = read_plan(plan_path(config.plan))
    folder = Path(config.results).expanduser()
    missing: dict[str, int] = {}
    taken: dict[str, list[float]] = {}
    wanted = {cell.name for cell in cells_named(plan, config.cells)}
    for cell in plan.cells:
        done = read_cell(folder, cell)
        if done is None and cell.name in wanted:
            missing[cell.row] = missing.get(cell.row, 0) + 1
        elif done is not None and done.seconds:
            taken.setdefault(cell.row, []).append(done.seconds)
    for row, count in missing.items():
        known = taken.get(row)
        seconds = sum(known) / len(known) / config.jobs if known else None
        yield Part(f"row {row}", work="a cell", seconds=seconds, times=count)
