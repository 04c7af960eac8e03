"""The doors of the house: parts by name, each registered from its own file, listed without running that file.

A part is a student, source, split, gate, selection policy, teacher, loss term, metric or view. It registers itself::

    @STUDENTS.register("mean", options=MeanOptions, gradient=True)
    class MeanStudent(Student): ...

The names, the options and the literal keywords of a part are read from the text of its file (`declared_in`), so that
``--help`` and a mistaken name need no PyTorch. The file itself is imported when the part is first used. Parts of a
user's module (``plugin=``) are registered when that module is imported.

What a user's part raises when it is called is said in one line, see `Registry.calling` and `part_errors`.
"""

import ast
import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import logging
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, TypeVar

from recdistill.errors import InputError, Pruned, one_line

PACKAGE = Path(__file__).resolve().parent
Part = TypeVar("Part")
#: What a part may be named: it becomes a word of a command line, and part of the names of files and runs.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
#: Where the name becomes part of an option's or a result's name.
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
#: How the name of a metric with a cut-off ends: no name of a metric may, so that no two metrics write one result.
CUT_OFF = re.compile(r"_at_\d+$")


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


@dataclass(frozen=True)
class Keyword:
    """What a registration may say of a part.

    Attributes:
        allows: whether a value is one.
        said: the values, in words, for messages.
        required: whether each registration gives it.
    """

    allows: Callable[[Any], bool]
    said: str
    required: bool = False


