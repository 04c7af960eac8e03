"""Views built from options."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recdistill.config.views import OR, ViewsConfig
from recdistill.errors import InputError, one_line
from recdistill.registry import VIEWS
from recdistill.views.text_teacher import TextTeacher
from recdistill.views.view import Float32Array, View, ViewContext


def view_context(device: str | torch.device = "auto", teacher: TextTeacher | None = None) -> ViewContext:
    """The context of a device's name; ``auto`` is CUDA where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return ViewContext(torch.device(device), teacher)


def build_view(name: str, options: Any = None, context: ViewContext | None = None) -> View:
    """A registered view with its options, their defaults where ``options`` is None.

    Raises InputError where there is no view of that name, or its options lack something.
    """
    kind = VIEWS.get(name)
    of_options = VIEWS.options(name)
    if options is None and of_options is not None:
        options = of_options()
    view: View = kind(options, context or ViewContext())
    return view


def build_views(config: ViewsConfig, context: ViewContext) -> dict[str, View]:
    """The views that options choose, by name. It is quick, and so a check before any expensive work.

    Raises InputError where none is chosen, a choice is left open, or a view's options lack something.
    """
    if OR in config.views:
        raise InputError(f"views={config.views}: is a choice for validation; give one of them here")
    if not config.view_names:
        raise InputError("views=: names no view; give one, as views=tfidf")
    views = {}
    for name in config.view_names:
        with VIEWS.calling(name):
            views[name] = build_view(name, config.of_part(VIEWS, name), context)
    for name, view in views.items():
        with VIEWS.calling(name):
            view.check()
    return views


def fit_view(name: str, view: View, texts: Sequence[str]) -> None:
    """Fit a view. Raises InputError where a user's view fails, or its identity is not made of JSON values."""
    with VIEWS.calling(name):
        # A copy: others read the same texts.
        view.fit(texts if VIEWS.is_ours(name) else list(texts))
    if VIEWS.is_ours(name):
        return
    with VIEWS.calling(name):
        identity = view.identity()
    try:
        is_json = isinstance(identity, dict) and json.loads(json.dumps(identity, allow_nan=False)) == identity
    except (TypeError, ValueError):
        is_json = False
    if not is_json:
        raise InputError(
            f"view {name!r}: identity is {one_line(repr(identity), 60)}; give a dict of texts, numbers, lists and "
            "dicts, as JSON has them"
        )


def view_vectors(name: str, view: View, texts: Sequence[str]) -> Float32Array:
    """A view's vectors float32 [n, D]. Raises InputError where a user's view fails, or gives something else."""
    with VIEWS.calling(name):
        # A copy: others read the same texts.
        found = view.vectors(texts if VIEWS.is_ours(name) else list(texts))
    if VIEWS.is_ours(name):
        return found
    if not isinstance(found, np.ndarray) or found.ndim != 2 or len(found) != len(texts) or found.dtype.kind != "f":
        said = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        raise InputError(
            f"view {name!r}: gives {said} for {len(texts)} texts; give a NumPy array float32 [{len(texts)}, D]; "
            "recdistill.testing.check_view tells more"
        )
    if not bool(np.isfinite(found).all()):
        raise InputError(f"view {name!r}: gives NaN or infinity; a blank text may have zeros")
    return found.astype(np.float32, copy=False)
