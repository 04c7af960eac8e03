"""``worth``: what the LLM adds over cheap text and over ids, for trained, sparse and new items, and its price."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pandas as pd

from recdistill.config import (
    BaselineConfig,
    Config,
    DistillConfig,
    MainConfig,
    MapItemsConfig,
    StudentConfig,
    TeacherConfig,
    TrainingConfig,
    WorthConfig,
    changed,
    config_of,
    narrow,
)
from recdistill.config.teacher import has_llm, reads_llm
from recdistill.errors import InputError
from recdistill.runs.finished_runs import finished_run, linked_run, options_of_run, run_of
from recdistill.runs.run import PARENT, StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.steps.map_items import map_items
from recdistill.steps.side_by_side import trained_side_by_side
from recdistill.steps.student_start import student_start, whole_path_contents
from recdistill.steps.teacher import TEXT_TOKENS, check_teacher_of, teacher, teacher_run, wanted_teacher
from recdistill.steps.time_budget import within_time
from recdistill.students.training import check_student
from recdistill.study.terms import terms_of_rows
from recdistill.study.worth import (
    BOTH,
    CHEAP,
    FINAL,
    FINAL_TEXTS,
    FROZEN,
    IDS,
    TRAINED,
    UNTAUGHT,
    UNTAUGHT_FINAL,
    Asked,
    Price,
    ask,
    report,
)
from recdistill.training.device import device_of
from recdistill.training.distributed import Processes, join

#: Runs that are no rows of their own: the teacher, and the student that starts from cheap text before its new items are
#: mapped.
TEACHER, TEXTS = "teacher", "from cheap text"
#: The teacher without an LLM: the backbone of another.
ALONE = "backbone"
SPEED = "ms_per_1000_recommendations"
Runs = dict[str, StepRun]
Student = TypeVar("Student", bound=StudentConfig)


def worth(config: WorthConfig) -> StepRun:
    """Find or make the rows of each seed, and say what the LLM adds and costs."""
    check_seeds(config)
    data = data_of(config)
    config = within_time(config)
    with step_run("worth", config, data=data, contents=whole_path_contents(config, data)) as run:
        if not run.reused:
            rows = [rows_of(one, run.run_id) for one in each_seed(config)]
            text, asked = answer(rows, config, config.worth_margin)
            run.log_text("worth.md", text)
            run.log_metrics(numbers(asked))
            run.describe(text)
            for name, one in rows[0].items():
                run.tag(f"{name.replace(' + ', '_').replace(' ', '_')}_run_id", one.run_id)
    print(run.artifact("worth.md").read_text(encoding="utf-8"), flush=True)
    return run


def each_seed(config: WorthConfig) -> list[WorthConfig]:
    """The options of each seed's path; the draw of new items changes with the seed."""
    first, draw = config.seed, config.new_items_seed
    return [changed(config, seed=first + more, new_items_seed=draw + more) for more in range(config.seeds)]


def check_seeds(config: WorthConfig) -> None:
    """Raise InputError, before any work, where the path of a seed cannot be gone: what is named may be of one draw."""
    first, *others = each_seed(config)
    check_path(first)
    for one in others if config.backbone_run_id or config.teacher_files or config.init_from else ():
        try:
            check_path(one)
        except InputError as error:
            raise InputError(f"seeds={config.seeds}: for seed {one.seed}, {error}; or give seeds=1") from None


def check_path(config: MainConfig) -> None:
    """Raise InputError, before any work, where student, teacher or control of the options cannot be had."""
    data = data_of(config)
    check_student(config, data.num_items)
    check_teacher_of(config, data)
    check_control(config)
    if config.init_from:
        student_start(narrow(config, BaselineConfig, register=""), data)


def fitted_baseline(config: MainConfig, name: str, num_items: int) -> BaselineConfig:
    """The options of one of ``baselines``. Raises InputError where it cannot be fitted to so many items."""
    baseline = narrow(narrow(config, TrainingConfig), BaselineConfig, student=name)
    check_student(baseline, num_items)
    return baseline


