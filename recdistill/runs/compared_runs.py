"""Evaluated runs out of the store, however many, in few calls: their settings, data and ranks."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH
from numpy.typing import NDArray

from recdistill.config import UPSTREAM
from recdistill.config.lineage import digest
from recdistill.errors import InputError, one_line
from recdistill.evaluation.rank_table import SAMPLE, common_samples
from recdistill.report.compared import EvaluatedRun, EvaluatedSamples, check_comparable
from recdistill.report.settings import EVALUATED_STEPS, Settings, digests_of, settings_of
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.finished_runs import run_of, search
from recdistill.runs.kept_options import READERS, KeptOptions, kept_options
from recdistill.runs.run import CONFIG_FILE, FINGERPRINT, KEPT, KEY, NAME, REFIT, REUSED, STEP, StepRun
from recdistill.runs.tracking_store import tracking_address

RANKS = "ranks/{part}.parquet"
RANK_COLUMNS = ("user", "item", "rank", "history_length", "item_count")
TWIN = "recdistill.twin_run_id"
#: The step whose runs are of a student of another run, against which they are held, too.
MAPPED = "map_items"
# The run that a step's result is naturally held against.
BASELINE = {"distill": TWIN, "teacher": "recdistill.backbone_run_id", MAPPED: "recdistill.mapped_run_id"}
COMPARED = "compared_run_ids"


@dataclass(frozen=True, eq=False)
class ComparedRuns:
    """Runs to compare and what they were evaluated on.

    Attributes:
        runs: comparable ones, no id twice.
        samples: with a rank of each run.
        baseline: 'auto', or the id of one of the runs.
        left_out: runs that a search found but that keep no ranks or no options, or ranked the samples of some users.
        shared: ids of user and target of the samples, in their order.
    """

    runs: tuple[EvaluatedRun, ...]
    samples: EvaluatedSamples
    baseline: str
    left_out: int
    shared: pa.Table


def compared_runs(runs: Sequence[str], condition: str, baseline: str, part: str) -> ComparedRuns:
    """The runs to compare, with their ranks on ``part`` ('val' or 'test').

    Args:
        runs: ids; a run that found a finished one stands for that one.
        condition: MLflow search condition, where ``runs`` is empty; '' takes every finished evaluated run.
        baseline: 'auto' adds the runs that these are naturally compared to; else an id, and that run is added.

    Raises InputError where a run is unknown, unfinished or not evaluated, and where they are of different data or
    splits.
    """
    asked = named_runs(runs) if runs else searched_runs(condition)
    if baseline == "auto":
        added = list(runs_by_id(run.data.tags.get(BASELINE.get(step_of(run), ""), "") for run in asked).values())
    else:
        added = named_runs([baseline], "baseline")
        baseline = added[0].info.run_id
    found = unique([*asked, *added])
    upstream = upstream_of(found)
    options = kept_options(unique([*found, *upstream.values()]))
    described = described_runs([run for run in found if id_of(run) in options], upstream, options)
    # Before any rank is read: runs of other data have other samples, and the reason is the data.
    check_comparable(described)
    tables = ranks_of(found, part)
    if not runs and not condition.strip():
        # Who asks for whatever there is does not ask for the few samples of one of them.
        most = max(map(len, tables.values()), default=0)
        tables = {run_id: table for run_id, table in tables.items() if len(table) == most or run_id == baseline}
    missing = [run for run in found if id_of(run) not in options or id_of(run) not in tables]
    if missing and (runs or len(missing) == len(found)):
        lacking = RANKS.format(part=part) if id_of(missing[0]) in options else CONFIG_FILE
        raise InputError(f"run {id_of(missing[0])} ({step_of(missing[0])}): keeps no {lacking}; run that step again")
    kept = [(run, tables[run.run_id]) for run in described if run.run_id in tables]
    most = max(len(table) for _, table in kept)
    kept = with_shared_samples(kept)
    shared = kept[0][1].select(list(SAMPLE))
    samples = evaluated_samples(kept, most)
    return ComparedRuns(tuple(run for run, _ in kept), samples, baseline, len(missing), shared)


def named_runs(ids: Sequence[str], option: str = "runs") -> list[Run]:
    """Runs by id, in the order given. Raises InputError unless each is a finished evaluated run."""
    found = runs_by_id(ids)
    found |= runs_by_id(run.data.tags.get(REUSED, "") for run in found.values())
    named = []
    for run_id in ids:
        if run_id not in found:
            raise InputError(f"{option}={run_id}: no such run in {tracking_address()}; see the ids in mlflow ui")
        run = found[run_id]
        run = found.get(run.data.tags.get(REUSED, ""), run)
        if reason := unfit(run):
            raise InputError(f"{option}={run_id}: {reason}; {instead_of(run)}")
        named.append(run)
    return unique(named)


def unfit(run: Run) -> str:
    """Why a run cannot be compared; empty where it can."""
    return unmeasured(run) or ("" if run.info.status == "FINISHED" else f"is {run.info.status}, not FINISHED")


def unmeasured(run: Run) -> str:
    """Why a step measures nothing of a run that another could be compared with; empty where it does."""
    if step_of(run) not in EVALUATED_STEPS:
        return f"is a {step_of(run) or 'foreign'} run"
    return "was trained on all interactions (refit), measured on none" if is_refit(run) else ""


def instead_of(run: Run) -> str:
    """What to name in place of a run that is `unfit`."""
    if step_of(run) not in EVALUATED_STEPS:
        return f"compare {', '.join(EVALUATED_STEPS)} runs (nested in it, where it is a main or sweep run)"
    return "give the run it refits" if is_refit(run) else "leave it out"


def searched_runs(condition: str) -> list[Run]:
    """Finished evaluated runs that fit an MLflow condition, the oldest first. Raises InputError where none does."""
    finished = "attributes.status = 'FINISHED'"
    try:
        found = search(f"{condition} and {finished}" if condition.strip() else finished)
    except MlflowException as error:
        said = one_line(error.message, most=300)
        raise InputError(f"filter={condition}: is no MLflow search condition ({said})") from None
    reused = runs_by_id(run.data.tags.get(REUSED, "") for run in found)
    found = [reused.get(run.data.tags.get(REUSED, ""), run) for run in found]
    evaluated = [run for run in found if step_of(run) in EVALUATED_STEPS and REUSED not in run.data.tags]
    evaluated = [run for run in evaluated if not is_refit(run)]
    if not evaluated:
        asked = f"filter={condition}: no" if condition.strip() else "no"
        raise InputError(f"{asked} finished {', '.join(EVALUATED_STEPS)} run in {tracking_address()}")
    return unique(evaluated[::-1])


def runs_by_id(ids: Iterable[str]) -> dict[str, Run]:
    """Runs that exist, by id, in one search."""
    wanted = sorted({run_id for run_id in ids if run_id.isalnum()})
    if not wanted:
        return {}
    listed = ", ".join(f"'{run_id}'" for run_id in wanted)
    return {run.info.run_id: run for run in search(f"attributes.run_id IN ({listed})")}


def unique(runs: Iterable[Run]) -> list[Run]:
    """The runs, each once, where it stood first."""
    return list({run.info.run_id: run for run in runs}.values())


def id_of(run: Run) -> str:
    """Id of a run."""
    return str(run.info.run_id)


def step_of(run: Run) -> str:
    """Name of the step that made a run; '' for another program's."""
    return run.data.tags.get(STEP, "")


