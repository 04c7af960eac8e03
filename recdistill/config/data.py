"""Options of the data: which interactions, how they are split, and how they are ranked."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from recdistill.config.base import Config, OnDevice, Seeded
from recdistill.config.option import option
from recdistill.registry import SOURCES, SPLITS


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Options of ``prepare``: which interactions, and how they are split."""

    section: ClassVar[str] = "data"

    dataset: str = option("ml-100k", "where the interactions come from", role="data", common=True, choices=SOURCES)
    interactions: str = option(
        "",
        "csv: file with columns user, item, timestamp; recbole: .inter file or its folder; movielens, dllm2rec, "
        "ilora: a folder; the others need none",
        role="place",
        common=True,
        path="read",
    )
    items: str = option(
        "",
        "csv: file with columns item, title and any others; recbole: .item file; dllm2rec: file of titles",
        role="place",
        common=True,
        path="read",
    )
    columns: str = option(
        "", "names of your columns where they differ, as user:customer_id,item:sku,title:name",
        role="data", common=True, listed=True,
    )  # fmt: skip
    missing_titles: Literal["id", "refuse"] = option(
        "id", "id: the title of an item without one is its id; refuse: each must have one", role="data"
    )
    split: str = option(
        "user-holdout",
        "kept for validation and test: the last tenths of each user's interactions, the last two, or, "
        "chronological, the last tenths of all",
        role="data",
        choices=SPLITS,
    )
    new_items: float = option(
        0.0,
        "share of the items that leave training and are new in test, half as many in validation; 0 for none",
        role="data",
        least=0,
        most=0.5,
    )
    new_items_seed: int = option(
        1, "seed of the draw of new items, apart from seed", role="data", least=0, read_with={"new_items": "above 0"}
    )
    min_interactions: int = option(0, "leave out users with fewer interactions", role="data", least=0)
    min_item_interactions: int = option(0, "leave out items with fewer interactions", role="data", least=0)
    k_core: int = option(
        0, "leave out users and items until each has at least so many interactions; 0 for none", role="data", least=0
    )
    max_users: int = option(0, "keep only the first users, for a quick try; 0 keeps all", role="data", least=0)
    exclude_seen: bool = option(True, "leave the items of the user's history out of the ranking")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(DataConfig, Seeded, OnDevice):
    """Options of ``a step that trains``: beside the data, what students and teachers share."""

    section: ClassVar[str] = "data"

    mask_seen: bool = option(
        True, "where they are left out of the ranking, leave them out of the softmax (ce) in training too"
    )
