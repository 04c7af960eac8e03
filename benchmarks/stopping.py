"""How a student is trained and when it stops: the released recipe, averaged weights, a falling rate, a smoothed metric.

``python benchmarks/stopping.py --out stopping.jsonl`` trains each student once with each seed and each learning rate
schedule, to the end, and appends one JSON line a finished training: after each epoch the validation metrics of the
weights and of their averages. Averaging does not change what is trained, and a stopping rule is a function of the
validation metrics so far, so that one curve answers for all recipes. Test is measured of the weights that a recipe
keeps, after the training. Trainings that the file has are not done again; ``--table`` trains none.

It prints, for each student and recipe, mean and deviation over the seeds: of validation NDCG@20, by which recipes are
compared, and of test NDCG@20, which chooses nothing. Further options are those of ``distill``, as
``--split leave-one-out``; with ``--teacher_files FOLDER`` the students are distilled.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.config import BaselineConfig, DistillConfig, StudentConfig, changed, narrow
from recdistill.config.command_line import parse
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.distillation.teacher_answers import TeacherAnswers
from recdistill.registry import LOSS_TERMS
from recdistill.steps.inputs import data_of, imported_teacher
from recdistill.students.build import shape_of
from recdistill.students.measure import metrics_of, ranks_of
from recdistill.students.student import Student
from recdistill.students.training import student_plan
from recdistill.training.averaging import AveragedWeights, overwrite
from recdistill.training.device import device_of
from recdistill.training.fit import fit
from recdistill.training.recorder import NoRecorder
from recdistill.training.stopping import kept_epoch

STUDENTS = ("sasrec", "gru4rec", "caser")
SCHEDULES = ("constant", "cosine")
#: Decays of the averages that are measured; 0 for the weights themselves.
DECAYS = (0.0, 0.995, 0.998)
DECIDING, COMPARED, SHOWN = "val/ndcg_at_10", "val/ndcg_at_20", "test/ndcg_at_20"


@dataclass(frozen=True)
class Recipe:
    """A schedule, the decay of the averages, and the rule of `recdistill.training.stopping`."""

    schedule: str = "constant"
    ema_decay: float = 0.0
    patience: int = 8
    least_epochs: int = 0
    smoothing: int = 1

    def kept(self, curve: dict[str, list[float]]) -> tuple[int, int]:
        """The epoch kept of a curve, and the epochs trained."""
        return kept_epoch(
            curve[DECIDING], patience=self.patience, least_epochs=self.least_epochs, smoothing=self.smoothing
        )


def recipes() -> dict[str, Recipe]:
    """The released recipe, and each schedule with each average, to the end and by three stopping rules."""
    rules = {
        "patience 8": {"patience": 8},
        "patience 8, smoothed 3, least 15": {"patience": 8, "smoothing": 3, "least_epochs": 15},
        "patience 5, smoothed 3, least 15": {"patience": 5, "smoothing": 3, "least_epochs": 15},
        "to the end": {"patience": 0},
    }
    found = {}
    for schedule in SCHEDULES:
        for decay in DECAYS:
            for name, rule in rules.items():
                averaged = f"ema {decay}" if decay else "no average"
                found[f"{schedule}, {averaged}, {name}"] = Recipe(schedule, decay, **rule)
    return found


def trainings(arguments: argparse.Namespace, base: DistillConfig) -> Iterator[tuple[dict[str, Any], DistillConfig]]:
    """What to train, as (what names it, options), the first seeds of all students first."""
    for first in range(1, arguments.seeds + 1, arguments.group):
        for student in arguments.students:
            for seed in range(first, min(first + arguments.group, arguments.seeds + 1)):
                for schedule in arguments.schedules:
                    config = changed(base, student=student, seed=seed, schedule=schedule)
                    named = {"student": student, "seed": seed, "schedule": schedule, "epochs": config.epochs}
                    yield named | {"distilled": bool(base.teacher_files), "threads": torch.get_num_threads()}, config


def curves_of(config: StudentConfig, data: SequenceData, teacher: TeacherAnswers | None) -> dict[str, Any]:
    """Train to the end. Returns by the decay of the average the validation metrics of each epoch, and test metrics.

    The latter are of the epochs that a recipe keeps.
    """
    model, plan = student_plan(config, data, shape_of(config), teacher, NoRecorder())
    averages = {decay: AveragedWeights(plan.parameters, decay) for decay in DECAYS if decay}
    curves: dict[str, dict[str, list[float]]] = {str(decay): {DECIDING: [], COMPARED: []} for decay in DECAYS}
    weights: dict[str, list[dict[str, Tensor]]] = {str(decay): [] for decay in DECAYS}
    steps = count()

    def average(*_: Any) -> None:
        step = next(steps)
        for one in averages.values():
            one.update(step)

    def validate() -> dict[str, float]:
        for decay in DECAYS:
            with averages[decay].in_use() if decay else nullcontext():
                measured = measured_now(model, config, "val", data.validation)
                weights[str(decay)].append({name: one.detach().clone() for name, one in plan.parameters.items()})
            for name, values in curves[str(decay)].items():
                values.append(round(measured[name], 6))
        return {plan.metric: curves["0.0"][DECIDING][-1]}

    plan.optimizer.register_step_post_hook(average)
    recorder = NoRecorder()
    to_the_end = replace(plan, validate=validate, patience=0, ema_decay=0.0, checkpoint_seconds=1e9)
    fit(to_the_end, recorder.work / "student.safetensors", lambda metrics, epoch: None)
    tested: dict[str, dict[str, float]] = {str(decay): {} for decay in DECAYS}
    for decay, epoch in kept_of(curves, config.schedule):
        overwrite(plan.parameters, weights[decay][epoch])
        tested[decay][str(epoch)] = round(measured_now(model, config, "test", data.test)[SHOWN], 6)
    return {"curves": curves, "test": tested}


def kept_of(curves: dict[str, dict[str, list[float]]], schedule: str) -> set[tuple[str, int]]:
    """The decays and epochs that recipes of a schedule keep."""
    of_schedule = [one for one in recipes().values() if one.schedule == schedule]
    return {(str(one.ema_decay), one.kept(curves[str(one.ema_decay)])[0]) for one in of_schedule}


def measured_now(model: Student, config: StudentConfig, part: str, samples: Samples) -> dict[str, float]:
    """Metrics of a student as it is."""
    return metrics_of(part, ranks_of(model, samples, config.exclude_seen, device_of(config)))


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The finished trainings of the file; a line that a kill cut short is none."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


def print_table(lines: list[dict[str, Any]]) -> None:
    """A row for each student and recipe, those of the best mean validation first."""
    header = ["student", "distilled", "threads", "recipe", "seeds", COMPARED, SHOWN, "epochs trained"]
    for row in (header, ["---"] * len(header)):
        print(f"| {' | '.join(row)} |")
    grouped: dict[tuple[str, bool, int], list[dict[str, Any]]] = {}
    for one in lines:
        grouped.setdefault((one["student"], one["distilled"], one["threads"]), []).append(one)
    for group, of_group in sorted(grouped.items()):
        rows = []
        for name, recipe in recipes().items():
            decay = str(recipe.ema_decay)
            of = [one for one in of_group if one["schedule"] == recipe.schedule]
            if of:
                kept = [recipe.kept(one["curves"][decay]) for one in of]
                compared = [one["curves"][decay][COMPARED][at] for one, (at, _) in zip(of, kept, strict=True)]
                tested = [one["test"][decay].get(str(at), math.nan) for one, (at, _) in zip(of, kept, strict=True)]
                epochs = f"{statistics.mean(done for _, done in kept):.1f}"
                cells = [*map(str, group), name, str(len(of)), spread(compared), spread(tested), epochs]
                rows.append((statistics.mean(compared), cells))
        for _, cells in sorted(rows, key=lambda row: -row[0]):
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a finished training")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--group", type=int, default=3, help="seeds of each student before the next seeds of all")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS))
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="train nothing, print the table")
    arguments, rest = parser.parse_known_args()
    torch.set_num_threads(arguments.threads)
    base = parse(DistillConfig, "distill", rest)
    if not arguments.table:
        data = data_of(base)
        outputs = imported_teacher(base.teacher_files, data).outputs if base.teacher_files else None
        teacher = None if outputs is None else outputs.answers(base.candidate_topk)
        if teacher is not None and not base.parts_in_use_of(LOSS_TERMS):
            teacher = replace(teacher, sequence_embedding=None)
        for named, config in trainings(arguments, base):
            named = named | {"fingerprint": data.fingerprint}
            if any(named.items() <= one.items() for one in lines_of(arguments.out)):
                continue
            started = time.perf_counter()
            student = config if teacher is not None else narrow(config, BaselineConfig)
            found = named | curves_of(student, data, teacher) | {"seconds": round(time.perf_counter() - started, 1)}
            with arguments.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(f"{named}: {found['seconds']} s", flush=True)
    print_table(lines_of(arguments.out))


if __name__ == "__main__":
    main()
