"""Options of ``retire_items``: which items a served student no longer recommends."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Config
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class RetireItemsConfig(Config):
    """Options of ``retire_items``: a new version of a served student that no longer recommends some items."""

    section: ClassVar[str] = "retired items"

    model: str = option(
        "", "run of a student, or a model's address as models:/name/1", role="upstream", common=True,
        path="read-or-name",
    )  # fmt: skip
    items: str = option(
        "", "file with a column item of the ids: text, gzipped or not, or .parquet",
        role="place", common=True, content=True, path="read",
    )  # fmt: skip
    columns: str = option("", "name of your column where it differs, as item:sku", common=True)
    restore: bool = option(False, "recommend these retired items again", common=True)
    register: str = option(
        "", "name to register the model under, as a new version; empty: that of a registered model=", role="place",
        registered=True,
    )  # fmt: skip