class Registry:
    """Parts of one kind.

    Args:
        kind: what messages call a part, e.g. ``student``.
        variable: name of the module-level variable that holds the registry, which registrations are found by.
        package: the room whose files register parts, e.g. ``recdistill.students``.
        suite: the function of `recdistill.testing` that checks a part.
        base: ``module:Class`` that each part is derived from; "" for parts that are called, as functions.
        keywords: what a registration may say of a part, by name.
        names_like: what a name has to match as a whole.
        taken: names that no part may have: runs use them otherwise.
        taken_by: ``module:Class`` whose objects' attributes no part may be named like; "" for none.
        fits: further check of a name and its keywords; what is wrong, in words, or "".
    """

    def __init__(
        self,
        kind: str,
        variable: str,
        package: str,
        *,
        suite: str,
        base: str = "",
        keywords: Mapping[str, Keyword] | None = None,
        names_like: re.Pattern[str] = NAME,
        taken: tuple[str, ...] = (),
        taken_by: str = "",
        fits: Callable[[str, Mapping[str, Any]], str] = lambda name, about: "",
    ) -> None:
        self.kind = kind
        self.variable = variable
        self.package = package
        self.suite = suite
        self.base = base
        self.keywords = dict(keywords or {})
        self.names_like = names_like
        self.taken = taken
        self.taken_by = taken_by
        self.fits = fits
        self._declared: dict[str, Declaration] | None = None

    def register(self, name: str, *, options: type | None = None, **about: Any) -> Callable[[Part], Part]:
        """Add the decorated class or function under ``name``.

        Args:
            name: to choose it by; given as a literal, so that it can be read without importing the file.
            options: frozen dataclass of the part's own options, each made by `recdistill.config.option.option`.
            about: what the room reads of a part before it is imported; literals, see `keywords`.

        Raises:
            InputError: another part has the name, the name cannot be used, or a keyword is unknown, missing or has
                another value than it may.
        """

        if not isinstance(name, str):
            where = getattr(name, "__name__", repr(name))
            raise InputError(f"{self.kind} {where}: has no name; write @{self.variable}.register('its name') above it")

        def add(part: Part) -> Part:
            module = sys.modules[part.__module__]
            known = self._known().get(name)
            if known is not None and known.module != part.__module__:
                raise InputError(f"a {self.kind} named {name!r} exists, in {known.module}; give yours another name")
            file = Path(getattr(module, "__file__", None) or "nowhere (notebook or prompt)").resolve()
            self._check_name(name)
            self._check_keywords(name, about)
            found = Declaration(name, part.__module__, file, options, about, part)
            if known is not None and not found.is_ours and self._stands_twice(name, file):
                raise InputError(
                    f"{self.kind} {name!r}: {file.name} registers two of this name; give each a name of its own"
                )
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
        """The part itself, its file imported.

        Raises InputError as `declaration`, or where a user's part is no class of its kind, or cannot be called.
        """
        part = self.part(name)
        declared = self.declaration(name)
        if not declared.is_ours:
            self._check_kind(declared)
        return part

    def part(self, name: str) -> Any:
        """As `get`, whatever a user's part is."""
        found = self.declaration(name)
        if found.part is None:
            importlib.import_module(found.module)
            found = self.declaration(name)
        return found.part

    def calling(self, part: Any) -> "Calling":
        """A ``with`` in which a registered part, or the part of a name, is called.

        What a user's part raises there, but InputError, becomes an InputError of one line that names part, file and
        line; the exception stays its cause. A part that is not registered, and the package's own, raise as they do.
        """
        return Calling(self, part)

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

    def is_ours(self, name: str) -> bool:
        """Whether a part comes with the package. Raises InputError as `declaration`."""
        return self.declaration(name).is_ours

    def _check_name(self, name: str) -> None:
        """Raise InputError where no part of this kind can have the name."""
        if not self.names_like.fullmatch(name):
            others = "and _" if self.names_like is IDENTIFIER else "_ and -"
            raise InputError(
                f"{self.kind} {name!r}: a name is of ASCII letters, digits, {others}, and begins with a letter"
                f"{'' if self.names_like is IDENTIFIER else ' or digit'}; give it another name"
            )
        module, _, kind = self.taken_by.partition(":")
        if name in self.taken or (kind and hasattr(getattr(importlib.import_module(module), kind)(), name)):
            raise InputError(f"{self.kind} {name!r}: runs use this name for something else; give it another name")

    def _check_keywords(self, name: str, about: Mapping[str, Any]) -> None:
        """Raise InputError where a registration says something unknown, or not what it has to say."""
        for key, value in about.items():
            if key not in self.keywords:
                near = difflib.get_close_matches(key, [*self.keywords, "options"], n=1, cutoff=0.5)
                hint = f" (nearest: {near[0]})" if near else ""
                known = ", ".join([*self.keywords, "options"])
                raise InputError(f"{self.kind} {name!r}: {self.variable}.register takes {known}, and no {key}{hint}")
            if not self.keywords[key].allows(value):
                raise InputError(f"{self.kind} {name!r}: {key}={value!r} must be {self.keywords[key].said}")
        for key, keyword in self.keywords.items():
            if keyword.required and key not in about:
                raise InputError(f"{self.kind} {name!r}: is registered without {key}; give {keyword.said}")
        wrong = self.fits(name, about)
        if wrong:
            raise InputError(f"{self.kind} {name!r}: {wrong}")

    def _stands_twice(self, name: str, file: Path) -> bool:
        """Whether a file's text registers two parts of a name: a module that is imported again registers one anew."""
        if not file.is_file():
            return False
        nodes = _parsed(file, file.read_text(encoding="utf-8")).body
        calls = [_registration(one, self.variable) for node in nodes for one in getattr(node, "decorator_list", [])]
        names = [call.args[0] for call in calls if call is not None and call.args]
        return sum(isinstance(one, ast.Constant) and one.value == name for one in names) > 1

    def _check_kind(self, declared: Declaration) -> None:
        """Raise InputError where a part is not what a part of this kind is."""
        where = _place(declared, _first_line(declared.part))
        if self.base:
            module, _, kind = self.base.partition(":")
            base = getattr(importlib.import_module(module), kind)
            if not isinstance(declared.part, type):
                said = type(declared.part).__name__
                raise InputError(f"{self.kind} {declared.name!r} ({where}): is a {said}; make it a class of {kind}")
            if base is not object and not issubclass(declared.part, base):
                raise InputError(
                    f"{self.kind} {declared.name!r} ({where}): is no {kind}; derive it from {module}.{kind}"
                )
        elif not callable(declared.part):
            said = type(declared.part).__name__
            raise InputError(f"{self.kind} {declared.name!r} ({where}): is a {said}; make it a function")

    def _known(self) -> dict[str, Declaration]:
        if self._declared is None:
            self._declared = {}
            folder = PACKAGE.joinpath(*self.package.split(".")[1:])
            for file in sorted(folder.rglob("*.py")):
                module = ".".join((self.package, *file.relative_to(folder).with_suffix("").parts))
                self._declared |= {one.name: one for one in declared_in(file, module, self.variable)}
        return self._declared


