"""What fixes the parameters of a recommender, the catalogue and the teacher aside: its name, sizes and own options."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from recdistill.config.option import Option
from recdistill.config.student import StudentConfig
from recdistill.errors import InputError
from recdistill.registry import STUDENTS

OUTPUTS = ("tied", "linear")


@dataclass(frozen=True)
class StudentShape:
    """Name, sizes and own options of a recommender.

    Attributes:
        student: a name of `STUDENTS`.
        hidden_size: D.
        dropout: probability, in [0, 1).
        max_length: the most history items it reads.
        output: ``tied`` or ``linear``; see `Student`.
        options: its own options by name; those left out have their defaults.

    Raises:
        InputError: a value is unknown or out of range.
    """

    student: str
    hidden_size: int
    dropout: float
    max_length: int
    output: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = own_options(self.student)
        if self.output not in OUTPUTS:
            raise InputError(f"output={self.output}: must be one of {', '.join(OUTPUTS)}")
        for name in ("hidden_size", "max_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value}: must be a whole number of at least 1")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: must be a probability of at least 0 and below 1")
        for name, value in self.options.items():
            if name not in known:
                raise InputError(f"{name}: {self.student} has no such option, but {', '.join(known) or 'none'}")
            known[name].check(value)
            if known[name].type is int and not isinstance(value, int):
                raise InputError(f"{name}={value}: must be a whole number")
        filled = {name: self.options.get(name, one.default) for name, one in known.items()}
        object.__setattr__(self, "options", filled)

    def own(self) -> Any:
        """The own options as an instance of their dataclass, the recommender's file imported; None for none."""
        STUDENTS.get(self.student)
        kind = STUDENTS.options(self.student)
        return None if kind is None else kind(**self.options)

    def values(self) -> dict[str, Any]:
        """What a saved recommender holds, as JSON values."""
        return asdict(self)


def own_options(student: str) -> dict[str, Option]:
    """The own options of a recommender, by name. Raises InputError where there is none of that name."""
    kind = STUDENTS.options(student)
    specs = () if kind is None else fields(kind)
    return {spec.name: Option(spec.name, spec.type, spec.default, spec.metadata) for spec in specs}


def shape_of(config: StudentConfig) -> StudentShape:
    """The recommender of the options."""
    return StudentShape(
        student=config.student,
        hidden_size=config.hidden_size,
        dropout=config.dropout,
        max_length=config.max_length,
        output=config.output,
        options={name: config.value(name) for name in own_options(config.student)},
    )


def shape_of_values(values: Mapping[str, Any]) -> StudentShape:
    """The shape of `StudentShape.values`, or of an earlier version, which held all students' options side by side.

    Raises InputError, KeyError or TypeError where it is none.
    """
    values = dict(values)
    options = values.pop("options", None)
    common = {spec.name: values.pop(spec.name) for spec in fields(StudentShape) if spec.name != "options"}
    if options is None:
        options = {name: value for name, value in values.items() if name in own_options(common["student"])}
    return StudentShape(**common, options=dict(options))
