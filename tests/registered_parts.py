"""Parts that a test registers, and that are gone after it."""

from collections.abc import Iterator
from contextlib import contextmanager

from recdistill import registry
from recdistill.config import base


@contextmanager
def registries_restored() -> Iterator[None]:
    """What is registered inside is known inside alone."""
    known = [(one, dict(one._known())) for one in registry.REGISTRIES]
    generations, tables = list(registry._generation), dict(base._tables)
    try:
        yield
    finally:
        for one, declared in known:
            # A module is imported once: what it registered of ours stays, but not a class of ours by another name.
            now = one._known()
            one._declared = {name: now[name] if now[name].is_ours else part for name, part in declared.items()}
        registry._generation[:] = generations
        base._tables.clear()
        base._tables.update(tables)
