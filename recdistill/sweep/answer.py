"""The answer of a sweep: the best trials, their options as a command and a file, figures and the final comparison."""

import csv
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from recdistill.config import Config, DistillConfig, StudentConfig, SweepConfig, changed, narrow, option_table
from recdistill.config.option import spoken
from recdistill.runs.compared_runs import place_of
from recdistill.runs.step_runs import StepRun
from recdistill.runs.sweep_runs import log_values
from recdistill.sweep import final_comparison
from recdistill.sweep.best_trials import best_trials
from recdistill.sweep.figures import write_figures
from recdistill.sweep.final_comparison import Row
from recdistill.sweep.final_jobs import final_jobs
from recdistill.sweep.page import noise_of, sweep_page
from recdistill.sweep.space import Space, Value
from recdistill.sweep.trainings import Final, FinalTraining, Trained
from recdistill.sweep.workers import bars_on_terminals, map_tasks

#: The page with all of it.
REPORT = "report.html"
#: A configuration is the same with another seed, and with other runs of the steps before.
NOT_CONFIGURATION = ("seed", "upstream")
#: Runs that the sweep's trainings start from, and so does the command that it ends with.
STARTED_FROM = ("teacher_run_id", "backbone_run_id", "init_from")
#: What the answer says of serving: a sweep keeps no model, and promotes nothing by itself.
SERVED = (
    "To serve it: that command with `-P register=NAME`, once a seed, makes its versions; "
    "`recdistill promote --name NAME` makes the best on validation the champion, where a paired test finds it better "
    "than the present one."
)

Together = Callable[[Sequence[int], Callable[[int, Any], Trained]], list[Trained]]


@dataclass(frozen=True)
class Finals:
    """How the final trainings are made.

    Attributes:
        training: does one.
        with_teacher: the options with the run of their teacher, found or made.
        prepare: called first in each worker process.
        together: gives ``train(position, member)`` of so many seeds that train together.
    """

    training: FinalTraining
    with_teacher: Callable[[DistillConfig], DistillConfig]
    prepare: Callable[[], None]
    together: Together | None = None

    def trained(self, config: SweepConfig, tasks: list[Final]) -> list[Trained]:
        """What the final trainings give: with ``final_together`` the seeds of each configuration train together."""
        if not config.final_together:
            return map_tasks(self.training, tasks, final_jobs(config, len(tasks)), self.prepare)
        with bars_on_terminals():
            groups = [list(group) for _, group in groupby(tasks, key=lambda task: task.name)]
            return [result for group in groups for result in self.trained_together(group)]

    def trained_together(self, group: list[Final]) -> list[Trained]:
        """What the seeds of a configuration give; a single one has the key of a seed alone."""
        if len(group) == 1 or self.together is None:
            return [self.training(task) for task in group]
        seeds = [task.config.seed for task in group]
        return self.together(seeds, lambda place, member: self.training(group[place], member))


def write_answer(
    config: SweepConfig, space: Space, base: DistillConfig, study: Study, run: StepRun, finals: Finals
) -> None:
    """Log figures, best values, and the final comparison on the sweep's run.

    Raises InputError where no trial is complete.
    """
    best = best_trials(study, space)
    chosen = changed(base, **best[0].params)
    run.log_folder("figures", lambda folder: draw(folder, study, space))
    log_trials(run, space, study)
    run.log_metrics({o.metric: value for o, value in zip(space.objectives, best[0].values, strict=True)})
    for name, value in {"trial": best[0].number, **best[0].params}.items():
        run.tag(f"best.{name}", value)
    # A searched option is named even where its default was best.
    given = {name: getattr(base, name) for name in STARTED_FROM if getattr(base, name)}
    # Of a pair that was searched, the one that nothing reads beside the other is refused where it is given alone.
    unread = chosen.switched_off()
    params = {name: value for name, value in best[0].params.items() if name not in unread}
    options = options_of(changed(chosen, force=False)) | params | given
    texts = {"best.yaml": as_yaml(options), "command.txt": command(options) + "\n"}
    if len(space.objectives) > 1:
        texts["pareto.csv"] = front(best, space)
    rows: list[Row] = []
    gained: dict[str, final_comparison.Gain] = {}
    if config.final_seeds:
        rows = final_rows(config, space, base, chosen, finals)
        gained = final_comparison.gains(rows, space, base.seed)
        texts["table.md"] = final_comparison.table(rows, space, gained)
        texts["table.json"] = final_comparison.as_json(rows, space, gained)
        run.log_metrics(final_comparison.summary(rows, space))
    said = "\n".join(texts[name] for name in ("pareto.csv", "table.md", "command.txt") if name in texts)
    said += f"\n{SERVED}\n"
    run.log_folder("answer", lambda folder: write_texts(folder, texts | {"said.md": said}))
    run.log_text(REPORT, sweep_page(study, space, rows, gained, texts["command.txt"], noise_of(rows, space)))
    run.describe(said)
    print(f"{said}\nthe report: {place_of(run, REPORT)}", flush=True)


