"""Kill commands at random moments, start each again, and check that it ends as one that was never disturbed.

``python benchmarks/kill_campaign.py`` (``--help``) draws the moments by its seed, from every pair of a case (below) and
a fault: SIGKILL, SIGTERM, a disk that is full from then on, a folder of artifacts that is read-only from then on. For
each it starts the command with that fault (`faulty_process.py`), starts the same command again without one, and checks:

- the second start ends with status 0, and the finished runs of the step have the metrics of the undisturbed command;
- no run is left RUNNING, and no write waits on disk;
- every artifact of a finished run is there and can be read;
- no checkpoint is left.

``--write docs/RELIABILITY.md`` puts the table between that page's two marks. One line of JSON last: ``moments`` and how
many of them ``failed``; the exit status is 1 where one did. Data and LLM are tiny: a moment takes seconds.
"""

import argparse
import itertools
import json
import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from safetensors import safe_open

PROJECT = Path(__file__).resolve().parents[1]
MARKS = ("<!-- kill_campaign.py writes from here -->", "<!-- to here -->")
FAULTS = ("SIGKILL", "SIGTERM", "full disk", "read-only artifacts")
SECONDS = 900
USERS, ITEMS = 30, 40

TEACHER = {
    "token_budget": 8000, "tokens_per_batch": 200, "teacher_window": 12, "teacher_history": 4, "lora_dropout": 0.1,
    "top_n": 10,
}  # fmt: skip
STUDENT = {"epochs": 10, "patience": 10, "hidden_size": 16, "blocks": 1, "max_length": 12, "batch_size": 64}
SWEEP = {"space": "space.yaml", "trials": 3, "final_seeds": 1}
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command, and the part of its work that is disturbed.

    Attributes:
        name: of the part.
        step: of the command.
        options: beside those of data and LLM.
        at: texts; a moment is before a write to a path that holds one of them.
        before: steps that the command starts from, made first and undisturbed.
        processes: of the command's launch.
        tolerance: greatest relative difference of a metric: on two processes sums round by their order.
    """

    name: str
    step: str
    options: dict[str, Any]
    at: tuple[str, ...]
    before: tuple[str, ...] = ()
    processes: int = 1
    tolerance: float = 0.0


#: Add a case here: everything else follows.
CASES = (
    Case("teacher, training", "teacher", TEACHER, ("/teacher.",), ("backbone",)),
    Case("teacher, scoring", "teacher", TEACHER, ("/outputs/",), ("backbone",)),
    Case("teacher, logging", "teacher", TEACHER, ("/mlruns/",), ("backbone",)),
    Case("teacher on two processes", "teacher", TEACHER, ("/teacher.", "/outputs/", "/mlruns/"), ("backbone",), 2),
    Case("distillation, training", "distill", STUDENT, ("/student.",), ("backbone", "teacher")),
    Case("distillation, logging", "distill", STUDENT, ("/mlruns/",), ("backbone", "teacher")),
    Case("sweep", "sweep", STUDENT | SWEEP, ("/student.", "/mlruns/"), ("backbone", "teacher")),
)


@dataclass
class Place:
    """A store, a cache and files of a command; all of it lies in ``folder``."""

    folder: Path
    said: str = ""

    @property
    def client(self) -> MlflowClient:
        """Of its store."""
        return MlflowClient(self.uri)

    @property
    def uri(self) -> str:
        """Of its store."""
        return f"sqlite:///{self.folder}/mlflow.db"

    def run(self, step: str, options: dict[str, Any], *, processes: int = 1, **fault: Any) -> int:
        """Run a command to its end. Returns its exit status."""
        plan = {"folder": str(self.folder), "log": "", "event": 0, "delay": 0.0, "fault": "", "rank": 0} | fault
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RECDISTILL_"))}
        environment = kept | {
            "MLFLOW_TRACKING_URI": self.uri, "RECDISTILL_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
            "RECDISTILL_FAULT": json.dumps(plan), "RECDISTILL_TRACKING_GRACE": "5", "TMPDIR": str(self.folder / "tmp"),
        }  # fmt: skip
        start = [sys.executable] if processes == 1 else LAUNCH
        data = {"dataset": "csv", "interactions": "interactions.csv", "items": "items.csv"}
        data |= {} if step == "backbone" else {"llm": str(self.folder / "llm")} | TEACHER
        words = [f"--{name}={value}" for name, value in (data | options).items()]
        done = subprocess.run(
            [*start, str(PROJECT / "benchmarks" / "faulty_process.py"), step, *words],
            env=environment, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS, check=False,
            start_new_session=True,
        )  # fmt: skip
        self.said = done.stdout[-1000:] + done.stderr[-3000:]
        return done.returncode

    def copied(self, folder: Path) -> "Place":
        """A copy elsewhere, which names no file of this one."""
        shutil.copytree(self.folder, folder)
        with closing(sqlite3.connect(folder / "mlflow.db")) as store:
            for table, column in (
                ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
            ):  # fmt: skip
                store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(self.folder), str(folder)))
            store.commit()
        return Place(folder)

    def runs(self, condition: str = "") -> list[Run]:
        """All runs that fit a condition."""
        return list(self.client.search_runs([e.experiment_id for e in self.client.search_experiments()], condition))


@dataclass
class Undisturbed:
    """A case's command as it ends undisturbed.

    Attributes:
        start: where it was started, with what it starts from.
        events: time and path of each write.
        metrics: of the finished runs of its step.
    """

    start: Place
    events: list[tuple[float, str]]
    metrics: list[dict[str, float]] = field(default_factory=list)


def write_files(folder: Path) -> None:
    """A ring of items that can be learnt, a search space, and a tiny llama."""
    from recdistill.testing.tiny_llm import tiny_model, tiny_tokenizer

    folder.mkdir()
    (folder / "tmp").mkdir()
    drawn = random.Random(0)
    rows = ["user,item,timestamp"]
    for user in range(USERS):
        item = drawn.randrange(ITEMS)
        for moment in range(drawn.randint(8, 16)):
            rows.append(f"u{user},i{item},{1000 * user + moment}")
            item = (item + 1) % ITEMS if drawn.random() < 0.8 else drawn.randrange(ITEMS)
    (folder / "interactions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    titles = ["item,title", *(f"i{item},Film {item}" for item in range(ITEMS))]
    (folder / "items.csv").write_text("\n".join(titles) + "\n", encoding="utf-8")
    (folder / "space.yaml").write_text(
        "objective: val/ndcg_at_20\nparameters:\n  lam: {low: 0.0, high: 1.0}\n", encoding="utf-8"
    )
    tiny_tokenizer().save_pretrained(folder / "llm")
    tiny_model(32).save_pretrained(folder / "llm")


def measured(place: Place, step: str) -> list[dict[str, float]]:
    """The ranking metrics and losses of the finished runs of a step, trials in the order of their number."""
    found = place.runs(f"tags.`recdistill.step` = '{step}' and attributes.status = 'FINISHED'")
    found = [run for run in found if "recdistill.reused_run_id" not in run.data.tags]
    kept = ("val/", "test/", "train/total", "train/base", "trials/", "best/", "default/", "undistilled/")
    metrics = [
        {name: value for name, value in run.data.metrics.items() if name.startswith(kept) and "latency" not in name}
        for run in found
    ]
    return sorted((one for one in metrics if one), key=lambda one: sorted(one.items()))


def begun(before: tuple[str, ...], files: Path, folder: Path) -> Place:
    """A place where the steps before have run; cases that start from the same ones share it."""
    place = Place(folder)
    if not (folder / "begun").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files, folder)
        for step in before:
            if place.run(step, TEACHER if step == "teacher" else {}) != 0:
                raise RuntimeError(place.said)
        (folder / "begun").touch()
    return place


def undisturbed(case: Case, files: Path, scratch: Path) -> Undisturbed:
    """Run a case's command undisturbed, each of its writes noted; or take what an earlier campaign there has noted."""
    note, log = scratch / "metrics.json", scratch / "events"
    start = begun(case.before, files, scratch.parent / "-".join(case.before))
    if not note.exists():
        shutil.rmtree(scratch, ignore_errors=True)
        whole = start.copied(scratch / "whole")
        if whole.run(case.step, case.options, processes=case.processes, log=str(log)) != 0:
            raise RuntimeError(whole.said)
        note.write_text(json.dumps(measured(whole, case.step)), encoding="utf-8")
    events = [tuple(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    return Undisturbed(start, events, json.loads(note.read_text(encoding="utf-8")))


def drawn_moment(case: Case, found: Undisturbed, drawn: random.Random) -> tuple[int, float]:
    """A write that belongs to the case, from 1, and a time before the next one."""
    fitting = [place for place, (_, path) in enumerate(found.events) if any(text in path for text in case.at)]
    place = drawn.choice(fitting)
    after = found.events[place + 1][0] if place + 1 < len(found.events) else found.events[place][0]
    return place + 1, drawn.uniform(0.0, min(1.0, after - found.events[place][0]))


def faults_of(place: Place, case: Case, expected: list[dict[str, float]]) -> list[str]:
    """What is not as it should be after the second start."""
    wrong = []
    found = measured(place, case.step)
    if not same(found, expected, case.tolerance):
        wrong.append(f"metrics differ: {found} and {expected}")
    running = [run.info.run_id for run in place.runs("attributes.status = 'RUNNING'")]
    if running:
        wrong.append(f"{len(running)} runs RUNNING")
    wrong += [
        f"{what} left: {left[0].relative_to(place.folder)}"
        for what, pattern in (("a write", "outbox/*/*/write.json"), ("a checkpoint", "runs/*/*"))
        if (left := list((place.folder / "cache").glob(pattern)))
    ]
    for run in place.runs("attributes.status = 'FINISHED'"):
        wrong += unreadable(Path(run.info.artifact_uri.removeprefix("file://")))
    return wrong


def same(found: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float) -> bool:
    """Whether two lists of metrics are the same."""
    return len(found) == len(expected) and all(
        one.keys() == other.keys()
        and all(math.isclose(one[name], other[name], rel_tol=tolerance, abs_tol=tolerance) for name in one)
        for one, other in zip(found, expected, strict=True)
    )


def unreadable(folder: Path) -> list[str]:
    """Artifacts in a folder that are no whole files of their kind."""
    wrong = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".parquet":
                pd.read_parquet(path)
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="np") as file:
                    list(file.keys())
        except Exception as error:
            wrong.append(f"{path.name}: {type(error).__name__}")
    return wrong


def disturbed(case: Case, fault: str, found: Undisturbed, place: Place, drawn: random.Random) -> dict[str, Any]:
    """Start a command with a fault, then without, and check."""
    event, delay = drawn_moment(case, found, drawn)
    rank = drawn.randrange(case.processes) if fault.startswith("SIG") else 0
    options = {"processes": case.processes}
    first = place.run(case.step, case.options, event=event, delay=delay, fault=fault, rank=rank, **options)
    said = place.said
    began = time.monotonic()
    second = place.run(case.step, case.options, **options)
    wrong = [] if second == 0 else [f"the second start ends with status {second}: {place.said}"]
    wrong += faults_of(place, case, found.metrics)
    if fault != "SIGKILL" and case.processes == 1 and "Traceback (most recent call last)" in said:
        wrong.append(f"the first start ends in a traceback: {said}")
    path = Path(found.events[event - 1][1]).name
    return {
        "case": case.name, "fault": fault, "event": event, "of": len(found.events), "write": path, "first": first,
        "seconds": time.monotonic() - began, "wrong": wrong,
    }  # fmt: skip


def campaign(
    moments: int, seed: int, names: list[str], scratch: Path, after: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """All moments; each case's undisturbed command runs once. ``after`` is called with the results so far."""
    drawn = random.Random(seed)
    pairs = list(itertools.product([case for case in CASES if not names or case.name in names], FAULTS))
    drawn.shuffle(pairs)
    while len(pairs) < moments:
        pairs.append(drawn.choice(pairs))
    files = scratch / "files"
    if not (files / "llm" / "model.safetensors").exists():
        shutil.rmtree(files, ignore_errors=True)
        write_files(files)
    results = []
    for number, (case, fault) in enumerate(pairs[:moments], start=1):
        note = scratch / f"moment-{number}.json"
        if not note.exists():
            # Cases of one command share its undisturbed run.
            found = undisturbed(case, files, scratch / f"{case.step}-{case.processes}")
            folder = scratch / f"moment-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            place = found.start.copied(folder)
            result = disturbed(case, fault, found, place, random.Random(f"{seed} {number}"))
            if not result["wrong"]:
                shutil.rmtree(folder)
            note.write_text(json.dumps(result), encoding="utf-8")
        results.append(json.loads(note.read_text(encoding="utf-8")))
        after(results)
        said = "; ".join(results[-1]["wrong"])[:3000] or "as undisturbed"
        print(f"[{number}/{moments}] {case.name}, {fault} at write {results[-1]['event']}: {said}", flush=True)
    return results


def table(results: list[dict[str, Any]], seed: int) -> str:
    """The results as Markdown: per case and fault how many moments, and how many ended as undisturbed."""
    lines = [
        f"{len(results)} moments, seed {seed}: in each cell how many ended as undisturbed, of how many.",
        "",
        f"| what was disturbed | {' | '.join(FAULTS)} |",
        f"|---|{'---:|' * len(FAULTS)}",
    ]
    for name in dict.fromkeys(case.name for case in CASES):
        cells = []
        for fault in FAULTS:
            of = [one for one in results if one["case"] == name and one["fault"] == fault]
            cells.append(f"{sum(not one['wrong'] for one in of)} of {len(of)}" if of else "")
        if any(cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(page: Path | None, seed: int, results: list[dict[str, Any]]) -> None:
    """Put the table between the two marks of a page, where one is given."""
    if page is None:
        return
    head, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    page.write_text(f"{head}{MARKS[0]}\n\n{table(results, seed)}\n{MARKS[1]}{tail}", encoding="utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=len(CASES) * len(FAULTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", nargs="*", default=[], choices=[case.name for case in CASES])
    parser.add_argument("--write", type=Path, help="page to write the table into, between its marks")
    parser.add_argument("--folder", type=Path, help="where to work, kept: started again, it goes on from there")
    given = parser.parse_args()
    after = partial(write_table, given.write, given.seed)
    with nullcontext(given.folder) if given.folder else tempfile.TemporaryDirectory(prefix="kill-campaign-") as scratch:
        Path(scratch).mkdir(exist_ok=True)
        results = campaign(given.moments, given.seed, given.cases, Path(scratch).resolve(), after)
    print(table(results, given.seed))
    failed = sum(bool(one["wrong"]) for one in results)
    print(json.dumps({"moments": len(results), "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
