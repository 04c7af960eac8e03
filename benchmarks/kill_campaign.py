"""Kill commands at random moments, start each again, and check that it ends as one that was never disturbed.

``python benchmarks/kill_campaign.py`` (``--help``) draws the moments by its seed, each case (below) in turn with one
fault after another: SIGKILL, SIGTERM, a disk that is full from then on, a folder of artifacts that is read-only from
then on. For each it starts the command with that fault (`faulty_process.py`: injected, for root may write anywhere),
starts the same command again without one, and checks:

- the second start ends with status 0, and the finished runs have the metrics of the undisturbed command; as many
  versions of models are registered;
- no run is left RUNNING, and no write waits on disk;
- every artifact of a finished run and every result of a study is there and can be read;
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
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from faulty_process import Moments, command, import_all, in_fork
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from safetensors import safe_open

PROJECT = Path(__file__).resolve().parents[1]
MARKS = ("<!-- kill_campaign.py writes from here -->", "<!-- to here -->")
FAULTS = ("SIGKILL", "SIGTERM", "full disk", "read-only artifacts")
SECONDS, MOMENTS = 900, 20
USERS, ITEMS = 30, 40

TEACHER = {
    "token_budget": 3000, "tokens_per_batch": 200, "teacher_window": 12, "teacher_history": 4, "lora_dropout": 0.1,
    "top_n": 10,
}  # fmt: skip
STUDENT = {"epochs": 6, "patience": 6, "hidden_size": 16, "blocks": 1, "max_length": 12, "batch_size": 64}
MAP = {"views": "tfidf", "register": "films"}
ADD = {"model": "models:/films/1", "items": "new.csv"}
STUDY = {"plan": "plan.yaml", "results": "results"}
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
        measured: steps whose runs' metrics are compared, empty for the command's own.
    """

    name: str
    step: str
    options: dict[str, Any]
    at: tuple[str, ...]
    before: tuple[str, ...] = ()
    processes: int = 1
    measured: tuple[str, ...] = ()


