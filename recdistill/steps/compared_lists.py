"""What ``compare`` adds to runs of the store: rankings that others made, and what all lists are like beyond hits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recdistill.config import STEPS, DataConfig, config_of, narrow
from recdistill.config.paths import is_there, user_folder
from recdistill.data.ranking_files import OthersRanking
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.rank_table import common_samples, sample_table
from recdistill.evaluation.recommended_lists import RecommendedLists, list_metrics, meanings
from recdistill.report.compared import EvaluatedRun
from recdistill.report.document import details, table
from recdistill.report.results import Results
from recdistill.report.text import order
from recdistill.runs.compared_runs import ComparedRuns
from recdistill.runs.measured_again import EVALUATED
from recdistill.runs.plugins_of_runs import options_with_plugins
from recdistill.runs.run import StepRun
from recdistill.steps.inputs import data_of
from recdistill.views.build import build_view

#: What the step of a ranking that others made is called in reports.
STEP = "ranking"
#: Items of a list that are looked at: as many as runs keep.
KEPT_ITEMS = 10
#: Recommenders whose lists are looked at.
MOST = 20
RECOMMENDED = "recommendations/test.parquet"


def ranking_files(text: str) -> dict[str, Path]:
    """The files that the option ``rankings`` names, by what they are called: ``name=file``, or the file's own name.

    Relative paths are looked for where the user stands, too. Raises InputError where a file is missing, or two have one
    name.
    """
    found: dict[str, Path] = {}
    for one in (part.strip() for part in text.split(",")):
        if not one:
            continue
        name, equals, given = one.rpartition("=")
        path = Path(given).expanduser()
        path = user_folder() / path if is_there(user_folder() / path) else path
        name = name if equals else path.name.partition(".")[0]
        if not path.is_file():
            raise InputError(f"rankings={one}: there is no file {path}; give a Parquet or CSV file")
        if name in found:
            raise InputError(f"rankings={one}: two files are called {name}; name one, as another={given}")
        found[name] = path
    return found


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """A digest of each file, by its name: part of the comparison's key."""
    found = {}
    for name, path in files.items():
        with path.open("rb") as file:
            found[f"ranking {name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def data_of_run(run: EvaluatedRun) -> SequenceData:
    """The data that a run was evaluated on. Raises InputError where they cannot be read any more, or are others now."""
    steps = (*EVALUATED, "prepare")
    _, step, values = options_with_plugins(run.run_id, steps)
    data = data_of(narrow(config_of(STEPS[step], values), DataConfig))
    if data.fingerprint != run.fingerprint:
        raise InputError(
            f"run {run.run_id}: was evaluated on data {run.fingerprint[:12]}, and its files hold "
            f"{data.fingerprint[:12]} now; rankings of others can be compared on the same data alone"
        )
    return data


def part_of(data: SequenceData, part: str) -> Samples:
    """The samples of ``val`` or ``test``."""
    return {"val": data.validation, "test": data.test}[part]


def with_others(compared: ComparedRuns, others: Sequence[OthersRanking], data: SequenceData, part: str) -> ComparedRuns:
    """The runs, and the rankings of others beside them, on the same samples. Prints how deep each one's lists are.

    Raises InputError where the data no longer have the runs' samples, or a ranking has no list for a user of theirs.
    """
    first, samples = compared.runs[0], part_of(data, part)
    shared = compared.shared.to_pandas()
    _, places = common_samples([shared, sample_table(samples, data)])
    if len(places) < len(shared):
        raise InputError(
            f"run {first.run_id}: {len(shared) - len(places):,} of its {len(shared):,} samples are not in its data any "
            f"more (it has user {shared['user'].iloc[0]!r}, the data have {data.user_ids[0]!r}); rankings are in the "
            "ids of the data, so evaluate it again"
        )
    samples = samples.subset(places)
    for one in others:
        if not one.lengths(samples).any():
            raise InputError(
                f"rankings={one.name}: has no list for any of the {len(np.unique(samples.user)):,} users who are "
                "compared; give lists of these users"
            )
    runs, ranks = list(compared.runs), dict(compared.samples.ranks)
    for one in others:
        run_id = f"{STEP} {one.name}"
        ranks[run_id] = one.ranks(samples, data.num_items, exclude_seen=first.exclude_seen)
        settings = {"file": one.name}
        runs.append(replace(first, run_id=run_id, name=one.name, step=STEP, seed=0, settings=settings, baseline_id=""))
        print(one.depth(samples), flush=True)
    return replace(compared, runs=tuple(runs), samples=replace(compared.samples, ranks=ranks))


def beyond_hits(
    results: Results, others: Sequence[OthersRanking], data: SequenceData, *, exclude_seen: bool
) -> pd.DataFrame:
    """The metrics of lists on test, a row a recommender in the order of the report; of one run of each.

    Recommenders that keep no lists are left out. The lists are of the samples that all the others have lists for.
    Raises InputError where there is none.
    """
    rankings = {f"{STEP} {one.name}": one for one in others}
    counts, vectors = torch.as_tensor(data.item_count), text_vectors(data)
    tables = {STEP: sample_table(data.test, data)}
    shown = {results.groups[index].runs[0].run_id: results.groups[index].label for index in order(results)[:MOST]}
    tables |= {run_id: table for run_id in shown if (table := kept_lists(run_id, data)) is not None}
    places = dict(zip(tables, common_samples(list(tables.values())), strict=True))
    samples = data.test.subset(places.pop(STEP))
    if not len(samples):
        raise InputError("the lists that the runs keep are of other users than the data at hand have")
    rows: dict[str, dict[str, float]] = {}
    for run_id, label in shown.items():
        if run_id in rankings:
            found = rankings[run_id].best(samples, data.num_items, KEPT_ITEMS, exclude_seen=exclude_seen)
            best = torch.from_numpy(found)
        elif run_id in places:
            best = numbered_items(tables[run_id]["items"].iloc[places[run_id]], data)
        else:
            continue
        rows[label] = list_metrics(RecommendedLists(best, counts, vectors))
    return pd.DataFrame.from_dict(rows, orient="index")


def kept_lists(run_id: str, data: SequenceData) -> pd.DataFrame | None:
    """What a run recommended for test samples, see `recommendation_table`; None where it kept nothing."""
    try:
        path = StepRun(run_id, "", data.fingerprint, reused=True).artifact(RECOMMENDED)
    except InputError:
        return None
    return pd.read_parquet(path)


def numbered_items(lists: pd.Series, data: SequenceData) -> Tensor:
    """Lists of items by their numbers, int64 [N, 10], V where there are fewer."""
    number = {item: place for place, item in enumerate(data.item_ids)}
    best = np.full((len(lists), KEPT_ITEMS), data.num_items, dtype=np.int64)
    for row, items in enumerate(lists):
        known = [number[item] for item in items[:KEPT_ITEMS] if item in number]
        best[row, : len(known)] = known
    return torch.from_numpy(best)


def text_vectors(data: SequenceData) -> Tensor | None:
    """The items' titles as vectors of length 1 [V, D], the same whoever recommends; None where no title has a word."""
    view = build_view("tfidf")
    try:
        view.fit(data.titles)
        vectors = torch.from_numpy(np.ascontiguousarray(view.vectors(data.titles)))
    except InputError:
        return None
    return torch.nn.functional.normalize(vectors, dim=1)


def beyond_markdown(beyond: pd.DataFrame) -> str:
    """The metrics of lists as Markdown, with what each means."""
    head = ["", *beyond.columns]
    lines = [head, ["---", *["---:"] * len(beyond.columns)]]
    lines += [[str(label), *(f"{value:.4f}" for value in row)] for label, row in beyond.iterrows()]
    said = "\n".join(f"- `{name}`: {text}" for name, text in meanings().items())
    shown = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"\n### What is recommended, beyond hits\n\nOf one run of each recommender, on test.\n\n{shown}\n\n{said}\n"


def beyond_section(beyond: pd.DataFrame) -> str:
    """The same as HTML of the page."""
    rows = [(escape(str(label)), *(f"{value:.4f}" for value in row)) for label, row in beyond.iterrows()]
    said = "".join(f"<li><code>{escape(name)}</code>: {escape(text)}</li>" for name, text in meanings().items())
    shown = table(("recommender", *beyond.columns), rows, range(1, len(beyond.columns) + 1), "metrics of lists")
    return details("What is recommended, beyond hits", f"{shown}<ul>{said}</ul>")
