"""The ranking teacher."""

from dataclasses import dataclass

from recdistill.config.option import option
from recdistill.registry import TEACHERS


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """Own options of a ranking teacher."""

    backbone_residual: bool = option(True, "the head's query starts from the backbone's state")
    plain_titles: bool = option(
        True, "titles in prompts without a year, and with their article first; false: as they are"
    )
    packing: bool = option(True, "supervise every item boundary of a window; false: one prompt a sample")
    teacher_window: int = option(40, "history titles in a packed prompt, at most", least=1)


@TEACHERS.register("ranking", options=RankingOptions)
class RankingTeacher:
    pass