def is_refit(run: Run) -> bool:
    """Whether a student was trained on all interactions, so that no samples are left to rank."""
    return f"recdistill.{REFIT}" in run.data.tags


def upstream_of(runs: Sequence[Run]) -> dict[str, Run]:
    """The teachers and backbones that runs started from, by id: a search for each step of the chain."""
    known: dict[str, Run] = {}
    frontier = list(runs)
    while frontier:
        linked = [upstream_id(run) for run in frontier]
        frontier = list(runs_by_id(run_id for run_id in linked if run_id not in known).values())
        known |= {run.info.run_id: run for run in frontier}
    return known


def upstream_id(run: Run) -> str:
    """Id of the run it started from, or ''."""
    step = step_of(run)
    tag = BASELINE[step] if step == MAPPED else f"recdistill.{UPSTREAM.get(step, '')}_run_id"
    return run.data.tags.get(tag, "")


def described_runs(
    runs: Sequence[Run], upstream: Mapping[str, Run], options: Mapping[str, KeptOptions]
) -> list[EvaluatedRun]:
    """The runs as a comparison sees them; ``options`` are theirs and those of their upstream runs, by id."""
    known: dict[str, Settings] = {}

    def settings(run: Run) -> Settings:
        run_id = id_of(run)
        if run_id not in known:
            kept, before = options[run_id], upstream.get(upstream_id(run))
            earlier = settings(before) if before is not None and id_of(before) in options else None
            digests = digests_of(step_of(run), kept.values, kept.key_parts)
            known[run_id] = settings_of(step_of(run), kept.values, digests, earlier)
            if step_of(run) == MAPPED and before is not None and earlier is not None:
                # What its student has that this step has no option for: its teacher, and what it started from.
                of = {
                    f"{step_of(before)}.{name}": value for name, value in earlier.items() if name not in known[run_id]
                }
                known[run_id] = of | dict(known[run_id])
        return known[run_id]

    return [evaluated_run(run, options[id_of(run)], settings(run)) for run in runs]


