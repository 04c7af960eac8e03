"""``retire_items``: a new version of a served student that no longer recommends some items; nothing is trained."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from recdistill.config import changed
from recdistill.config.retire_items import RetireItemsConfig
from recdistill.data.catalogue import Catalogue
from recdistill.data.columns import headers_of, refuse_unused
from recdistill.data.samples import Int64Array
from recdistill.data.table_files import existing_file, read_table
from recdistill.errors import InputError
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import (
    log_student_model,
    student_folder,
)
from recdistill.runs.step_runs import step_run
from recdistill.steps.add_items import REGISTERED
from recdistill.steps.registered import registered
from recdistill.students.build import read_shape
from recdistill.students.catalogue_file import read_catalogue
from recdistill.students.kept_student import beside_of, load_kept, write_student
from recdistill.students.terms_file import terms_of_student


def retire_items(config: RetireItemsConfig) -> StepRun:
    """Retire the items of a file, or bring them back; keep the student as a run's model, and register it where asked.

    Histories may still hold retired items. A model that is given by the name it is registered under gets a new version
    there.
    """
    if not config.model:
        raise InputError("model=: say which student; set model=<run of a student>, or models:/name/1")
    path = existing_file("items", config.items, "retire_items")
    folder, address = student_folder(config.model)
    catalogue, exclude_seen = read_catalogue(folder)
    items = items_of_file(path, config.columns, catalogue)
    retired = after(catalogue, items, config.restore)
    known = REGISTERED.fullmatch(config.model)
    name = config.register or (known["name"] if known else "")
    fingerprint = hashlib.sha256("\n".join(catalogue.item_ids).encode("utf-8", "surrogatepass")).hexdigest()
    done = "recommended again" if config.restore else "retired"
    with step_run("retire_items", changed(config, model=address), data=fingerprint) as run:
        if not run.reused:
            keep(run, folder, replace(catalogue, retired=retired), exclude_seen)
            run.log_metrics({"retire/items": len(items), "retire/retired": len(retired)})
            run.describe(
                f"{len(items):,} items of the student {config.model} {done}; {len(retired):,} of {len(catalogue):,} "
                "are retired."
            )
    written = registered(run, name) if name else run.run_id
    print(f"{len(items):,} items {done}, {len(retired):,} of {len(catalogue):,} in all: {written}", flush=True)
    return run


def items_of_file(path: Path, columns: str, catalogue: Catalogue) -> Int64Array:
    """Positions of the items of a file, each once. Raises InputError for an id that the student does not know."""
    headers = headers_of(columns)
    table, used = read_table(path, ("item",), headers)
    refuse_unused(columns, headers, used)
    position = pd.Index(catalogue.item_ids).get_indexer(pd.Index(table["item"]))
    unknown = np.flatnonzero(position < 0)
    if len(unknown):
        raise InputError(
            f"items={path}: row {unknown[0] + 1}: the student has no item {table['item'].iloc[unknown[0]]!r} "
            f"(in {len(unknown)} rows); leave these rows out"
        )
    return np.unique(position).astype(np.int64)


def after(catalogue: Catalogue, items: Int64Array, restore: bool) -> Int64Array:
    """The retired items then. Raises InputError where an item is so already, or none would be left."""
    needless = items[np.isin(items, catalogue.retired) != restore]
    if len(needless):
        raise InputError(
            f"items=: {catalogue.item_ids[needless[0]]!r} is {'not retired' if restore else 'retired already'} "
            f"({len(needless)} such items); leave such rows out"
        )
    found = np.setdiff1d(catalogue.retired, items) if restore else np.union1d(catalogue.retired, items)
    if len(found) == len(catalogue):
        raise InputError("items=: no item would be left to recommend; retire fewer")
    return found


def keep(run: StepRun, folder: Path, catalogue: Catalogue, exclude_seen: bool) -> None:
    """Keep the student over the catalogue, as the artifact ``student`` and as a model."""
    model, shape, terms = load_kept(folder), read_shape(folder), terms_of_student(folder)
    beside = beside_of(folder)

    def write(target: Path) -> None:
        write_student(target, model, shape, catalogue=catalogue, exclude_seen=exclude_seen, beside=beside, terms=terms)

    run.log_folder("student", write)
    run.tag_terms(terms)
    log_student_model(
        run.run_id, model, shape, catalogue=catalogue, exclude_seen=exclude_seen, beside=beside, terms=terms
    )
