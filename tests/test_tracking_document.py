"""`docs/TRACKING.md` against what the steps log on a tiny data set with a tiny LLM."""

import csv
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tiny_llm import write_tiny_llm
from workplace import new_store

from recdistill.config import (
    STEPS,
    AddItemsConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    MainConfig,
    MapItemsConfig,
    PromoteConfig,
    RecommendConfig,
    RetireItemsConfig,
    StudyConfig,
    SweepConfig,
    TeacherConfig,
    WorthConfig,
    changed,
    config_of,
    narrow,
    option_table,
)
from recdistill.config.lineage import own_options
from recdistill.config.steps import WITHOUT_RUN
from recdistill.registry import STUDENTS
from recdistill.runs.provenance import PACKAGE
from recdistill.runs.step_runs import REUSED, STEP, entry_run
from recdistill.runs.sweep_runs import PARENT
from recdistill.steps.add_items import add_items
from recdistill.steps.compare import compare
from recdistill.steps.evaluate import evaluate
from recdistill.steps.export import export
from recdistill.steps.main import main
from recdistill.steps.map_items import map_items
from recdistill.steps.promote import promote
from recdistill.steps.recommend import recommend
from recdistill.steps.retire_items import retire_items
from recdistill.steps.study import study
from recdistill.steps.sweep import sweep
from recdistill.steps.teacher import teacher
from recdistill.steps.worth import worth

DOCUMENT = PACKAGE.parent / "docs" / "TRACKING.md"
SECTIONS = ("Metrics", "Tags", "Artifacts", "Data sets", "Models")
OWN_TAGS = ("recdistill.", "mlflow.note.content")
#: Steps that show the options of the step they start from.
BEFORE = {"teacher": "backbone", "distill": "teacher", "export": "teacher", "map_items": "backbone"}
#: What a recommender has none of that is computed in closed form.
OF_TRAINING = ("train/", "system/", "best_epoch")
OF_GATE = ("gate/", "figures/gate")
SPACE = """\
objective: val/ndcg_at_20
seeds: 2
parameters:
  lam: {low: 0.0, high: 1.0}
"""
PLAN = """\
shared: {epochs: 1, hidden_size: 8, heads: 1, blocks: 1}
data:
  small: {dataset: csv, interactions: interactions.csv, items: items.csv}
students:
  sasrec: {student: sasrec}
seeds: [1]
rows:
  ids: {step: backbone}
"""


@dataclass
class Documented:
    """A section of the page: patterns of names, by step, and those of them that must be there."""

    allowed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    required: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def read_document() -> dict[str, Documented]:
    """The tables of the page."""
    sections: dict[str, Documented] = defaultdict(Documented)
    section = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        section = line[3:] if line.startswith("## ") else section
        if section not in SECTIONS or not line.startswith("| `"):
            continue
        names, steps = line.strip("|").split("|")[:2]
        for name in re.findall(r"`([^`]+)`", names):
            variants = [name.replace("<k>", k) for k in ("1", "5", "10", "20")] if "<k>" in name else [name]
            for step in (part.strip() for part in steps.split(",")):
                for one in STEPS if step.strip("()") == "all" else [step.strip("()")]:
                    sections[section].allowed[one] += variants
                    if "(" not in step:
                        sections[section].required[one] += variants
    return sections


def fits(name: str, pattern: str) -> bool:
    """Whether a logged name is one of the documented pattern."""
    return (
        re.fullmatch(re.sub(r"<[^>]+>", ".+", re.escape(pattern).replace(r"\<", "<").replace(r"\>", ">")), name)
        is not None
    )


def artifacts(run_id: str, folder: str | None = None) -> Iterator[str]:
    for found in MlflowClient().list_artifacts(run_id, folder):
        if found.is_dir:
            yield from artifacts(run_id, found.path)
        else:
            yield found.path


def artifact(run: Run, name: str) -> str:
    """The text of an artifact."""
    return mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}")


