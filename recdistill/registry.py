"""The doors of the house: parts by name, each registered from its own file, listed without running that file.

A part is a student, source, split, gate, selection policy, teacher, loss term, metric or view. It registers itself::

    @STUDENTS.register("mean", options=MeanOptions, needs_gradient=True)
    class MeanStudent(Student): ...

The names, the options and the literal keywords of a part are read from the text of its file (`declared_in`), so that
``--help`` and a mistaken name need no PyTorch. The file itself is imported when the part is first used. Parts of a
user's module (``plugin=``) are registered when that module is imported.
"""

import ast
import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from recdistill.errors import InputError

PACKAGE = Path(__file__).resolve().parent
Part = TypeVar("Part")


@dataclass
class Declaration:
    """What is known of a part before it is imported.

    Attributes:
        name: to choose it by.
        module: where it is defined.
        file: of that module.
        options: frozen dataclass of its own options, or None.
        about: literal keywords of its registration.
        part: the part, once its module is imported.
    """

    name: str
    module: str
    file: Path
    options: type | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    part: Any = None

    @property
    def is_ours(self) -> bool:
        """Whether the part comes with the package, and not from a user's module."""
        return self.file.is_relative_to(PACKAGE)

    def content(self) -> str:
        """A digest of the part's own source, where that is written in no file, as in a notebook."""
        try:
            text = inspect.getsource(self.part)
        except (OSError, TypeError):  # typed at a prompt
            text = repr(self.name)
        return hashlib.sha256(text.encode()).hexdigest()


#: What users' modules have registered so far, in this process.
_generation: list[str] = []


def generation() -> int:
    """Grows with each part that a user's module registers; what was computed from the registries is then stale."""
    return len(_generation)


class Registry:
    """Parts of one kind.

    Args:
        kind: what messages call a part, e.g. ``student``.
        variable: name of the module-level variable that holds the registry, which registrations are found by.
        package: the room whose files register parts, e.g. ``recdistill.students``.
    """

    def __init__(self, kind: str, variable: str, package: str) -> None:
        self.kind = kind
        self.variable = variable
        self.package = package
        self._declared: dict[str, Declaration] | None = None

    def register(self, name: str, *, options: type | None = None, **about: Any) -> Callable[[Part], Part]:
        """Add the decorated class or function under ``name``.

        Args:
            name: to choose it by; given as a literal, so that it can be read without importing the file.
            options: frozen dataclass of the part's own options, each made by `recdistill.config.option.option`.
            about: what the room reads of a part before it is imported; literals.

        Raises:
            InputError: another part has the name.
        """

        def add(part: Part) -> Part:
            module = sys.modules[part.__module__]
            known = self._known().get(name)
            if known is not None and known.module != part.__module__:
                raise InputError(f"a {self.kind} named {name!r} exists, in {known.module}; give yours another name")
            file = Path(getattr(module, "__file__", None) or "nowhere (notebook or prompt)").resolve()
            found = Declaration(name, part.__module__, file, options, about, part)
            self._known()[name] = found
            if not found.is_ours:
                _generation.append(name)
            return part

        return add

    def names(self, **about: Any) -> tuple[str, ...]:
        """Names of all parts, in alphabetical order; with keywords, of those registered with these values."""
        return tuple(
            sorted(
                name
                for name, one in self._known().items()
                if all(one.about.get(key) == value for key, value in about.items())
            )
        )

    def declaration(self, name: str) -> Declaration:
        """What is known of a part. Raises InputError, naming the nearest, where there is none of that name."""
        known = self._known()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" (nearest: {near[0]})" if near else ""
            raise InputError(f"{self.kind} {name!r} is unknown; choose one of {', '.join(self.names())}{hint}")
        return known[name]

    def get(self, name: str) -> Any:
        """The part itself, its file imported. Raises InputError as `declaration`."""
        found = self.declaration(name)
        if found.part is None:
            importlib.import_module(found.module)
            found = self.declaration(name)
        return found.part

    def options(self, name: str) -> type | None:
        """Dataclass of the part's own options, or None; its file need not be imported."""
        return self.declaration(name).options

    def name_of(self, part: Any) -> str:
        """The name that a part is registered under. Raises KeyError where it is not."""
        for name, one in self._known().items():
            if one.part is part:
                return name
        raise KeyError(part)

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def _known(self) -> dict[str, Declaration]:
        if self._declared is None:
            self._declared = {}
            folder = PACKAGE.joinpath(*self.package.split(".")[1:])
            for file in sorted(folder.rglob("*.py")):
                module = ".".join((self.package, *file.relative_to(folder).with_suffix("").parts))
                self._declared |= {one.name: one for one in declared_in(file, module, self.variable)}
        return self._declared


