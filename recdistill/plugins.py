"""Users' own modules (``plugin=``): importing one registers its students, policies, sources and other parts.

A plugin is the name of a module, the path of a Python file, or a name that an installed package declares in the entry
point group ``recdistill.plugins``. Several are separated by commas.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from recdistill.errors import InputError, one_line
from recdistill.registry import generation

GROUP = "recdistill.plugins"
_loaded: dict[str, ModuleType] = {}


def load_plugins(names: str) -> list[ModuleType]:
    """Import the plugins named, each once a process.

    Raises InputError, one line, where one cannot be imported or registers no part.
    """
    return [_load(name.strip()) for name in names.split(",") if name.strip()]


def _load(name: str) -> ModuleType:
    if name not in _loaded:
        before, known = generation(), set(sys.modules)
        try:
            module = _imported(name)
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            said = one_line(f"{type(error).__name__}: {error}")
            raise InputError(f"plugin={name}: cannot be imported ({said})") from error
        if generation() == before and module.__name__ not in known:
            # Not of a module that was imported before, and registered its parts then.
            sys.modules.pop(module.__name__, None)
            what = "" if getattr(module, "__file__", None) else "is a folder without __init__.py and "
            raise InputError(
                f"plugin={name}: {what}registers no part; write @STUDENTS.register(...), or that of another kind, "
                "above each part"
            )
        _loaded[name] = module
    return _loaded[name]


def _imported(name: str) -> ModuleType:
    path = Path(name).expanduser()
    if path.suffix == ".py":
        return _module_of_file(name, path)
    for declared in importlib.metadata.entry_points(group=GROUP, name=name):
        return importlib.import_module(declared.module)
    # As `python -m` does, and a console script does not: a module beside the user counts.
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"plugin={name}: there is no such module, in {here} or installed; give its name or a .py file"
            )
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)


def _module_of_file(name: str, path: Path) -> ModuleType:
    """A Python file as a module that others can import by its name without the ending."""
    if not path.is_file():
        raise InputError(f"plugin={name}: there is no file {path.absolute()}")
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path.resolve():
        return known
    spec = importlib.util.find_spec(path.stem) if known is None else known.__spec__
    if spec is not None and Path(spec.origin or "").resolve() == path.resolve():
        return importlib.import_module(path.stem)
    if known is not None or spec is not None:
        raise InputError(f"plugin={name}: a module named {path.stem} is installed already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