def rows_of(config: MainConfig, run_id: str) -> Runs:
    """The run of each row, and the teacher's; those of other processes are nested in ``run_id``."""
    ids, student = narrow(config, BaselineConfig, register=""), narrow(config, DistillConfig, register="")
    if told := told_by_texts(config):
        texts = from_texts(ids, config.cheap_views)
        first, texts, _ = trained_side_by_side(lambda: backbone(ids), texts, run_id)
        found: Runs = {IDS: first, TEXTS: backbone(texts)}
        student = from_texts(student, config.cheap_views)
    else:
        found = {IDS: backbone(ids)}
    if not config.teacher_files:
        found[TEACHER] = teacher_run(narrow(config, DistillConfig))
        student = changed(student, teacher_run_id=found[TEACHER].run_id)
    control = control_of(config, student, found.get(TEACHER))
    if control is None:
        found[BOTH] = distill(student)
    else:
        maps = text_maps(config, found).values() if told else ()
        found[BOTH], control, _ = trained_side_by_side(lambda: distill(student), control, run_id, [*maps])
        found[UNTAUGHT] = distill(control)
        mark_control(found[UNTAUGHT], f"{config.student} {UNTAUGHT}")
    return found | (text_rows(config, found) if told else {})


def has_control(config: MainConfig) -> bool:
    """Whether a student is distilled from the SASRec alone: not where the teacher has no LLM, or is of files."""
    return config.control and not config.teacher_files and has_llm(taught_by(config))


def taught_by(config: DistillConfig) -> str:
    """The kind of the teacher that the options name."""
    if not config.teacher_run_id:
        return config.teacher
    return str(options_of_run(config.teacher_run_id, [TEACHER], "teacher_run_id")[2].get("teacher", config.teacher))


def check_control(config: MainConfig) -> None:
    """Raise InputError where the backbone of a teacher that is named, which the control learns from, is gone."""
    if config.teacher_run_id and has_control(config):
        try:
            linked_run(finished_run(config.teacher_run_id, TEACHER), "backbone")
        except InputError as error:
            raise InputError(
                f"control=true: needs the backbone of the teacher, {error}; or give control=false"
            ) from None


def without_llm(config: MainConfig, backbone_run_id: str) -> TeacherConfig:
    """The options of the control's teacher."""
    options = narrow(narrow(config, TrainingConfig), TeacherConfig, teacher=ALONE, backbone_run_id=backbone_run_id)
    # What students read of a teacher's answers is the same; of LLM and LoRA it has nothing.
    read = {"top_n": config.top_n, "sequence_embeddings": wanted_teacher(config).sequence_embeddings}
    return changed(options, token_budget=0, outputs_token_budget=0, **read)


def control_student(student: DistillConfig, alone: TeacherConfig) -> DistillConfig:
    """The options of the control: those of the LLM's student, but for the teacher, who answers all samples at once."""
    return changed(student, **alone.values(), teacher_run_id="", rounds=1, query_share=1.0, register="")


def control_of(
    config: MainConfig, student: DistillConfig, taught: StepRun | None, processes: Processes | None = None
) -> DistillConfig | None:
    """The options of a student like ``student`` that learns from the backbone of the teacher ``taught`` alone.

    The backbone answers for all training samples, at no price: `distill` has it answer. None where no such student is
    asked for. Several processes of a launch call it together.
    """
    processes = processes or join(device_of(config))
    if taught is None or not processes.from_main(lambda: has_control(config)):
        return None
    frozen = processes.from_main(lambda: linked_run(taught, "backbone"))
    alone = without_llm(config, frozen.run_id)
    if config.force:
        # `distill` would find it.
        teacher(alone)
    return control_student(student, alone)


def mark_control(student: StepRun, name: str) -> None:
    """Mark the runs of a control, its teacher's too, and name them; one that a person asked for stays as it is."""
    for run, called in ((linked_run(student, "teacher"), f"teacher {ALONE}"), (student, name)):
        if PARENT in run_of(run.run_id).data.tags:
            run.mark_control(called)


def told_by_texts(config: MainConfig) -> bool:
    """Whether some items are new, which cheap text tells of, and the student can have them (``output=tied``).

    Then the student starts from cheap text, distilled or not, for this is what an LLM must beat for every item.
    """
    return bool(config.cheap_views) and config.output == "tied" and bool(len(data_of(config).new_test))