class Calling:
    """The ``with`` of `Registry.calling`; cheap enough for each step of a training."""

    __slots__ = ("part", "registry")

    def __init__(self, registry: Registry, part: Any) -> None:
        self.registry = registry
        self.part = part

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not _is_of_a_part(error):
            return
        known = self.registry._known()
        declared = known.get(self.part) if isinstance(self.part, str) else None
        if declared is None:
            declared = next((one for one in known.values() if one.part is not None and one.part is self.part), None)
        if declared is None or declared.is_ours:
            return
        lines = [line for frame, line in _frames(error) if frame.f_globals.get("__name__") == declared.module]
        raise _said(self.registry, declared, lines[0] if lines else _first_line(declared.part), error) from error


@contextmanager
def part_errors() -> Iterator[None]:
    """A ``with``, or a decorator, around work in which users' parts are called in many places, as a whole step.

    An exception that comes out of code of a module that registered a user's part becomes an InputError as of
    `Registry.calling`; others stay what they are.
    """
    try:
        yield
    except Exception as error:
        found = _part_of(error) if _is_of_a_part(error) else None
        if found is None:
            raise
        raise _said(*found, error) from error


def _is_of_a_part(error: BaseException) -> bool:
    """Whether an exception may be a part's mistake, and is not said in one line yet; memory that is short is none."""
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, Exception) and not isinstance(error, InputError | Pruned) and not is_memory


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames that an exception came through and their lines, the innermost first."""
    return list(traceback.walk_tb(error.__traceback__))[::-1]


def _part_of(error: BaseException) -> tuple[Registry, Declaration, int] | None:
    """The user's part that an exception came out of, and the line; None where it came out of none."""
    users = [(one, declared) for one in REGISTRIES for declared in one._known().values() if not declared.is_ours]
    for frame, line in _frames(error):
        here = [(one, declared) for one, declared in users if frame.f_globals.get("__name__") == declared.module]
        if here:
            registry, declared = next((one for one in here if _runs(frame, one[1].part)), here[0])
            return registry, declared, line
    return None


def _runs(frame: FrameType, part: Any) -> bool:
    """Whether a frame runs code of a part: the function itself, or a method of the class or of one that it is of."""
    if isinstance(part, type):
        own = frame.f_locals.get("self", frame.f_locals.get("cls"))
        return own is part or type(own) is part or frame.f_code.co_qualname.startswith(f"{part.__qualname__}.")
    return getattr(part, "__code__", None) is frame.f_code


def _said(registry: Registry, declared: Declaration, line: int | None, error: BaseException) -> InputError:
    """What a user's part raised, in one line."""
    logging.getLogger(__name__).debug("%s %r", registry.kind, declared.name, exc_info=error)
    return InputError(
        f"{registry.kind} {declared.name!r} ({_place(declared, line)}): "
        f"{one_line(f'{type(error).__name__}: {error}')}; mend it, recdistill.testing.{registry.suite} tells more"
    )


def _place(declared: Declaration, line: int | None) -> str:
    """File and line of a part, for messages."""
    return declared.file.name if line is None else f"{declared.file.name}:{line}"


def _first_line(part: Any) -> int | None:
    """Where a part is defined; None where that is not known."""
    code = getattr(part, "__code__", None)
    if isinstance(code, CodeType):
        return code.co_firstlineno
    try:
        return inspect.getsourcelines(part)[1]
    except (OSError, TypeError):
        return None


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


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _are_cut_offs(value: Any) -> bool:
    whole = isinstance(value, tuple) and all(type(k) is int and k >= 1 for k in value)
    return whole and len(set(value)) == len(value)


