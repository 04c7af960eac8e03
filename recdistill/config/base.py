"""What every step's options are: a frozen dataclass, flat, with the options of the parts that it names.

A field whose values are names of a registry (``student``, ``split``, ``gate`` …) brings in the own options of the part
that it names: ``StudentConfig(student="sasrec", blocks=1)``. They stand in ``part_options`` and are given, checked,
logged and read back like the others; an option of a part that is not chosen is refused.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from recdistill.config.option import Option, option, spoken
from recdistill.errors import InputError
from recdistill.registry import Registry, generation

Kind = TypeVar("Kind", bound="Config")
WEIGHT = "_weight"
#: What of `Config.also_in_key` is of results, and not of how much is done.
MENDED = "mended"
#: How like a name must be for a message to name it, from 0 to 1.
NEAR = 0.5


class ConfigType(type):
    """Lets options of parts be given beside the fields."""

    def __call__(cls, **values: Any) -> Any:
        own = {spec.name for spec in fields(cls)}  # type: ignore[arg-type]
        of_parts = {name: value for name, value in values.items() if name not in own}
        if of_parts:
            values = {name: value for name, value in values.items() if name in own}
            values["part_options"] = tuple((dict(values.get("part_options", ())) | of_parts).items())
        return super().__call__(**values)


@dataclass(frozen=True, kw_only=True)
class Config(metaclass=ConfigType):
    """Options of every step. Raises InputError, one line, where a value is not allowed.

    Attributes:
        part_options: name and value of each own option of the parts in use, by name.
    """

    section: ClassVar[str] = "this run"
    #: Options of this class alone belong to the step before, which is found or made by them.
    upstream: "ClassVar[type[Config] | None]" = None
    #: Parts that are all there at once, each with a weight of its own, 0 for none.
    weighted: ClassVar[Registry | None] = None

    force: bool = option(False, "run again even where a finished run fits", role="place")
    estimate: bool = option(
        False,
        "only say what would be made, what is finished, how long the rest takes and how much memory",
        role="place",
    )
    plugin: str = option(
        "",
        "your modules of students, sources, splits, gates, policies, teachers, loss terms, metrics and views, "
        "separated by commas",
        role="place",
    )
    part_options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    #: Some parts are chosen later, as by a search space: options of any part are taken, and checked then.
    parts_later: ClassVar[bool] = False

    def __post_init__(self) -> None:
        table = option_table(type(self))
        for name, one in table.items():
            if not one.parts:
                one.check(getattr(self, name))
                object.__setattr__(self, name, one.canonical(getattr(self, name)))
        given = {name: table[name].canonical(value) if name in table else value for name, value in self.part_options}
        for name, value in given.items():
            if name not in table or not table[name].parts:
                raise InputError(f"{name}: there is no such option{nearest(name, table)}")
            table[name].check(value)
        choosing = [name for name, one in table.items() if one.metadata["choices"] is not None]
        in_use = options_in_use(type(self), given | {name: getattr(self, name) for name in choosing})
        kept = {name: given.get(name, table[name].default) for name in in_use}
        for name, value in given.items():
            if name not in kept and value != table[name].default:
                if not self.parts_later:
                    where = " or ".join(table[name].parts)
                    raise InputError(f"{name}={value}: is of {where}; set that, or leave {name} out")
                kept[name] = value
        object.__setattr__(self, "part_options", tuple(sorted(kept.items())))

    def parts(self) -> list[tuple[str, Registry, str]]:
        """Each part that the options choose by name: the option, the registry, the part's name."""
        return [
            (name, one.metadata["choices"], part)
            for name, one in option_table(type(self)).items()
            if one.metadata["choices"] is not None
            for part in one.named(getattr(self, name))
        ]

    def parts_in_use(self) -> list[tuple[Registry, str]]:
        """The parts chosen by name, and the weighted ones whose weight is not 0."""
        found = [(registry, name) for _, registry, name in self.parts()]
        if self.weighted is not None:
            values = dict(self.part_options)
            found += [(self.weighted, name) for name in self.weighted.names() if values.get(name + WEIGHT)]
        return found

    def parts_in_use_of(self, registry: Registry) -> list[str]:
        """Names of the parts of one registry in use."""
        return [name for kind, name in self.parts_in_use() if kind is registry]

    def value(self, name: str) -> Any:
        """The value of an option, of the step or of a part; the default of one whose part is not in use."""
        one = option_table(type(self))[name]
        return dict(self.part_options).get(name, one.default) if one.parts else getattr(self, name)

    def unread(self) -> Collection[str]:
        """Own options that nothing reads at the values of the others; they are in no key and not logged."""
        return ()

    @classmethod
    def read_of_upstream(cls, values: Mapping[str, Any]) -> Collection[str]:
        """Options of the step before that this step reads, too, at these values: they are part of its own key."""
        return ()

    def also_in_key(self) -> dict[str, Any]:
        """What else a key has at these options, by names that are no options': JSON values; nothing for most.

        ``mended`` names what was wrong in results of these options before, so that no such run is found.
        """
        return {}

    def switched_off(self) -> dict[str, str]:
        """Options that nothing reads at the values of the others (``read_with``), and what they are of, in words."""
        table = option_table(type(self))
        found = {name: one.unmet(lambda other: [self.value(other)]) for name, one in table.items()}
        return {name: need for name, need in found.items() if need}

    def checked(self) -> Self:
        """These options, as a person gave them.

        Kept runs, trials and rows of a plan share options that some of them do not read: they are not checked.
        Raises InputError where one with another value than its default changes nothing at the values of the others.
        """
        table = option_table(type(self))
        for name, need in self.switched_off().items():
            if self.value(name) != table[name].default:
                raise InputError(f"{name}={spoken(self.value(name))}: is of {need}; set that, or leave {name} out")
        return self

    def values(self) -> dict[str, Any]:
        """Every option in use, by name, flat: what ``config.json`` holds."""
        unread = self.unread()
        table = option_table(type(self))
        found = {name: getattr(self, name) for name, one in table.items() if not one.parts and name not in unread}
        found |= dict(self.part_options)
        later = {name: one.default for name, one in table.items() if one.metadata["later"]}
        return {name: value for name, value in found.items() if name not in later or value != later[name]}

    def of_part(self, registry: Registry, name: str) -> Any:
        """The own options of a part as an instance of its dataclass, its file imported; None where it has none."""
        registry.get(name)
        kind = registry.options(name)
        if kind is None:
            return None
        values = dict(self.part_options)
        return kind(**{spec.name: values[spec.name] for spec in fields(kind) if spec.name in values})


