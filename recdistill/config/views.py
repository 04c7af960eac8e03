"""Options of the views of an item's text: which text, which views of it, and how they are brought to one size."""

from dataclasses import dataclass, fields
from typing import ClassVar, Self

from recdistill.config.base import Config, changed, option_table
from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import VIEWS

TOGETHER, OR = "+", "/"
READING = "llm_reading"
DEFAULT_VIEWS = "sentence+tfidf"


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(Config):
    """Options of ``views``: what is known of an item by its text alone.

    ``views`` and ``llm_reading`` are kept in one spelling, so that the same choice is the same run.
    """

    section: ClassVar[str] = "views of an item's text"

    views: str = option(
        DEFAULT_VIEWS,
        "views of an item's text, joined by +; with / between several choices the best on validation is taken",
        choices=VIEWS,
        several=True,
    )
    item_text: str = option(
        "", "columns of the items file that make an item's text, as title,year,genres; empty: title and all others",
        listed=True,
    )  # fmt: skip
    text_template: str = option(
        "", "an item's text in place of item_text, as '{title} ({year}): {genres}', with names of columns in braces"
    )
    view_directions: int = option(
        128, "most directions kept of each view, those in which the trained items differ most", least=1
    )
    view_whitening: float = option(
        0.5, "0: directions keep their variance; 1: all have the same; between: a power of it", least=0, most=1
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", self._spelled("views", self.views, TOGETHER))
        readings = dict(self.part_options).get(READING)
        if readings is not None:
            spelled = self._spelled(READING, str(readings).replace(TOGETHER, OR), OR)
            object.__setattr__(self, "part_options", tuple((dict(self.part_options) | {READING: spelled}).items()))
        super().__post_init__()
        if dict(self.part_options).get(READING) == "":
            raise InputError(f"{READING}=: names no reading; give one, as {READING}=echo")
        if self.item_text and self.text_template:
            raise InputError(f"text_template={self.text_template}: item_text={self.item_text} is given, too; give one")

    @staticmethod
    def _spelled(name: str, value: str, comma: str) -> str:
        """Names in alphabetical order, joined by `TOGETHER`, choices by `OR` in the order given; ``comma`` is what a
        comma stands for. Raises InputError where a name or a choice stands twice, or a choice is empty."""
        choices = []
        for choice in value.replace(",", comma).split(OR):
            names = [part.strip() for part in choice.split(TOGETHER) if part.strip()]
            if len(set(names)) < len(names) or sorted(names) in choices:
                raise InputError(f"{name}={value}: {choice.strip()} stands twice; name it once")
            choices.append(sorted(names))
        if len(choices) > 1 and [] in choices:
            raise InputError(f"{name}={value}: a choice before or after {OR} is empty; leave that {OR} out")
        return OR.join(TOGETHER.join(names) for names in choices)

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views of all choices, each once, in alphabetical order; none where ``views`` is empty."""
        return tuple(sorted(set(option_table(type(self))["views"].named(self.views))))

    def alternatives(self) -> list[Self]:
        """The same options for each choice that validation has to make: one set of views, one reading of the LLM.

        In the order given; the options themselves where nothing is left open.
        """
        found = []
        for views in self.views.split(OR):
            readings = str(self.value(READING)).split(OR) if "llm" in views.split(TOGETHER) else [None]
            for reading in readings:
                own = {} if reading is None else {READING: reading}
                found.append(changed(self, views=views, **own))
        return found


#: Options of how texts become vectors, those of single views left out.
OWN_OPTIONS = tuple(spec.name for spec in fields(ViewsConfig) if spec.name not in {one.name for one in fields(Config)})


def view_options() -> frozenset[str]:
    """Names of all options by which texts become vectors, those of single views with them."""
    return frozenset(option_table(ViewsConfig)) - {spec.name for spec in fields(Config)}