def logged(run: Run) -> dict[str, set[str]]:
    """The names in a run, by section."""
    models = [MlflowClient().get_logged_model(one.model_id).name for one in run.outputs.model_outputs]
    return {
        "Metrics": set(run.data.metrics),
        "Tags": {tag for tag in run.data.tags if tag.startswith(OWN_TAGS)},
        "Artifacts": set(artifacts(run.info.run_id)),
        "Data sets": {one.dataset.name for one in run.inputs.dataset_inputs},
        "Models": set(models),
    }


def write_data(folder: Path) -> None:
    """Twenty-five users, thirty items."""
    drawn = random.Random(0)
    with (folder / "items.csv").open("w") as file:
        csv.writer(file).writerows([("item", "title"), *((f"i{item}", f"Film {item}") for item in range(30))])
    with (folder / "interactions.csv").open("w") as file:
        rows = [
            (f"u{user}", f"i{item}", time)
            for user in range(25)
            for time, item in enumerate(drawn.sample(range(30), drawn.randint(5, 12)))
        ]
        csv.writer(file).writerows([("user", "item", "timestamp"), *rows])


def without_teacher(options: dict[str, object]) -> dict[str, object]:
    """The options that `map_items` has."""
    return {name: value for name, value in options.items() if name in option_table(MapItemsConfig)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Run]]:
    """A run or more of every step."""
    folder = tmp_path_factory.mktemp("project")
    patch = pytest.MonkeyPatch()
    patch.setenv("RECDISTILL_CACHE", str(folder / "cache"))
    patch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(new_store(folder))
    write_data(folder)
    write_tiny_llm(folder / "llm")
    small = {"epochs": 2, "hidden_size": 8, "heads": 1, "blocks": 1, "token_budget": 400, "tokens_per_batch": 200}
    small |= {"teacher_history": 3, "teacher_window": 8, "outputs_token_budget": 0, "sequence_embeddings": True}
    choosing = {"selection_policy": "random", "selection_fraction": 0.5, "refresh_interval": 1, "output_weight": 0.1}
    data = {"dataset": "csv", "interactions": "interactions.csv", "items": "items.csv", "llm": "llm"}
    with entry_run("main"):
        main(MainConfig(**data, **small, **choosing))
    with entry_run("evaluate"):
        evaluate(EvaluateConfig())
    with entry_run("teacher"):
        generative = changed(MainConfig(**data, **small), teacher="generative", candidates=5)
        written = teacher(narrow(generative, TeacherConfig))
    with entry_run("evaluate"):
        evaluate(EvaluateConfig(run_id=written.run_id, answer="likelihood"))
    (folder / "new.csv").write_text("item,title\nn1,Film 31\n")
    with entry_run("map_items"):
        mapped = map_items(MapItemsConfig(**without_teacher(data | small), views="tfidf"))
    with entry_run("add_items"):
        add_items(AddItemsConfig(model=mapped.run_id, items="new.csv"))
    (folder / "gone.csv").write_text("item\ni3\n")
    with entry_run("retire_items"):
        retire_items(RetireItemsConfig(model=mapped.run_id, items="gone.csv"))
    with entry_run("compare"):
        compare(CompareConfig(resamples=200))
    with entry_run("worth"):
        worth(WorthConfig(**data, **small, cheap_views=""))
    (folder / "plan.yaml").write_text(PLAN)
    with entry_run("study"):
        study(StudyConfig(plan="plan.yaml"))
    client = mlflow.MlflowClient()
    client.create_registered_model("films")
    for number in range(2):
        client.create_model_version("films", source=f"runs:/{mapped.run_id}/{number}", run_id=mapped.run_id)
    with entry_run("promote"):
        promote(PromoteConfig(name="films"))
    with entry_run("export"):
        export(ExportConfig(folder="exported"))
    newest = mlflow.search_runs(filter_string=f"tags.`{STEP}` = 'distill'", output_format="list")[0]
    if newest.outputs.model_outputs:
        (folder / "histories.jsonl").write_text('{"history": ["i3", "i4"]}')
        with entry_run("recommend"):
            recommend(RecommendConfig(histories="histories.jsonl"))
    (folder / "space.yaml").write_text(SPACE)
    with entry_run("sweep"):
        sweep(SweepConfig(**data, **small, space="space.yaml", trials=2, final_seeds=1))
    yield mlflow.search_runs(output_format="list")
    mlflow.set_tracking_uri(before)
    patch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_what_is_logged_is_documented_and_what_is_documented_is_logged(runs, section):
    documented = read_document()[section]
    for run in runs:
        step, names = run.data.tags[STEP], logged(run)[section]
        unknown = {name for name in names if not any(fits(name, one) for one in documented.allowed[step])}
        assert not unknown, f"{step} logs {sorted(unknown)}; write them into docs/TRACKING.md"
        if REUSED in run.data.tags or in_a_trial(run, runs):
            continue  # It keeps less.
        required = documented.required[step]
        untrained = OF_TRAINING if run.data.params.get("student") in STUDENTS.names(gradient=False) else ()
        if run.data.params.get("teacher") == "backbone":
            untrained = (*OF_TRAINING, *OF_GATE)
        assert not [name for name in names if name.startswith(untrained)]
        required = [one for one in required if not one.startswith(untrained)] if untrained else required
        missing = [one for one in required if not any(fits(name, one) for name in names)]
        assert not missing, f"docs/TRACKING.md says that {step} logs {missing}"


