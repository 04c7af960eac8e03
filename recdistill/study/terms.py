"""The terms of the language models that the rows of a table were made with."""

from collections.abc import Iterable

from recdistill.config import TeacherConfig
from recdistill.config.base import Config
from recdistill.config.teacher import reads_llm
from recdistill.data.pinned_models import terms_of


def terms_of_rows(rows: Iterable[Config]) -> str:
    """The terms of all models with an alias that teachers and views of these options read; '' where there are none."""
    return terms_of(*(name for config in rows for name in models_read(config)))


def models_of_views(config: Config) -> list[str]:
    """The models that the views of the options read."""
    values = config.values()
    return [str(values[name]) for name in ("view_llm", "sentence_model") if name in values]


def models_read(config: Config) -> list[str]:
    """The models that a teacher or the views of the options read, as the options name them."""
    found = models_of_views(config)
    # The options of a distilled student name a teacher, too, which is a row of its own; one behind a server reads none.
    if isinstance(config, TeacherConfig) and type(config).upstream is not TeacherConfig:
        found += [config.llm] if reads_llm(config.teacher) else []
    return found