def evaluated_run(run: Run, options: KeptOptions, settings: Settings) -> EvaluatedRun:
    """A run of these options and settings as a comparison sees it."""
    step, tags, values = step_of(run), run.data.tags, options.values
    return EvaluatedRun(
        run_id=id_of(run),
        # A name of ours tells what the settings tell, too.
        name=step if run.info.run_name in (None, "", tags.get(NAME)) else run.info.run_name,
        step=step,
        seed=int(values.get("seed", 0)),
        settings=settings,
        fingerprint=tags.get(FINGERPRINT, ""),
        data=f"{values.get('dataset', 'unknown data')}, {values.get('split', 'unknown split')}",
        exclude_seen=bool(values.get("exclude_seen", True)),
        baseline_id=tags.get(BASELINE.get(step, ""), ""),
        key=result_key(options.key_parts, tags),
        whole=KEPT not in tags,
    )


def result_key(key_parts: Mapping[str, Any] | None, tags: Mapping[str, str]) -> str:
    """The key of a run's result: the same of a sweep's trial, which keeps less, and of a whole run."""
    if key_parts is None:
        return tags.get(KEY, "")
    return digest({name: value for name, value in key_parts.items() if name != "kept"})


def ranks_of(runs: Sequence[Run], part: str) -> dict[str, pa.Table]:
    """The tables of ranks that runs keep, by id; see `read_ranks`."""
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(functools.partial(read_ranks, part=part), runs)
        return {id_of(run): table for run, table in zip(runs, found, strict=True) if table is not None}


def read_ranks(run: Run, part: str) -> pa.Table | None:
    """The run's table of ranks; None where it keeps none. Raises InputError where it cannot be read."""
    uri = f"{run.info.artifact_uri}/{RANKS.format(part=part)}"
    try:
        path = local_artifact(uri)
    except (MlflowException, OSError):
        return None
    try:
        return pq.read_table(path, columns=list(RANK_COLUMNS))
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(
            f"run {run.info.run_id}: cannot read {path.name} ({one_line(error)}); run that step again"
        ) from None


def with_shared_samples(ranked: Sequence[tuple[EvaluatedRun, pa.Table]]) -> list[tuple[EvaluatedRun, pa.Table]]:
    """The runs with their ranks of the samples that all of them ranked, as where a teacher ranked those of some users.

    Raises InputError, naming two runs, where there are none.
    """
    first_run, first = ranked[0]
    if all(table.column(name).equals(first.column(name)) for _, table in ranked for name in SAMPLE):
        return list(ranked)
    places = common_samples([table.select(list(SAMPLE)).to_pandas() for _, table in ranked])
    if not len(places[0]):
        run, table = min(ranked, key=lambda one: len(one[1]))
        raise InputError(
            f"runs ranked on different samples: {first_run.run_id} ({first_run.step}, {len(first)} samples) and "
            f"{run.run_id} ({run.step}, {len(table)} samples); evaluate both on all samples of the split"
        )
    return [(run, table.take(place)) for (run, table), place in zip(ranked, places, strict=True)]


def evaluated_samples(ranked: Sequence[tuple[EvaluatedRun, pa.Table]], most: int) -> EvaluatedSamples:
    """The ranks of the same samples, of ``most`` that a run ranked, as a comparison sees them."""
    _, first = ranked[0]
    return EvaluatedSamples(
        of=most,
        ranks={run.run_id: int64(table.column("rank")) for run, table in ranked},
        user=np.unique(first.column("user").to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1],
        history_length=int64(first.column("history_length")),
        item_count=int64(first.column("item_count")),
    )


def int64(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of numbers."""
    return column.to_numpy(zero_copy_only=False).astype(np.int64)


def place_of(run: StepRun, artifact: str) -> str:
    """Where an artifact lies: its path on this machine, or its address."""
    uri = f"{run_of(run.run_id).info.artifact_uri}/{artifact}"
    return local_file_uri_to_path(uri) if is_local_uri(uri) else uri


def link_runs(run: StepRun, compared: ComparedRuns) -> None:
    """Tag a comparison with the ids of its runs, as many as a tag holds; comparison.csv has them all."""
    # Rankings that others made have no run.
    ids = [one.run_id for one in compared.runs if one.step in EVALUATED_STEPS]
    held = MAX_TAG_VAL_LENGTH // (len(ids[0]) + 1)
    run.tag(COMPARED, " ".join(ids[:held]))