def _metric_fits(name: str, about: Mapping[str, Any]) -> str:
    """What is wrong with the registration of a metric, in words; "" where nothing is."""
    if CUT_OFF.search(name):
        return "names like this one are of metrics with cut-offs; give the number by cut_offs, and it another name"
    if about.get("of") != "lists":
        return "" if "says" not in about else "says is of a metric with of='lists'; leave it out"
    if not about.get("cut_offs"):
        return "is of lists, and registered without cut_offs; give a tuple, as cut_offs=(10,)"
    if not str(about.get("says", "")).strip():
        return "is of lists, and registered without says; say in a sentence what the number is"
    try:
        about["says"].format(k=1)
    except (LookupError, ValueError, AttributeError):
        return f"says={about['says']!r} can have {{k}}, the cut-off, and nothing else in braces"
    return ""


_BOOL = Keyword(_is_bool, "True or False")
#: What runs write beside metrics of ranks under the same beginnings, and those beginnings.
TAKEN_BY_RESULTS = (
    *("warm", "new", "new_among_new", "some_users"),
    *("new_samples", "warm_cost", "chance_ndcg", "items", "users", "valid_ratio", "hit_ratio"),
)
#: What the objective writes beside its terms.
TAKEN_BY_LOSSES = ("total", "base", "dro", "ranking")

STUDENTS = Registry(
    "student",
    "STUDENTS",
    "recdistill.students",
    suite="check_student",
    base="recdistill.students.recommender:Recommender",
    keywords={"gradient": Keyword(_is_bool, "gradient=True or False: whether it is trained by gradient", True)},
)
SOURCES = Registry(
    "data source",
    "SOURCES",
    "recdistill.data.sources",
    suite="check_source",
    keywords={"columns": _BOOL, "pinned": _BOOL},
)
SPLITS = Registry(
    "split",
    "SPLITS",
    "recdistill.data.splits",
    suite="check_split",
    keywords={"least": Keyword(lambda value: type(value) is int and value >= 0, "a whole number of at least 0")},
)
GATES = Registry(
    "gate", "GATES", "recdistill.teachers.ilora.gates", suite="check_gate", base="recdistill.teachers.ilora.gate:Gate"
)
POLICIES = Registry(
    "selection policy",
    "POLICIES",
    "recdistill.distillation.policies",
    suite="check_policy",
    keywords={"queries": _BOOL},
)
TEACHERS = Registry(
    "teacher",
    "TEACHERS",
    "recdistill.teachers",
    suite="check_teacher",
    base="builtins:object",
    keywords={"llm": _BOOL, "queries": _BOOL},
)
LOSS_TERMS = Registry(
    "loss term",
    "LOSS_TERMS",
    "recdistill.distillation.terms",
    suite="check_loss_term",
    keywords={
        "help": Keyword(lambda value: isinstance(value, str), "a text"),
        "needs_states": _BOOL,
        "needs_logits": _BOOL,
        "mean_of_samples": _BOOL,
    },
    names_like=IDENTIFIER,
    taken=TAKEN_BY_LOSSES,
    taken_by="torch.nn:ModuleDict",
)
METRICS = Registry(
    "metric",
    "METRICS",
    "recdistill.evaluation.metrics",
    suite="check_metric",
    keywords={
        "of": Keyword(lambda value: value == "lists", "'lists', or left out"),
        "cut_offs": Keyword(_are_cut_offs, "a tuple of different whole numbers of at least 1, as (10,)"),
        "says": Keyword(lambda value: isinstance(value, str), "a sentence"),
    },
    names_like=IDENTIFIER,
    taken=TAKEN_BY_RESULTS,
    fits=_metric_fits,
)
VIEWS = Registry("view", "VIEWS", "recdistill.views", suite="check_view", base="recdistill.views.view:View")
REGISTRIES = (STUDENTS, SOURCES, SPLITS, GATES, POLICIES, TEACHERS, LOSS_TERMS, METRICS, VIEWS)
