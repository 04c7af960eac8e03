"""Options of ``recommend_spark``: recommendations for a table too large for one machine."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Config
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class RecommendSparkConfig(Config):
    """Options of ``recommend_spark``: the same as recommend, on Spark, for a table of users in Parquet."""

    section: ClassVar[str] = "recommendations on Spark"

    model: str = option(
        "", "run of a student, or a model's address as models:/name/1; empty: the newest distill run",
        role="upstream", common=True, path="read-or-name",
    )  # fmt: skip
    histories: str = option(
        "", "Parquet that Spark reads, a folder or an address as s3a://…: column history, and as recommend reads them "
        "k, exclude and allowed_items; other columns are kept",
        role="place", common=True, path="read-or-name",
    )  # fmt: skip
    output: str = option("", "folder or address to write Parquet to; must not be there", role="place", common=True)
    k: int = option(10, "items to recommend where the table gives no k", least=1, common=True)
    partition_by: str = option("", "columns that the output is partitioned by, separated by commas", role="place")
    master: str = option(
        "", "Spark's master, as local[4] or spark://host:7077; empty: that of spark-submit, else local[*,4]",
        role="place",
    )  # fmt: skip
