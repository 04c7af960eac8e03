"""The catalogue beside a saved recommender: ids and titles of its items, and whether seen ones are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError

CATALOGUE_FILE = "catalogue.json"


def write_catalogue(folder: str | Path, catalogue: Catalogue, exclude_seen: bool) -> None:
    """Write ``catalogue.json`` into a folder that is there."""
    values: dict[str, Any] = {
        "item_ids": list(catalogue.item_ids),
        "titles": list(catalogue.titles),
        "item_count": [int(count) for count in catalogue.item_count],
        "exclude_seen": exclude_seen,
    }
    if len(catalogue.retired):
        values["retired"] = catalogue.retired.tolist()
    if catalogue.refit_of:
        values["refit_of"] = catalogue.refit_of
    if catalogue.splitting:
        values["splitting"] = dict(catalogue.splitting)
    (Path(folder) / CATALOGUE_FILE).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def read_catalogue(folder: str | Path) -> tuple[Catalogue, bool]:
    """The catalogue and ``exclude_seen`` of `write_catalogue`. Raises InputError where they cannot be read."""
    path = Path(folder) / CATALOGUE_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        count = np.asarray(values["item_count"], dtype=np.int64)
        retired = np.asarray(values.get("retired", ()), dtype=np.int64)
        refit_of = str(values.get("refit_of", ""))
        splitting = dict(values.get("splitting", {}))
        catalogue = Catalogue(tuple(values["item_ids"]), tuple(values["titles"]), count, retired, refit_of, splitting)
        return catalogue, bool(values["exclude_seen"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no catalogue of a student ({error}); save the student again") from None
