"""All items' vectors by their texts: several views, each standardised, side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recdistill.config.views import ViewsConfig
from recdistill.errors import InputError, one_line
from recdistill.registry import VIEWS
from recdistill.views.build import build_views, fit_view, view_context, view_vectors
from recdistill.views.saved_view import load_view, save_view
from recdistill.views.standardise import Standardiser
from recdistill.views.text_teacher import TextTeacher
from recdistill.views.vector_cache import digest_rows, text_digest
from recdistill.views.view import Cost, Float32Array, View
from recdistill.whole_files import whole_folder

VALUES_FILE = "item_vectors.json"
ARRAYS_FILE = "item_vectors.safetensors"
VIEWS_FOLDER = "views"


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """Vectors of V items and of any new text, by one map that the trained items' texts gave.

    Attributes:
        views: by name, in alphabetical order.
        maps: each view's standardiser, by name.
        table: float32 [V, D]; the rows of blank texts are 0, which is the trained items' mean.
        digests: uint8 [V, 32], of the texts.
        costs: what each view's vectors of the V texts took when they were made, by name.
    """

    views: dict[str, View]
    maps: dict[str, Standardiser]
    table: Float32Array
    digests: NDArray[np.uint8]
    costs: dict[str, Cost]

    @classmethod
    def fit(
        cls,
        config: ViewsConfig,
        texts: Sequence[str],
        trained: NDArray[np.bool_],
        teacher: TextTeacher | None = None,
        device: str | torch.device = "auto",
    ) -> Self:
        """Make the vectors of all items; what is learnt is learnt from the trained ones with a text.

        Args:
            config: which views, and how they are standardised; nothing left open (`ViewsConfig.alternatives`).
            texts: V of them.
            trained: bool [V], whether an item is a training target.
            teacher: gives the view ``teacher`` its vectors.
            device: for views that compute with a model.

        Raises:
            InputError: the views cannot be built, the sizes do not fit, no trained item has a text, or all trained
                items have the same.
        """
        if len(trained) != len(texts):
            raise InputError(f"views: {len(trained)} items and {len(texts)} texts; give each item one")
        views = build_views(config, view_context(device, teacher))
        known = [text for text, one in zip(texts, trained, strict=True) if one and text.strip()]
        if len(known) < 2:
            raise InputError("views: fewer than two trained items have a text; give the items file titles")
        maps, costs = {}, {}
        for name, view in views.items():
            fit_view(name, view, known)
            # All texts at once: a model is loaded, and a view's texts are read, in one go.
            vectors = dict(zip(texts, view_vectors(name, view, texts), strict=True))
            view.release()
            maps[name] = Standardiser.fit(
                np.stack([vectors[text] for text in known]), config.view_directions, config.view_whitening
            )
            costs[name] = view.cost(texts)
        table = _together(views, maps, texts)
        return cls(views, maps, table, digest_rows(texts), costs)

    @property
    def names(self) -> tuple[str, ...]:
        """The views, in alphabetical order: their columns stand in this order."""
        return tuple(self.views)

    @property
    def size(self) -> int:
        """D."""
        return int(self.table.shape[1])

    @property
    def identity(self) -> dict[str, Any]:
        """What makes each view's vectors, by name, as JSON values."""
        return {name: view.identity() for name, view in self.views.items()}

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the models that made the vectors, a sentence each; they are also those of the vectors."""
        return tuple(dict.fromkeys(said for view in self.views.values() if (said := view.terms())))

    def of(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, D]: the table's rows for its texts, and new texts by the same map. Raises InputError."""
        row = {one.tobytes(): place for place, one in reversed(list(enumerate(self.digests)))}
        places = [row.get(text_digest(text), -1) for text in texts]
        new = [place for place, known in enumerate(places) if known < 0]
        found = self.table[places] if len(self.table) else np.zeros((len(texts), self.size), dtype=np.float32)
        if new:
            found[new] = self.computed([texts[place] for place in new])
        return found

    def computed(self, texts: Sequence[str]) -> Float32Array:
        """float32 [n, D], every text through views and maps, also one that the table has. Raises InputError."""
        return _together(self.views, self.maps, texts)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` reads, replacing what is there; it appears only when complete."""
        with whole_folder(Path(folder), replace=True) as complete:
            arrays: dict[str, NDArray[Any]] = {"table": self.table, "digests": self.digests}
            for name, view in self.views.items():
                save_view(view, complete / VIEWS_FOLDER / name)
                arrays |= {f"{name} {part}": array for part, array in self.maps[name].arrays().items()}
            described = {
                "names": list(self.names),
                "identity": self.identity,
                "terms": list(self.terms),
                "costs": {name: {"tokens": one.tokens, "seconds": one.seconds} for name, one in self.costs.items()},
            }
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, complete / ARRAYS_FILE)
            text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
            (complete / VALUES_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        teacher: TextTeacher | None = None,
        device: str | torch.device = "auto",
        **options: Any,
    ) -> Self:
        """What `save` wrote. Models are loaded only where new texts come.

        Args:
            folder: of it.
            teacher: for new texts of the view ``teacher``.
            device: for views that compute with a model.
            options: own options of views that are other than they were, as ``view_llm`` where a local model has moved.

        Raises:
            InputError: a file is missing or damaged, or a view's model at hand is another one.
        """
        folder = Path(folder)
        try:
            described = json.loads((folder / VALUES_FILE).read_text(encoding="utf-8"))
            names = [str(name) for name in described["names"]]
            costs = {name: Cost(int(one["tokens"]), float(one["seconds"])) for name, one in described["costs"].items()}
            arrays = load_file(folder / ARRAYS_FILE)
            maps = {name: Standardiser(arrays[f"{name} mean"], arrays[f"{name} directions"]) for name in names}
            table, digests = arrays["table"], arrays["digests"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise InputError(f"{folder}: holds no items' vectors ({one_line(error)}); make them again") from None
        for name in names:
            if name not in VIEWS.names():
                raise InputError(
                    f"{folder}: names the view {one_line(name, 60)!r}; there are {', '.join(VIEWS.names())}, others "
                    "with plugin="
                )
        context = view_context(device, teacher)
        views = {name: load_view(folder / VIEWS_FOLDER / name, context, **options) for name in names}
        return cls(views, maps, table, digests, costs)


def _together(views: dict[str, View], maps: dict[str, Standardiser], texts: Sequence[str]) -> Float32Array:
    """Standard vectors of all views side by side [n, D]; zeros for blank texts."""
    parts = []
    for name, view in views.items():
        parts.append(maps[name](view_vectors(name, view, texts)))
        view.release()
    found = np.concatenate(parts, axis=1)
    found[[not text.strip() for text in texts]] = 0
    return found