#: Add a case here: everything else follows.
CASES = (
    Case("teacher, training", "teacher", TEACHER, ("/teacher.",), ("backbone",)),
    Case("teacher, scoring", "teacher", TEACHER, ("/outputs/",), ("backbone",)),
    Case("teacher, logging", "teacher", TEACHER, ("/mlruns/",), ("backbone",)),
    Case("teacher on two processes", "teacher", TEACHER, ("/teacher.", "/outputs/", "/mlruns/"), ("backbone",), 2),
    Case("distillation, training", "distill", STUDENT, ("/student.",), ("backbone", "teacher")),
    Case("distillation, logging", "distill", STUDENT, ("/mlruns/",), ("backbone", "teacher")),
    Case("sweep", "sweep", STUDENT | SWEEP, ("/student.", "/mlruns/"), ("backbone", "teacher")),
    Case("study", "study", STUDY, ("/student.", "/mlruns/", "/results/"), measured=("backbone", "map_items")),
    Case("add_items", "add_items", ADD, ("/mlruns/",), ("backbone", "map_items")),
)
#: Options of the commands that cases start from.
BEFORE: dict[str, dict[str, Any]] = {"backbone": STUDENT, "teacher": TEACHER, "map_items": MAP}
DATA = {"dataset": "csv", "interactions": "interactions.csv", "items": "items.csv"}
PLAN = """\
shared: {epochs: 6, patience: 6, hidden_size: 16, blocks: 1, max_length: 12, batch_size: 64}
data:
  ring: {dataset: csv, interactions: interactions.csv, items: items.csv}
students:
  sasrec: {student: sasrec}
seeds: [1, 2]
rows:
  ids: {step: backbone}
  text: {step: map_items, options: {views: tfidf}, of: {student_run_id: ids}}
comparisons: [{row: text, against: ids}]
"""


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
        plan = {"folder": str(self.folder), "log": "", "event": 0, "delay": 0.0, "fault": "", "rank": 0, "after": 0.0}
        plan |= fault
        variables = {
            "MLFLOW_TRACKING_URI": self.uri, "RECDISTILL_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
            "RECDISTILL_FAULT": json.dumps(plan), "RECDISTILL_TRACKING_GRACE": "5", "TMPDIR": str(self.folder / "tmp"),
        }  # fmt: skip
        data = {} if step in ("study", "add_items") else dict(DATA)
        data |= {"llm": "llm"} | TEACHER if step in ("teacher", "distill", "sweep") else {}
        words = [f"--{name}={value}" for name, value in (data | options).items()]
        said = self.folder / "said"
        if processes == 1:
            status = in_fork(lambda: command(prepared(), [step, *words]), said, SECONDS, **variables)
        else:
            with said.open("w") as file:
                status = subprocess.run(
                    [*LAUNCH, str(PROJECT / "benchmarks" / "faulty_process.py"), step, *words],
                    env=os.environ | variables, cwd=self.folder, stdout=file, stderr=file, timeout=SECONDS, check=False,
                    start_new_session=True,
                ).returncode  # fmt: skip
        self.said = said.read_text(encoding="utf-8", errors="replace")[-4000:]
        return status

    def copied(self, folder: Path) -> "Place":
        """A copy elsewhere, which names no file of this one."""
        shutil.copytree(self.folder, folder)
        if not (folder / "mlflow.db").exists():
            return Place(folder)
        with closing(sqlite3.connect(folder / "mlflow.db")) as store:
            for table, column in (
                ("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
                ("model_versions", "storage_location"), ("model_versions", "source"),
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
        events: time and path, of the start first, then of each write.
        metrics: of the finished runs of its step.
    """

    start: Place
    events: list[tuple[float, str]]
    metrics: list[dict[str, float]] = field(default_factory=list)


@cache
def prepared() -> Moments:
    """This process with everything imported, before the first command is forked from it; it uses no store itself."""
    return import_all()


def asked(place: Place, ask: Callable[[], Any]) -> Any:
    """What a function says that uses the store of a place, in a fork: a store is not carried over into another one."""
    answer = place.folder / "answer.json"
    answer.unlink(missing_ok=True)

    def write() -> int:
        answer.write_text(json.dumps(ask()), encoding="utf-8")
        return 0

    if in_fork(write, place.folder / "said", SECONDS) != 0:
        raise RuntimeError((place.folder / "said").read_text(encoding="utf-8"))
    return json.loads(answer.read_text(encoding="utf-8"))


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
    added = ["item,title", *(f"n{item},Film {item}" for item in range(ITEMS, ITEMS + 5))]
    (folder / "new.csv").write_text("\n".join(added) + "\n", encoding="utf-8")
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    tiny_tokenizer().save_pretrained(folder / "llm")
    tiny_model(32).save_pretrained(folder / "llm")


def measured(place: Place, case: Case) -> list[dict[str, float]]:
    """The metrics and losses of the finished runs of a case, less times; and how many versions are registered."""
    found = [
        run
        for step in case.measured or (case.step,)
        for run in place.runs(f"tags.`recdistill.step` = '{step}' and attributes.status = 'FINISHED'")
        if "recdistill.reused_run_id" not in run.data.tags
    ]
    kept = (
        "val/", "test/", "train/total", "train/base", "trials/", "best/", "default/", "undistilled/", "map/explained",
        "map/scale", "map/offset", "add/items",
    )  # fmt: skip
    metrics = [
        {name: value for name, value in run.data.metrics.items() if name.startswith(kept) and "latency" not in name}
        for run in found
    ]
    metrics = sorted((one for one in metrics if one), key=lambda one: sorted(one.items()))
    return [*metrics, {"versions": float(len(place.client.search_model_versions()))}]


def begun(before: tuple[str, ...], files: Path, folder: Path) -> Place:
    """A place where the steps before have run; cases that start from the same ones share it.

    Args:
        before: the steps.
        files: folder of the files that all read.
        folder: where such places lie.
    """
    place = Place(folder / ("begun-" + "-".join(before)))
    if not (place.folder / "begun").exists():
        shutil.rmtree(place.folder, ignore_errors=True)
        if before:
            begun(before[:-1], files, folder).copied(place.folder)
            (place.folder / "begun").unlink()
            if place.run(before[-1], BEFORE[before[-1]]) != 0:
                raise RuntimeError(place.said)
        else:
            shutil.copytree(files, place.folder)
        (place.folder / "begun").touch()
    return place


def undisturbed(case: Case, files: Path, scratch: Path) -> Undisturbed:
    """Run a case's command undisturbed, each of its writes noted; or take what an earlier campaign there has noted."""
    note, log = scratch / "metrics.json", scratch / "events"
    start = begun(case.before, files, scratch.parent)
    if not note.exists():
        shutil.rmtree(scratch, ignore_errors=True)
        whole = start.copied(scratch / "whole")
        if whole.run(case.step, case.options, processes=case.processes, log=str(log)) != 0:
            raise RuntimeError(whole.said)
        note.write_text(json.dumps(asked(whole, lambda: measured(whole, case))), encoding="utf-8")
    events = [tuple(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    return Undisturbed(start, events, json.loads(note.read_text(encoding="utf-8")))


def drawn_moment(case: Case, found: Undisturbed, drawn: random.Random) -> tuple[int, float]:
    """A write that belongs to the case, from 1, and a time before the next one."""
    fitting = [place for place, (_, path) in enumerate(found.events) if any(text in path for text in case.at)]
    place = drawn.choice(fitting)
    after = found.events[place + 1][0] if place + 1 < len(found.events) else found.events[place][0]
    return place, drawn.uniform(0.0, min(1.0, after - found.events[place][0]))


def faults_of(place: Place, case: Case, expected: list[dict[str, float]]) -> list[str]:
    """What is not as it should be after the second start."""
    wrong = []
    found = measured(place, case)
    if not same(found, expected):
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
    return wrong + unreadable(place.folder / "results")


def same(found: list[dict[str, float]], expected: list[dict[str, float]]) -> bool:
    """Whether two lists of metrics are the same to the last bit; what is no number equals itself."""
    return len(found) == len(expected) and all(
        one.keys() == other.keys()
        and all(one[name] == other[name] or (math.isnan(one[name]) and math.isnan(other[name])) for name in one)
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
    moment: dict[str, Any] = {"event": event, "delay": delay, "fault": fault}
    rank = drawn.randrange(case.processes) if fault.startswith("SIG") else 0
    if rank:
        # Another process than the main one writes nothing: it is killed as long after its start.
        moment |= {"rank": rank, "event": 0, "after": found.events[event][0] - found.events[0][0] + delay}
    options = {"processes": case.processes}
    first = place.run(case.step, case.options, **moment, **options)
    said = place.said
    began = time.monotonic()
    second = place.run(case.step, case.options, **options)
    wrong = [] if second == 0 else [f"the second start ends with status {second}: {place.said}"]
    wrong += asked(place, lambda: faults_of(place, case, found.metrics))
    if fault != "SIGKILL" and case.processes == 1 and "Traceback (most recent call last)" in said:
        wrong.append(f"the first start ends in a traceback: {said}")
    path = Path(found.events[event][1]).name
    return {
        "case": case.name, "fault": fault, "event": event, "of": len(found.events) - 1, "write": path, "first": first,
        "seconds": time.monotonic() - began, "wrong": wrong,
    }  # fmt: skip


def campaign(
    moments: int, seed: int, names: list[str], scratch: Path, after: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """All moments; each case's undisturbed command runs once. ``after`` is called with the results so far."""
    drawn = random.Random(seed)
    pairs = pairs_in_turn([case for case in CASES if not names or case.name in names], drawn)
    files = scratch / "files"
    if not (files / "llm" / "model.safetensors").exists():
        shutil.rmtree(files, ignore_errors=True)
        write_files(files)
    results = []
    for number, (case, fault) in enumerate(itertools.islice(pairs, moments), start=1):
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


def pairs_in_turn(cases: list[Case], drawn: random.Random) -> Iterator[tuple[Case, str]]:
    """Every case in turn, the next time with another fault, without an end."""
    first = drawn.randrange(len(FAULTS))
    for turn in itertools.count():
        for number, case in enumerate(cases):
            yield case, FAULTS[(first + number + turn) % len(FAULTS)]


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
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", nargs="*", default=[], choices=[case.name for case in CASES])
    parser.add_argument("--write", type=Path, help="page to write the table into, between its marks")
    parser.add_argument("--folder", type=Path, help="where to work, kept: started again, it goes on from there")
    given = parser.parse_args()
    after = partial(write_table, given.write, given.seed)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "RECDISTILL_"))]:
        del os.environ[name]
    scratch = given.folder or Path(tempfile.mkdtemp(prefix="kill-campaign-"))
    scratch.mkdir(exist_ok=True)
    prepared()
    results = campaign(given.moments, given.seed, given.cases, scratch.resolve(), after)
    if not given.folder:
        shutil.rmtree(scratch)
    print(table(results, given.seed))
    failed = sum(bool(one["wrong"]) for one in results)
    print(json.dumps({"moments": len(results), "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