def told_in_main(config: MainConfig) -> bool:
    """The same for ``main``, which asks only of items that it draws as new itself."""
    return bool(config.new_items) and told_by_texts(config)


def from_texts(config: Student, views: str) -> Student:
    """The options of the same student, its embeddings starting from cheap text where they start from none."""
    return config if config.starts_from_texts else changed(config, item_init="views", views=views)


def text_maps(config: MainConfig, found: Runs) -> dict[str, MapItemsConfig]:
    """The options of the rows whose new items come from their texts, of the undistilled student of cheap text."""
    cheap = config.cheap_views
    maps = {CHEAP: mapped(config, found[TEXTS], cheap)}
    if TEACHER in found and reads_llm((taught := options_of_teacher(found[TEACHER])).teacher):
        maps[FROZEN] = mapped(config, found[TEXTS], f"{cheap}+llm", view_llm=taught.llm)
    if TEACHER in found and teacher_outputs_of(found[TEACHER], data_of(config)).item_view is not None:
        maps[TRAINED] = mapped(config, found[TEXTS], f"{cheap}+teacher", teacher_run_id=found[TEACHER].run_id)
    return maps


def text_rows(config: MainConfig, found: Runs) -> Runs:
    """The rows whose new items come from their texts, of the students that start from texts in ``found``."""
    cheap, maps = config.cheap_views, text_maps(config, found)
    rows = {name: map_items(one) for name, one in maps.items()}
    if TRAINED in maps:
        options = {"teacher_run_id": found[TEACHER].run_id}
        rows[FINAL] = map_items(mapped(config, found[BOTH], f"{cheap}+teacher", **options))
    else:
        # Of files, and of a teacher that knows no item by its text.
        rows[FINAL_TEXTS] = map_items(mapped(config, found[BOTH], cheap))
    if UNTAUGHT in found:
        rows[UNTAUGHT_FINAL] = map_items(mapped(config, found[UNTAUGHT], cheap))
    return rows


def options_of_teacher(run: StepRun) -> TeacherConfig:
    """The options that a teacher was made with."""
    return config_of(TeacherConfig, options_of_run(run.run_id, [TEACHER])[2])


def mapped(config: MainConfig, student: StepRun, views: str, **options: str) -> MapItemsConfig:
    """Options that give a finished student new items by these views."""
    runs = {"student_run_id": student.run_id, "teacher_run_id": ""}
    return narrow(config, MapItemsConfig, **{"force": False, "register": "", "views": views} | runs | options)


def configs_that_read(config: MainConfig, rows: Runs) -> list[Config]:
    """The options of those rows that read language models."""
    found: list[Config] = [options_of_teacher(rows[TEACHER])] if TEACHER in rows else []
    return found + ([narrow(config, MapItemsConfig, views=config.cheap_views)] if CHEAP in rows else [])


def answer(rows: list[Runs], config: MainConfig, margin: float) -> tuple[str, list[Asked]]:
    """The report, and the questions that it answers."""
    # A teacher behind a server ranks no whole part, and is no row.
    names = [name for name in rows[0] if name not in (TEACHER, TEXTS)]
    ranks = {name: [pd.read_parquet(one[name].artifact("ranks") / "test.parquet") for one in rows] for name in names}
    asked = ask({name: [with_new(table) for table in tables] for name, tables in ranks.items()}, margin)
    if TEACHER in rows[0] and not has_llm(options_of_teacher(rows[0][TEACHER]).teacher):
        asked = [replace(one, of_llm=False, has_llm=False) for one in asked]
    return report(asked, price_of(rows), len(rows), terms_of_rows(configs_that_read(config, rows[0]))), asked


def with_new(ranks: pd.DataFrame) -> pd.DataFrame:
    """Ranks with the column of new items, which a table without new targets lacks."""
    return ranks if "rank_among_new" in ranks.columns else ranks.assign(rank_among_new=0)


