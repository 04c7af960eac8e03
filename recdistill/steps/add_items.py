"""``add_items``: a new version of a served student with new items; nothing is trained, old scores stay bit for bit."""

import hashlib
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from recdistill.config import AddItemsConfig, changed
from recdistill.data.catalogue import Catalogue
from recdistill.data.item_texts import item_texts
from recdistill.data.new_item_files import read_item_vectors, read_new_items
from recdistill.errors import InputError
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import (
    log_student_model,
    student_folder,
)
from recdistill.runs.step_runs import step_run
from recdistill.steps.registered import registered
from recdistill.students.build import read_shape
from recdistill.students.catalogue_file import read_catalogue
from recdistill.students.kept_student import VECTORS_FOLDER, beside_of, load_kept, write_student
from recdistill.students.mapped import MappedStudent
from recdistill.students.terms_file import terms_of_student
from recdistill.views.item_vectors import ItemVectors

REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)[/@][^/]+")


@dataclass(frozen=True, eq=False)
class Served:
    """A served student.

    Attributes:
        model: it.
        catalogue: its items.
        exclude_seen: whether items of the history are never recommended.
        folder: where it lies, with the vectors of its items' texts.
    """

    model: MappedStudent
    catalogue: Catalogue
    exclude_seen: bool
    folder: Path


def add_items(config: AddItemsConfig) -> StepRun:
    """Add the items of a file to a served student; keep it as a run's model, and register it where asked for.

    A model that is given by the name it is registered under gets a new version there.
    """
    if not config.model:
        raise InputError("model=: say which student gets the items; set model=<run of map_items>, or models:/name/1")
    folder, address = student_folder(config.model)
    served = read_served(config.model, folder)
    items = read_new_items(config.items, config.columns, served.catalogue.item_ids, text_columns(config, served))
    known = REGISTERED.fullmatch(config.model)
    name = config.register or (known["name"] if known else "")
    fingerprint = hashlib.sha256("\n".join(served.catalogue.item_ids).encode("utf-8", "surrogatepass")).hexdigest()
    with step_run("add_items", changed(config, model=address), data=fingerprint) as run:
        if not run.reused:
            keep(run, served, items, vectors_of(config, served, items, run))
            run.describe(f"{len(items):,} items added to the student {config.model}, of {len(served.catalogue):,}.")
    written = registered(run, name) if name else run.run_id
    print(f"{len(items):,} items added to {config.model}: {written}", flush=True)
    return run


def read_served(model: str, folder: Path) -> Served:
    """The student of a logged model. Raises InputError where it keeps no map from texts."""
    found = load_kept(folder)
    if not isinstance(found, MappedStudent):
        raise InputError(f"model={model}: keeps no map from texts to items; run map_items on its run first")
    catalogue, exclude_seen = read_catalogue(folder)
    return Served(found, catalogue, exclude_seen, folder)


def text_columns(config: AddItemsConfig, served: Served) -> list[str]:
    """The columns, title aside, that an item's text is made of; none where vectors are given."""
    return [] if config.vectors else list(served.model.new_item_map.texts["columns"])


def vectors_of(config: AddItemsConfig, served: Served, items: pd.DataFrame, run: StepRun) -> NDArray[np.float32]:
    """Vectors [m, D] of the new items, given or by their texts; logs what these took."""
    started, tokens = time.perf_counter(), 0
    if config.vectors:
        size = len(served.model.new_item_map.map.weight)
        found = read_item_vectors(config.vectors, items["item"].tolist(), size)
    else:
        texts = texts_of(served, items)
        vectors = ItemVectors.load(served.folder / VECTORS_FOLDER, device=config.device)
        found = vectors.of(texts)
        tokens = sum(view.cost(texts).tokens for view in vectors.views.values())
    seconds = time.perf_counter() - started
    run.log_metrics({"add/items": len(items), "add/seconds": seconds, "add/text_tokens": tokens})
    return found


def texts_of(served: Served, items: pd.DataFrame) -> tuple[str, ...]:
    """The new items' texts, made as those of the old ones."""
    about = served.model.new_item_map.texts
    columns = {name: items[name].tolist() for name in about["columns"]}
    return item_texts(items["title"].tolist(), columns, about["item_text"], about["text_template"])


def keep(run: StepRun, served: Served, items: pd.DataFrame, vectors: NDArray[np.float32]) -> None:
    """Keep the student with the new items, as the artifact ``student`` and as a model."""
    old, shape = served.catalogue, read_shape(served.folder)
    terms = terms_of_student(served.folder)
    model = served.model.with_items(shape, torch.from_numpy(vectors))
    count = np.concatenate([old.item_count, np.zeros(len(items), dtype=np.int64)])
    ids, titles = (*old.item_ids, *items["item"]), (*old.titles, *items["title"])
    catalogue, seen = replace(old, item_ids=ids, titles=titles, item_count=count), served.exclude_seen
    beside = beside_of(served.folder)

    def write(folder: Path) -> None:
        write_student(folder, model, shape, catalogue=catalogue, exclude_seen=seen, beside=beside, terms=terms)

    run.log_folder("student", write)
    run.tag_terms(terms)
    log_student_model(run.run_id, model, shape, catalogue=catalogue, exclude_seen=seen, beside=beside, terms=terms)
