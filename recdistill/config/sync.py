"""Options of ``sync``."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Config
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class SyncConfig(Config):
    """Options of ``sync``: send what a lost tracking server could not take."""

    section: ClassVar[str] = "tracking"

    wait: int = option(
        0, "seconds to wait for a tracking server that does not answer", role="place", least=0, most=86_400, common=True
    )
