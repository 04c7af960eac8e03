"""``worth``: what the LLM adds over cheap text and over ids, for trained, sparse and new items, and its price."""

import statistics
from collections.abc import Iterator
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
    WorthConfig,
    changed,
    config_of,
    narrow,
)
from recdistill.runs.finished_runs import options_of_run
from recdistill.runs.run import StepRun
from recdistill.runs.step_runs import step_run
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill
from recdistill.steps.inputs import data_of
from recdistill.steps.map_items import map_items
from recdistill.steps.side_by_side import trained_side_by_side
from recdistill.steps.teacher import check_teacher_of, teacher, wanted_teacher
from recdistill.steps.time_budget import within_time
from recdistill.students.training import check_student
from recdistill.study.terms import terms_of_rows
from recdistill.study.worth import BOTH, CHEAP, FINAL, FROZEN, IDS, TRAINED, Asked, Price, ask, report

#: Runs that are no rows of their own: the teacher, and the student that starts from cheap text before its new items are
#: mapped.
TEACHER, TEXTS = "teacher", "from cheap text"
Runs = dict[str, StepRun]
Student = TypeVar("Student", bound=StudentConfig)


def worth(config: WorthConfig) -> StepRun:
    """Find or make the rows of each seed, and say what the LLM adds and costs."""
    data = data_of(config)
    check_student(config, data.num_items)
    check_teacher_of(config, data)
    config = within_time(config)
    with step_run("worth", config, data=data) as run:
        if not run.reused:
            seeds = [changed(config, seed=seed, new_items_seed=draw) for seed, draw in seeds_of(config)]
            rows = [rows_of(one, run.run_id) for one in seeds]
            text, asked = answer(rows, config, config.worth_margin)
            run.log_text("worth.md", text)
            run.log_metrics(numbers(asked))
            run.describe(text)
            for name, one in rows[0].items():
                run.tag(f"{name.replace(' + ', '_').replace(' ', '_')}_run_id", one.run_id)
    print(run.artifact("worth.md").read_text(encoding="utf-8"), flush=True)
    return run


def seeds_of(config: WorthConfig) -> Iterator[tuple[int, int]]:
    """Seed and seed of the draw of new items."""
    for number in range(config.seeds):
        yield config.seed + number, config.new_items_seed + number


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
        found[TEACHER] = teacher(wanted_teacher(narrow(config, DistillConfig)))
        student = changed(student, teacher_run_id=found[TEACHER].run_id)
    found[BOTH] = distill(student)
    return found | (text_rows(config, found) if told else {})


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


def text_rows(config: MainConfig, found: Runs) -> Runs:
    """The rows whose new items come from their texts, of the students that start from texts in ``found``."""
    cheap = config.cheap_views
    rows = {CHEAP: map_items(mapped(config, found[TEXTS], cheap))}
    if config.teacher_files:
        return rows | {FINAL: map_items(mapped(config, found[BOTH], cheap))}
    taught = {"teacher_run_id": found[TEACHER].run_id}
    rows[FROZEN] = map_items(mapped(config, found[TEXTS], f"{cheap}+llm", view_llm=config.llm))
    rows[TRAINED] = map_items(mapped(config, found[TEXTS], f"{cheap}+teacher", **taught))
    rows[FINAL] = map_items(mapped(config, found[BOTH], f"{cheap}+teacher", **taught))
    return rows


def mapped(config: MainConfig, student: StepRun, views: str, **options: str) -> MapItemsConfig:
    """Options that give a finished student new items by these views."""
    runs = {"student_run_id": student.run_id, "teacher_run_id": ""}
    return narrow(config, MapItemsConfig, **{"force": False, "register": "", "views": views} | runs | options)


def configs_that_read(config: MainConfig, rows: Runs) -> list[Config]:
    """The options of those rows that read language models."""
    found: list[Config] = [narrow(config, TeacherConfig)] if TEACHER in rows else []
    return found + ([narrow(config, MapItemsConfig, views=config.cheap_views)] if CHEAP in rows else [])


def answer(rows: list[Runs], config: MainConfig, margin: float) -> tuple[str, list[Asked]]:
    """The report, and the questions that it answers."""
    # A teacher behind a server ranks no whole part, and is no row.
    names = [name for name in rows[0] if name not in (TEACHER, TEXTS)]
    ranks = {name: [pd.read_parquet(one[name].artifact("ranks") / "test.parquet") for one in rows] for name in names}
    asked = ask({name: [with_new(table) for table in tables] for name, tables in ranks.items()}, margin)
    return report(asked, price_of(rows), len(rows), terms_of_rows(configs_that_read(config, rows[0]))), asked


def with_new(ranks: pd.DataFrame) -> pd.DataFrame:
    """Ranks with the column of new items, which a table without new targets lacks."""
    return ranks if "rank_among_new" in ranks.columns else ranks.assign(rank_among_new=0)


def price_of(rows: list[Runs]) -> Price | None:
    """What the teacher cost, mean over seeds; None where teacher outputs came from files."""
    if TEACHER not in rows[0]:
        return None
    costs = [(one[TEACHER].metrics(), one[BOTH].metrics()) for one in rows]
    options = [config_of(TeacherConfig, options_of_run(one[TEACHER].run_id, [TEACHER])[2]) for one in rows]
    return Price(
        tokens=round(statistics.fmean(budget_of(one) for one in options)),
        seconds=statistics.fmean(t.get("train_seconds", 0.0) + t.get("outputs_seconds", 0.0) for t, _ in costs),
        teacher_ms=statistics.fmean(t.get("ms_per_1000_recommendations", 0.0) for t, _ in costs),
        student_ms=statistics.fmean(s.get("ms_per_1000_recommendations", 0.0) for _, s in costs),
    )


def budget_of(config: TeacherConfig) -> int:
    """LLM tokens that a teacher was allowed; 0 where it scored whatever there was."""
    if not config.outputs_token_budget:
        return 0
    return config.token_budget + config.outputs_token_budget + int(config.value("contrast_token_budget"))


def numbers(asked: list[Asked]) -> dict[str, float]:
    """Differences and p-values as metrics."""
    found: dict[str, float] = {}
    for one in asked:
        name = f"worth/{one.row}_over_{one.against}_{one.difference.part}".replace(" + ", "_").replace(" ", "_")
        found |= {f"{name}/difference": one.difference.difference, f"{name}/p_value": one.difference.adjusted}
    return found