@dataclass(frozen=True, kw_only=True)
class Seeded(Config):
    """Options of a step that draws random numbers."""

    section: ClassVar[str] = "this run"

    seed: int = option(
        1, "seed of every random number, but of the draw of new items", role="seed", least=0, common=True
    )


@dataclass(frozen=True, kw_only=True)
class OnDevice(Config):
    """Options of a step that computes."""

    section: ClassVar[str] = "this run"

    device: Literal["auto", "cpu", "cuda"] = option("auto", "cuda where there is one, else cpu", role="place")


_tables: dict[tuple[type, int], dict[str, Option]] = {}


def option_table(kind: type[Config]) -> Mapping[str, Option]:
    """Every option of a step by name, those of all parts that it may use included, in the order of ``--help``."""
    key = (kind, generation())
    if key not in _tables:
        _tables[key] = _option_table(kind)
    return _tables[key]


def _option_table(kind: type[Config]) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for spec in fields(kind):
        if spec.name == "part_options":
            continue
        owner = _introduced_by(kind, spec.name)
        found[spec.name] = Option(spec.name, spec.type, spec.default, spec.metadata, owner.section, (owner,))
    for name, one in list(found.items()):
        registry: Registry | None = one.metadata["choices"]
        if registry is not None:
            for part in registry.names(**one.metadata["among"]):
                _add_part(found, registry, part, f"{name}={part}", one)
    if kind.weighted is not None:
        for part in kind.weighted.names():
            about = kind.weighted.declaration(part).about
            weight = option(0.0, str(about.get("help", f"weight of the loss term {part}")), least=0)
            owner = _weighted_by(kind)
            of_term = (f"{kind.weighted.kind} {part}",)
            one = Option(part + WEIGHT, float, 0.0, weight.metadata, owner.section, (owner,), of_term)
            if one.name in found:
                has = found[one.name].parts[0] if found[one.name].parts else "the step itself"
                raise InputError(
                    f"{kind.weighted.kind} {part!r}: {has} has an option {one.name}; give the term another name"
                )
            found[one.name] = one
            _add_part(found, kind.weighted, part, f"{one.name}>0", one)
    return found