def price_of(rows: list[Runs]) -> Price | None:
    """What the teacher cost in all rounds that it was asked, mean over seeds; None where its outputs are files."""
    if TEACHER not in rows[0]:
        return None
    spent = [cost_of(one[TEACHER], rounds_of(one[BOTH], one[TEACHER])) for one in rows]
    counts = [one.texts for one in spent]
    texts = [count for count in counts if count is not None]
    speeds = [one[TEACHER].metrics().get(SPEED) for one in rows]
    known = [speed for speed in speeds if speed is not None]
    unbounded = any(one.tokens == 0 for one in spent)
    return Price(
        tokens=0 if unbounded else round(statistics.fmean(one.tokens for one in spent)),
        seconds=statistics.fmean(one.seconds for one in spent),
        teacher_ms=statistics.fmean(known) if len(known) == len(speeds) else None,
        student_ms=statistics.fmean(one[BOTH].metrics().get(SPEED, 0.0) for one in rows),
        counted=not reads_llm(options_of_teacher(rows[0][TEACHER]).teacher),
        text_tokens=round(statistics.fmean(texts)) if len(texts) == len(counts) else None,
        frozen=reading_of_frozen(rows),
    )


def reading_of_frozen(rows: list[Runs]) -> tuple[int, float] | None:
    """LLM tokens and seconds of the vectors that the frozen LLM makes of the items' texts, mean over seeds.

    What its row reads beyond that of cheap text alone; None without that row.
    """
    if FROZEN not in rows[0] or CHEAP not in rows[0]:
        return None
    pairs = [(one[FROZEN].metrics(), one[CHEAP].metrics()) for one in rows]
    tokens, seconds = (
        statistics.fmean(frozen.get(name, 0.0) - cheap.get(name, 0.0) for frozen, cheap in pairs)
        for name in ("map/text_tokens", "map/text_seconds")
    )
    return round(tokens), max(0.0, seconds)


def rounds_of(student: StepRun, teacher: StepRun) -> list[StepRun]:
    """The runs of the further rounds in which the teacher of a distilled student was asked again.

    The first teacher, which was asked in no round, may be another run than ``teacher``, of the same results.
    """
    found, run = [], linked_run(student, TEACHER)
    while run.key != teacher.key and f"recdistill.{TEACHER}_run_id" in run_of(run.run_id).data.tags:
        found.append(run)
        run = linked_run(run, TEACHER)
    return found


@dataclass(frozen=True)
class Cost:
    """What a teacher and its further rounds cost.

    Attributes:
        tokens: LLM tokens of its budgets, or those that its server counted; 0 where one scored whatever there was.
        seconds: of training, scoring and reading the items' texts, or of its server.
        texts: LLM tokens of the items' texts, which no budget bounds; None where the run did not count them.
    """

    tokens: int
    seconds: float
    texts: int | None = 0


def cost_of(teacher: StepRun, rounds: Sequence[StepRun]) -> Cost:
    """What a teacher and its further rounds cost; the ranking of validation and test, which measures, is not in it."""
    options = [options_of_teacher(run) for run in (teacher, *rounds)]
    metrics = [run.metrics() for run in (teacher, *rounds)]
    if not reads_llm(options[0].teacher):
        tokens = sum(one.get(f"endpoint/{part}_tokens", 0.0) for one in metrics for part in ("prompt", "answer"))
        return Cost(round(tokens), sum(one.get("endpoint/seconds", 0.0) for one in metrics))
    # Further rounds do not read the texts again.
    read = metrics[0].get(TEXT_TOKENS)
    texts = None if read is None else round(read)
    seconds = sum(one.get("train_seconds", 0.0) + one.get("outputs_seconds", 0.0) for one in metrics)
    if not all(one.outputs_token_budget for one in options):
        return Cost(0, seconds, texts)
    learnt = options[0].token_budget + int(options[0].value("contrast_token_budget"))
    return Cost(learnt + sum(one.outputs_token_budget for one in options), seconds, texts)


def numbers(asked: list[Asked]) -> dict[str, float]:
    """Differences and p-values as metrics."""
    found: dict[str, float] = {}
    for one in asked:
        name = f"worth/{one.row}_over_{one.against}_{one.difference.part}".replace(" + ", "_").replace(" ", "_")
        found |= {f"{name}/difference": one.difference.difference, f"{name}/p_value": one.difference.adjusted}
    return found
