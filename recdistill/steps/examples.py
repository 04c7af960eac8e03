"""What each recommender of a run of ``main`` says to ten users, and whom it serves well, read from its artifacts."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from recdistill.data.samples import Int64Array
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.rank_table import common_samples, sample_table
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
    whole = tables_of(found, "ranks/test.parquet", data, whole=True)
    if whole:
        log_slices(run, data, whole)
    ranks = whole if len(whole) == len(found) else tables_of(found, "ranks/test.parquet", data)
    tables = tables_of(found, "recommendations/test.parquet", data)
    if not tables:
        return None
    recommended = {name: table.set_index("sample")["items"] for name, table in tables.items()}
    names, ranked = list(recommended), next(iter(tables.values()))["sample"].to_numpy()
    samples = drawn_samples(data, seed, ranked)
    title_of = dict(zip(data.item_ids, data.titles, strict=True))
    examples = [example_of(data, sample, list(recommended.values()), title_of) for sample in samples]
    hits = (f"{name} {(ranks[name]['rank'] <= SHOWN).mean():.3f}" for name in names if name in ranks)
    which = f"all {len(ranked):,} test samples"
    if len(ranked) < len(data.test):
        which = f"the {len(ranked):,} of {len(data.test):,} test samples that all of them ranked"
    note = (
        f"{len(samples)} users drawn at random (seed {seed}), the first {SHOWN} items for each; {HIT} marks the item "
        f"that came next. HR@{SHOWN} over {which}: {'; '.join(hits)}."
    )
    if missing := [name for name in found if name not in recommended]:
        note += f" Left out, for no recommendations of it were kept: {', '.join(missing)}."
    run.log_text("examples.md", examples_markdown(names, examples, note))
    run.log_text("examples.html", examples_page(names, examples, note))
    return Examples(names, examples, note)


def tables_of(
    found: Mapping[str, StepRun], artifact: str, data: SequenceData, *, whole: bool = False
) -> dict[str, pd.DataFrame]:
    """The tables of that name, of the runs that keep one with a row for each test sample, or for each of some users.

    Where they must be ``whole``, those of some users are left out. They have the rows of the samples that all of them
    have, and a column ``sample``, the number of each in the data.
    """
    wanted = sample_table(data.test, data)
    tables: dict[str, pd.DataFrame] = {}
    for name, of in found.items():
        try:
            table = pd.read_parquet(of.artifact(artifact))
        except (InputError, OSError, ValueError):
            continue
        known, _ = common_samples([table, wanted])
        if len(known) == len(table) and (len(table) == len(wanted) or not whole):
            tables[name] = table
    sample, *places = common_samples([wanted, *tables.values()])
    return {
        name: table.iloc[place].assign(sample=sample)
        for (name, table), place in zip(tables.items(), places, strict=True)
    }


def drawn_samples(data: SequenceData, seed: int, ranked: Int64Array | None = None) -> list[int]:
    """The last test sample of each of ten users, or of all where there are fewer; of those of ``ranked`` samples."""
    users = np.unique(data.test.user if ranked is None else data.test.user[ranked])
    drawn = np.random.default_rng(seed).choice(users, min(USERS, len(users)), replace=False)
    return [int(np.flatnonzero(data.test.user == user)[-1]) for user in np.sort(drawn)]


def example_of(data: SequenceData, sample: int, recommended: list[pd.Series], title_of: Mapping[str, str]) -> Example:
    """A test sample with the first items that each of ``recommended`` has for it, lists by sample, as titles."""
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
            tuple((title_of[item], item == target) for item in lists[sample][:SHOWN]) for lists in recommended
        ),
    )