def declared_in(file: Path, module: str, variable: str) -> list[Declaration]:
    """The parts that a file registers with the registry named ``variable``, read from its text alone."""
    text = file.read_text(encoding="utf-8")
    if f"@{variable}.register(" not in text:
        return []
    tree = _parsed(file, text)
    found = []
    for node in tree.body:
        for decorator in getattr(node, "decorator_list", []):
            call = _registration(decorator, variable)
            if call is not None:
                keywords = {one.arg: one.value for one in call.keywords if one.arg is not None}
                options = keywords.pop("options", None)
                kind = _options_class(file, tree, options.id) if isinstance(options, ast.Name) else None
                about = {name: ast.literal_eval(value) for name, value in keywords.items()}
                found.append(Declaration(ast.literal_eval(call.args[0]), module, file, kind, about))
    return found


@functools.lru_cache(maxsize=256)
def _parsed(file: Path, text: str) -> ast.Module:
    return ast.parse(text, str(file))


def _registration(decorator: ast.expr, variable: str) -> ast.Call | None:
    """The call where a decorator is ``variable.register(...)``."""
    if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute):
        called = decorator.func
        if called.attr == "register" and isinstance(called.value, ast.Name) and called.value.id == variable:
            return decorator
    return None


def _options_class(file: Path, tree: ast.Module, name: str) -> type:
    """The dataclass of options that a file defines under ``name``, made from the literals that stand there.

    Its fields are ``name: type = option(...)`` with literal arguments; its bases stand in the same file or in a module
    of `recdistill.config`. Raises InputError where it is written otherwise.
    """
    node = next((one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name), None)
    if node is None:
        return _imported_class(file, tree, name)
    bases = tuple(_options_class(file, tree, base.id) for base in node.bases if isinstance(base, ast.Name))
    fields = []
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            try:
                fields.append((line.target.id, _type_of(line.annotation), _option_of(line.value)))
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{file}:{line.lineno}: write the option {line.target.id} as `name: type = option(...)`, with "
                    "a type of int, float, bool, str or Literal, and literals for its arguments"
                ) from None
    return dataclasses.make_dataclass(name, fields, bases=bases, frozen=True, kw_only=True)


def _imported_class(file: Path, tree: ast.Module, name: str) -> type:
    """The class that a file imports under ``name`` from a module of options."""
    for line in tree.body:
        if isinstance(line, ast.ImportFrom) and (line.module or "").startswith("recdistill.config"):
            for one in line.names:
                if (one.asname or one.name) == name:
                    return typing.cast(type, getattr(importlib.import_module(str(line.module)), one.name))
    raise InputError(f"{file}: has no class {name} of options; define it in the same file")


def _type_of(annotation: ast.expr) -> Any:
    """int, float, bool, str or a Literal, as an option's type is written."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        if annotation.value.id != "Literal":
            raise ValueError(annotation.value.id)
        values = ast.literal_eval(annotation.slice)
        return typing.Literal[tuple(values) if isinstance(values, tuple) else (values,)]  # type: ignore[misc]
    if not isinstance(annotation, ast.Name):
        raise ValueError(ast.dump(annotation))
    return {"int": int, "float": float, "bool": bool, "str": str}[annotation.id]


def _option_of(value: ast.expr | None) -> Any:
    """The dataclass field that a call of `recdistill.config.option` with literal arguments makes."""
    from recdistill.config.option import option

    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name) or value.func.id != "option":
        raise ValueError("no option")
    arguments = [ast.literal_eval(one) for one in value.args]
    return option(*arguments, **{str(one.arg): ast.literal_eval(one.value) for one in value.keywords})


STUDENTS = Registry("student", "STUDENTS", "recdistill.students")
SOURCES = Registry("data source", "SOURCES", "recdistill.data.sources")
SPLITS = Registry("split", "SPLITS", "recdistill.data.splits")
GATES = Registry("gate", "GATES", "recdistill.teachers.ilora.gates")
POLICIES = Registry("selection policy", "POLICIES", "recdistill.distillation.policies")
TEACHERS = Registry("teacher", "TEACHERS", "recdistill.teachers")
LOSS_TERMS = Registry("loss term", "LOSS_TERMS", "recdistill.distillation.terms")
METRICS = Registry("metric", "METRICS", "recdistill.evaluation.metrics")
VIEWS = Registry("view", "VIEWS", "recdistill.views")
REGISTRIES = (STUDENTS, SOURCES, SPLITS, GATES, POLICIES, TEACHERS, LOSS_TERMS, METRICS, VIEWS)
