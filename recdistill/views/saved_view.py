"""A view's folder: its options and identity as JSON, what it learnt as JSON and safetensors, and its standard map."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recdistill.errors import InputError, one_line
from recdistill.registry import VIEWS
from recdistill.views.build import build_view
from recdistill.views.view import View, ViewContext

VALUES_FILE = "view.json"
ARRAYS_FILE = "view.safetensors"


def save_view(view: View, folder: str | Path) -> None:
    """Write the view into a folder, made where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values, arrays = view.state()
    described = {
        "view": VIEWS.name_of(type(view)),
        "options": asdict(view.options) if view.options is not None else {},
        "identity": view.identity(),
        "learnt": values,
    }
    save_file(dict(arrays), folder / ARRAYS_FILE)
    (folder / VALUES_FILE).write_text(json.dumps(described, ensure_ascii=False) + "\n", encoding="utf-8")


def load_view(folder: str | Path, context: ViewContext | None = None, **options: Any) -> View:
    """The view that `save_view` wrote. A model is loaded only where new texts come.

    Args:
        folder: of it.
        context: device and teacher.
        options: own options of the view that are other than they were, as where a local model lies now.

    Raises:
        InputError: a file is missing or damaged, or the model at hand is another one.
    """
    folder = Path(folder)
    try:
        described = json.loads((folder / VALUES_FILE).read_text(encoding="utf-8"))
        name, kept = str(described["view"]), dict(described["options"]) | options
        arrays = load_file(folder / ARRAYS_FILE)
        kind = VIEWS.options(name)
        own = None if kind is None else _options(name, kept)
        view = build_view(name, own, context)
        view.restore(described["identity"], described["learnt"], arrays)
        return view
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: is no saved view ({one_line(error)}); save it again") from None


def _options(name: str, values: dict[str, Any]) -> Any:
    """The view's options, checked no further: those that an older version lacks have their defaults."""
    VIEWS.get(name)
    kind = VIEWS.options(name)
    assert kind is not None
    return kind(**{spec.name: values[spec.name] for spec in fields(kind) if spec.name in values})