def in_a_trial(run: Run, runs: list[Run]) -> bool:
    """Whether it is a training of a trial."""
    trials = {one.info.run_id for one in runs if "recdistill.trial" in one.data.tags}
    return run.data.tags[STEP] != "trial" and bool({run.info.run_id, run.data.tags.get(PARENT)} & trials)


@pytest.mark.slow
def test_options_in_use_are_parameters_and_no_others(runs):
    by_id = {run.info.run_id: run for run in runs}
    for run in (run for run in runs if REUSED not in run.data.tags):
        step, params = run.data.tags[STEP], run.data.params
        if step == "trial":
            assert set(params) == {"lam"}
            continue
        kept = json.loads(artifact(run, "config.json"))
        # All that are in use: those of parts that are not chosen are not kept.
        assert config_of(STEPS[step], kept).values() == kept
        own = {name: str(value) for name, value in kept.items() if name in own_options(STEPS[step])}
        if step == "sweep":
            del own["lam"]  # which it searches
        assert {name: value for name, value in params.items() if "." not in name} == own
        before = {name: value for name, value in params.items() if "." in name}
        assert {name.partition(".")[0] for name in before} == ({BEFORE[step]} if step in BEFORE else set())
        for name, value in before.items():
            of, _, option = name.partition(".")
            assert by_id[run.data.tags[f"recdistill.{of}_run_id"]].data.params[option] == value


@pytest.mark.slow
def test_runs_of_a_sweep_have_the_documented_names(runs):
    table = DOCUMENT.read_text(encoding="utf-8").partition("\n## Sweeps\n")[2].partition("\n## ")[0]
    documented = re.findall(r"`([^`]+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    (parent,) = (run for run in runs if run.data.tags[STEP] == "sweep")
    nested = [run for run in runs if run.data.tags.get(PARENT) == parent.info.run_id]
    names = {parent.info.run_name, *(run.info.run_name for run in nested)}
    assert len(names) == 6
    assert {name.partition(" · ")[0] for name in names if name.startswith("trial")} == {"trial 0", "trial 1"}
    assert names >= {"best, seed 3", "default, seed 3", "undistilled, seed 3"}
    assert all(any(fits(name, one) for one in documented) for name in names)
    assert {run.data.tags["recdistill.state"] for run in nested} == {"complete"}


@pytest.mark.slow
def test_every_step_was_run(runs):
    assert {run.data.tags[STEP] for run in runs} >= set(STEPS) - {"recommend", "recommend_spark", *WITHOUT_RUN}


def test_every_documented_step_exists():
    named = {step for section in read_document().values() for step in section.allowed}
    assert named <= {*STEPS, "trial", "recommend"}