def final_rows(
    config: SweepConfig, space: Space, base: DistillConfig, chosen: DistillConfig, finals: Finals
) -> list[Row]:
    """The best, the default and the undistilled student, trained with each of the final seeds."""
    # Not the seeds of the trials, which the best was chosen by.
    first = base.seed + space.seeds
    seeds = range(first, first + config.final_seeds)
    # The seeds are the students': each configuration keeps one teacher.
    default, best = finals.with_teacher(base), finals.with_teacher(chosen)
    plain = narrow(chosen, StudentConfig)
    named: list[tuple[str, StudentConfig]] = [("best", best), ("undistilled", plain)]
    if not config.force or best != default:
        # By force each is trained anew: a configuration would be held against itself.
        named.insert(1, ("default", default))
    tasks = [Final(name, changed(options, seed=seed)) for name, options in named for seed in seeds]
    results = finals.trained(config, tasks)
    by_name = {name: [r for t, r in zip(tasks, results, strict=True) if t.name == name] for name, _ in named}
    by_name.setdefault("default", by_name["best"])
    return [Row(name, by_name[name]) for name in ("best", "default", "undistilled")]


def log_trials(run: StepRun, space: Space, study: Study) -> None:
    """Log each objective by trial number, and where there is one, the best so far."""
    curves: dict[str, list[tuple[int, float]]] = {}
    best: float | None = None
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.COMPLETE:
            continue
        for objective, value in zip(space.objectives, trial.values, strict=True):
            curves.setdefault(f"trials/{objective.metric}", []).append((trial.number, value))
            if len(space.objectives) == 1:
                better = max if objective.direction == "maximize" else min
                best = value if best is None else better(best, value)
                curves.setdefault("trials/best", []).append((trial.number, best))
    log_values(run.run_id, curves)


def options_of(config: Config) -> dict[str, Value]:
    """The options that make a configuration: those that differ from their defaults, but seeds and upstream runs.

    Nor what nothing reads.
    """
    table, unread = option_table(type(config)), config.switched_off()
    return {
        name: value
        for name, value in config.values().items()
        if table[name].role not in NOT_CONFIGURATION and value != table[name].default and name not in unread
    }


def command(options: Mapping[str, Value]) -> str:
    """The command that trains a student with these options."""
    begin = "mlflow run . -e distill --env-manager local --experiment-name recdistill"
    return " ".join([begin, *(f"-P {n}={text(v)}" for n, v in options.items())])


def text(value: Value) -> str:
    """A value as an option: exact, and quoted where a shell would split it."""
    return shlex.quote(spoken(value))


def as_yaml(options: Mapping[str, Value]) -> str:
    """The options, one a line."""
    return str(yaml.safe_dump(dict(options), sort_keys=False))


def front(trials: Sequence[FrozenTrial], space: Space) -> str:
    """CSV: a line a trial, its objectives and its values."""
    names = [parameter.name for parameter in space.parameters]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", *(objective.metric for objective in space.objectives), *names])
    for trial in trials:
        writer.writerow([trial.number, *(trial.values or []), *(trial.params.get(name, "") for name in names)])
    return file.getvalue()


def draw(folder: Path, study: Study, space: Space) -> None:
    """Draw the figures into a folder."""
    write_figures(folder, study, space)


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files of these names and contents."""
    folder.mkdir(parents=True)
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8")
