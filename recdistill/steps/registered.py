"""A version in the model registry with its card: what it is, how good it was measured to be, and how it is called."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from recdistill.config.steps import STEPS
from recdistill.errors import InputError
from recdistill.evaluation.intervals import clustered_interval
from recdistill.evaluation.rank_metrics import gains
from recdistill.runs.champion import describe_version
from recdistill.runs.compared_runs import unmeasured
from recdistill.runs.finished_runs import run_of
from recdistill.runs.run import CONFIG_FILE, FINGERPRINT, STEP, TERMS, StepRun
from recdistill.runs.served_model import register_student

#: Metrics of the card, with their cut-offs.
SHOWN = (("ndcg", 20), ("hr", 20), ("ndcg", 10), ("hr", 10))
LIMITS = (
    "It was measured offline, on clicks of the past that are held out: it says how well these are guessed, not what "
    "people do when they see its recommendations. It knows the items that it was trained with (and those added by "
    "`add_items`), skips others, and answers a history without a known item with the most popular ones. Train it again "
    "when tastes or the catalogue move."
)


def registered(run: StepRun, name: str) -> str:
    """Give a run's student a version under ``name``, with its card. Returns the version's address.

    Raises InputError as `register_student` does.
    """
    address = register_student(run.run_id, name)
    describe_version(name, address.rpartition("/")[2], card(run, name))
    print(f"registered as {address}", flush=True)
    return address


def card(run: StepRun, name: str) -> str:
    """The card of a run's student, Markdown."""
    found = run_of(run.run_id)
    tags = found.data.tags
    values = json.loads(run.artifact(CONFIG_FILE).read_text(encoding="utf-8"))
    parts = [
        f"# {name}",
        tags.get("mlflow.note.content", ""),
        data_of_card(values, tags),
        f"**Made by** the step `{tags.get(STEP)}`, run `{run.run_id}`, seed {values.get('seed', 'none')}.",
        measured(run),
        compared_with(tags, is_measured=not unmeasured(found)),
        f"**Limits.** {LIMITS}",
        f"**Terms.** {tags[TERMS]}" if tags.get(TERMS) else "",
        f"**How to call it.** `mlflow models serve -m models:/{name}@champion`, or in Python "
        f'`mlflow.pyfunc.load_model("models:/{name}@champion").predict(frame)`, a frame with a column `history` of '
        f"lists of item ids, oldest first; `recdistill recommend --model models:/{name}@champion --histories FILE`.",
    ]
    return "\n\n".join(part for part in parts if part)


def data_of_card(values: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """The data that the student was trained on and how it ranks; nothing where it was made from a served one."""
    if "dataset" not in values:
        return ""
    ranked = "left out of" if values.get("exclude_seen", True) else "kept in"
    return (
        f"**Data.** {values['dataset']}, split {values.get('split')}, fingerprint `{tags.get(FINGERPRINT, '')[:12]}`; "
        f"items of the history are {ranked} the ranking."
    )


def measured(run: StepRun) -> str:
    """The metrics of test as a Markdown table with their intervals."""
    try:
        path = run.artifact("ranks") / "test.parquet"
    except InputError:
        return "**Measured**: not again; see the student that it was made from."
    table = pd.read_parquet(path, columns=["user", "rank"])
    user = np.unique(table["user"].astype(str), return_inverse=True)[1]
    ranks = torch.from_numpy(table["rank"].to_numpy(np.int64, copy=True))
    lines = ["**Measured** on test, over the whole catalogue, with 95 % intervals over users:", ""]
    lines += ["| metric | value | 95 % interval |", "| --- | ---: | --- |"]
    for metric, k in SHOWN:
        mean, low, high = clustered_interval(gains(metric, ranks, k).numpy(), user, within=(0.0, 1.0))
        # A single user tells no interval.
        interval = f"{low:.4f} to {high:.4f}" if user.max() else "–"  # noqa: RUF001
        lines.append(f"| {metric.upper()}@{k} | {mean:.4f} | {interval} |")
    return "\n".join(lines)


def compared_with(tags: Mapping[str, str], *, is_measured: bool) -> str:
    """What the student is naturally held against; of one that nothing was measured of, the run that it refits."""
    if not is_measured:
        refitted = tags.get("recdistill.refitted_run_id", "")
        tested = f": `recdistill compare` tests the run `{refitted}`, which it refits" if refitted else ""
        return f"**Compared with** nothing, as nothing was measured of it{tested}."
    against = {step: tags.get(f"recdistill.{step}_run_id", "") for step in ("twin", "teacher", "mapped", *STEPS)}
    named = [f"its {step} run `{run_id}`" for step, run_id in against.items() if run_id]
    if not named:
        return "**Compared with** nothing yet: `recdistill compare` tests it against other runs of the same data."
    return f"**Compared with** {', '.join(named)}: `recdistill compare` tests the differences."
