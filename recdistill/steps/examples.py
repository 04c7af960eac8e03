"""What each recommender of a run of ``main`` says to ten users, and whom it serves well, read from its artifacts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.report.examples import HIT, Example, examples_markdown, examples_page
from recdistill.report.main_page import Examples
from recdistill.runs.run import StepRun
from recdistill.steps.results import log_slices

USERS, SHOWN, HISTORY = 10, 5, 5


def log_examples(run: StepRun, data: SequenceData, found: Mapping[str, StepRun], seed: int) -> Examples | None:
    """Log ``examples.md``, ``examples.html`` and ``figures/slices.*`` of the runs ``found``, named recommenders.

    A run that keeps no ranks or recommendations (it is older than they are) is left out. Returns the examples, or None
    where no run keeps recommendations.
    """
    ranks = tables_of(found, "ranks/test.parquet", data)
    if ranks:
        log_slices(run, data, ranks)
    recommended = tables_of(found, "recommendations/test.parquet", data)
    if not recommended:
        return None
    names, samples = list(recommended), drawn_samples(data, seed)
    title_of = dict(zip(data.item_ids, data.titles, strict=True))
    examples = [example_of(data, sample, list(recommended.values()), title_of) for sample in samples]
    hits = (f"{name} {found[name].metrics()[f'test/hr_at_{SHOWN}']:.3f}" for name in names)
    note = (
        f"{len(samples)} users drawn at random (seed {seed}), the first {SHOWN} items for each; {HIT} marks the item "
        f"that came next. HR@{SHOWN} over all {len(data.test):,} test samples: {'; '.join(hits)}."
    )
    if missing := [name for name in found if name not in recommended]:
        note += f" Left out, for no recommendations of it were kept: {', '.join(missing)}."
    run.log_text("examples.md", examples_markdown(names, examples, note))
    run.log_text("examples.html", examples_page(names, examples, note))
    return Examples(names, examples, note)


def tables_of(found: Mapping[str, StepRun], artifact: str, data: SequenceData) -> dict[str, pd.DataFrame]:
    """The tables of that name, of the runs that keep one with a row for each test sample."""
    users = [data.user_ids[user] for user in data.test.user]
    targets = [data.item_ids[item] for item in data.test.targets]
    tables = {}
    for name, of in found.items():
        try:
            table = pd.read_parquet(of.artifact(artifact))
        except (InputError, OSError, ValueError):
            continue
        if table["user"].tolist() == users and table["item"].tolist() == targets:
            tables[name] = table
    return tables


def drawn_samples(data: SequenceData, seed: int) -> list[int]:
    """The last test sample of each of ten users, or of all where there are fewer."""
    users = np.unique(data.test.user)
    drawn = np.random.default_rng(seed).choice(users, min(USERS, len(users)), replace=False)
    return [int(np.flatnonzero(data.test.user == user)[-1]) for user in np.sort(drawn)]


def example_of(
    data: SequenceData, sample: int, recommended: list[pd.DataFrame], title_of: Mapping[str, str]
) -> Example:
    """A test sample with the first items that each table of ``recommended`` has for it, as titles."""
    start, end = int(data.test.start[sample]), int(data.test.end[sample])
    begin = max(start, end - HISTORY)
    following = int(data.test.targets[sample])
    target = data.item_ids[following]
    return Example(
        user=data.user_ids[data.test.user[sample]],
        history=tuple(data.titles[item] for item in data.test.items[begin:end]),
        earlier=begin - start,
        following=data.titles[following],
        recommended=tuple(
            tuple((title_of[item], item == target) for item in table["items"][sample][:SHOWN]) for table in recommended
        ),
    )
