"""Options of ``worth``."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Config
from recdistill.config.distill import MainConfig
from recdistill.config.option import option
from recdistill.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WorthConfig(MainConfig):
    """Options of ``worth``: what the LLM adds over cheap text and over ids on this data, and at which price."""

    section: ClassVar[str] = "the LLM's worth"
    upstream: ClassVar[type[Config] | None] = None

    seeds: int = option(
        1, "seeds, from seed on, each with a draw of new items of its own; one tells nothing of other seeds",
        role="budget", least=1, common=True,
    )  # fmt: skip
    worth_margin: float = option(0.01, "how much below still counts as not below, as a share", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.promote:
            raise InputError("promote=true: is of main; worth registers no student")
        if self.register:
            raise InputError(f"register={self.register}: worth registers no student; use main")
        if self.teacher_run_id and self.seeds > 1:
            raise InputError(f"teacher_run_id={self.teacher_run_id}: is of one seed; give seeds=1, or leave it out")
