"""Options of ``promote``."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Seeded
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(Seeded):
    """Options of ``promote``: make a registered version the champion, where it is better than the present one."""

    section: ClassVar[str] = "promotion"

    name: str = option("", "name of the registered student", role="upstream", common=True)
    version: str = option(
        "", "the version; empty: of the versions that are not the champion, the best on validation",
        role="upstream", common=True,
    )  # fmt: skip
    metric: str = option(
        "test/ndcg_at_20",
        "metric of the paired test: val or test, a metric and its cut-off, as test/hr_at_20",
        common=True,
    )
    margin: float = option(
        0.0, "gain, as a share of the champion's value, that the test must show to be exceeded", least=0, common=True
    )
    override: bool = option(False, "move the alias whatever the test says; the version is tagged with it", common=True)
    resamples: int = option(10_000, "bootstrap and permutation draws", least=100)