def _add_part(found: dict[str, Option], registry: Registry, part: str, where: str, by: Option) -> None:
    """Add the own options of a part that ``by`` chooses; parts may share one of the same type and default."""
    options = registry.options(part)
    for spec in fields(options) if options is not None else ():
        known = found.get(spec.name)
        if known is None:
            found[spec.name] = Option(
                spec.name, spec.type, spec.default, spec.metadata, by.section, by.owners, (where,)
            )
        elif not known.parts:
            raise InputError(
                f"{registry.kind} {part!r}: the step itself has an option {spec.name}; give it another name"
            )
        elif known.parts[0].startswith(f"{registry.kind} "):
            raise InputError(
                f"{registry.kind} {part!r}: its option {spec.name} is the weight of the {known.parts[0]}; give it "
                "another name"
            )
        elif (known.type, known.default) != (spec.type, spec.default):
            raise InputError(
                f"{registry.kind} {part!r}: its option {spec.name} has another type or default than that of "
                f"{known.parts[0]}; give it another name"
            )
        else:
            owners, parts = dict.fromkeys((*known.owners, *by.owners)), (*known.parts, where)
            found[spec.name] = replace(known, owners=tuple(owners), parts=parts)


def _introduced_by(kind: type[Config], name: str) -> type[Config]:
    """The class of ``kind``'s bases that first has the option."""
    having = [base for base in kind.__mro__ if name in getattr(base, "__dataclass_fields__", {})]
    return cast(type[Config], having[-1])


def _weighted_by(kind: type[Config]) -> type[Config]:
    """The class of ``kind``'s bases that first has weighted parts."""
    return cast(type[Config], [base for base in kind.__mro__ if vars(base).get("weighted") is not None][-1])


def narrow(config: Config, kind: type[Kind], **changes: Any) -> Kind:
    """The options of another step, taken from those that ``config`` shares with it, with ``changes``.

    Options of parts that the other step does not choose are left out.
    """
    return _fitting(kind, config.values() | changes, changes)


def nearest(name: str, known: Iterable[str]) -> str:
    """What a message adds of the option that is nearest to ``name``; nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    return f"; the nearest is {near[0]}" if near else ""


def changed(config: Kind, **values: Any) -> Kind:
    """``config`` with other values; options of parts that are then no longer in use go back to their defaults."""
    table = option_table(type(config))
    for name in values:
        if name not in table:
            raise InputError(f"{name}: there is no such option{nearest(name, table)}")
    return _fitting(type(config), config.values() | values, values)


def config_of(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """The options that a run kept as ``config.json``; those it lacks have their defaults, others are left out."""
    return _fitting(kind, values, ())


def options_in_use(kind: type[Config], values: Mapping[str, Any]) -> list[str]:
    """The options of parts that are in use where the step's options have these values, and defaults elsewhere."""
    table = option_table(kind)
    where = {
        f"{name}={part}"
        for name, one in table.items()
        if one.metadata["choices"] is not None
        for part in one.named(values.get(name, one.default))
    }
    weights = {f"{part}{WEIGHT}" for part in kind.weighted.names()} if kind.weighted is not None else set()
    where |= {f"{name}>0" for name in weights if values.get(name)}
    return [name for name, one in table.items() if name in weights or where.intersection(one.parts)]


def _fitting(kind: type[Kind], values: Mapping[str, Any], asked: Collection[str]) -> Kind:
    """Of ``values`` those that ``kind`` has, options of parts only where the part is in use or they are asked for."""
    table = option_table(kind)
    in_use = {*options_in_use(kind, values), *asked}
    known = {name: value for name, value in values.items() if name in table}
    if kind.parts_later:
        return kind(**known)
    return kind(**{name: value for name, value in known.items() if not table[name].parts or name in in_use})
