"""Options of the steps that give a finished student new items: ``map_items`` and ``add_items``."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

from recdistill.config.base import OnDevice
from recdistill.config.option import option
from recdistill.config.student import StudentConfig, check_measured
from recdistill.config.views import DEFAULT_VIEWS, ViewsConfig
from recdistill.errors import InputError
from recdistill.registry import VIEWS


@dataclass(frozen=True, kw_only=True)
class MapItemsConfig(StudentConfig, ViewsConfig):
    """Options of ``map_items``: new items in a finished student, from vectors of their texts."""

    section: ClassVar[str] = "new items"

    student_run_id: str = option(
        "", "a finished backbone or distill run, whose options then stand for those of data and student; empty: the "
        "backbone of these options, found or made",
        role="upstream", common=True,
    )  # fmt: skip
    teacher_run_id: str = option(
        "", "run of the teacher of views=teacher; empty: the one that the student was distilled from", role="upstream"
    )
    views: str = option(
        DEFAULT_VIEWS,
        "views of an item's text, joined by +; with / between several choices the best on validation is taken",
        choices=VIEWS,
        several=True,
    )
    item_map: Literal["ridge", "own"] = option(
        "ridge", "how vectors of texts become item embeddings; own: as a student with item_init=views has learnt it: "
        "only where new items stand among the others is chosen",
    )  # fmt: skip
    warm_cost: float = option(
        0.02, "share of the NDCG@20 of trained items that new ones may cost, on validation", least=0, most=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.view_names:
            raise InputError("views=: names no view; give one, as views=tfidf")
        check_measured(self)

    def unread(self) -> Collection[str]:
        """Only how the student's embeddings started: the views are those of the map."""
        found = () if self.starts_from_texts else ("item_init",)
        return (*found, *self.unread_negatives())

    def check_item_init(self) -> None:
        """Nothing: what the student's embeddings start from is checked with the student."""


@dataclass(frozen=True, kw_only=True)
class AddItemsConfig(OnDevice):
    """Options of ``add_items``: a new version of a served student with more items, which trains nothing."""

    section: ClassVar[str] = "new items"

    model: str = option(
        "",
        "run of map_items, add_items or a student with item_init=views, or a model's address as models:/name/1",
        role="upstream",
        common=True,
    )
    items: str = option(
        "", "file with columns item, title and those that the texts are made of: text, gzipped or not, or .parquet",
        role="place", common=True, content=True, path="read",
    )  # fmt: skip
    columns: str = option(
        "", "names of your columns where they differ, as item:sku,title:name", common=True, listed=True
    )
    vectors: str = option(
        "", ".parquet file with columns item and vector: vectors to be used instead of the items' texts",
        role="place", content=True, path="read",
    )  # fmt: skip
    register: str = option(
        "", "name to register the model under, as a new version; empty: that of a registered model=", role="place",
        registered=True,
    )  # fmt: skip
