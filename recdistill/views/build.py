"""Views built from options."""

from typing import Any

import torch

from recdistill.config.views import OR, ViewsConfig
from recdistill.errors import InputError
from recdistill.registry import VIEWS
from recdistill.views.text_teacher import TextTeacher
from recdistill.views.view import View, ViewContext


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
    views = {name: build_view(name, config.of_part(VIEWS, name), context) for name in config.view_names}
    for view in views.values():
        view.check()
    return views
