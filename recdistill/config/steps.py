"""The entry points: their options, what they start from, and the revision of their results."""

from recdistill.config.base import Config
from recdistill.config.data import DataConfig
from recdistill.config.distill import DistillConfig, MainConfig, SweepConfig
from recdistill.config.doctor import DoctorConfig
from recdistill.config.finished import CompareConfig, EvaluateConfig, ExportConfig, RecommendConfig
from recdistill.config.new_items import AddItemsConfig, MapItemsConfig
from recdistill.config.promote import PromoteConfig
from recdistill.config.recommend_spark import RecommendSparkConfig
from recdistill.config.retire_items import RetireItemsConfig
from recdistill.config.student import BaselineConfig
from recdistill.config.study import StudyConfig
from recdistill.config.sync import SyncConfig
from recdistill.config.teacher import TeacherConfig
from recdistill.config.worth import WorthConfig

#: The options of each step, by the name of its entry point.
STEPS: dict[str, type[Config]] = {
    "main": MainConfig,
    "prepare": DataConfig,
    "backbone": BaselineConfig,
    "teacher": TeacherConfig,
    "distill": DistillConfig,
    "map_items": MapItemsConfig,
    "add_items": AddItemsConfig,
    "retire_items": RetireItemsConfig,
    "evaluate": EvaluateConfig,
    "sweep": SweepConfig,
    "study": StudyConfig,
    "worth": WorthConfig,
    "compare": CompareConfig,
    "promote": PromoteConfig,
    "recommend": RecommendConfig,
    "recommend_spark": RecommendSparkConfig,
    "export": ExportConfig,
    "sync": SyncConfig,
    "doctor": DoctorConfig,
}

#: Entry points that make no run.
WITHOUT_RUN = ("sync", "doctor")

#: Other names of entry points.
ALIASES = {"baseline": "backbone"}

#: The step that a step starts from.
UPSTREAM = {"teacher": "backbone", "distill": "teacher"}

#: Part of a run's key. Raise a step's number, by hand, when the same options and data give other results than before;
#: `tests/test_revisions.py` fails where they do and the number did not move.
REVISIONS = {name: 1 for name in STEPS} | {"backbone": 3, "teacher": 3, "distill": 4, "main": 3, "worth": 3}

#: The steps that a step runs within itself: their revisions are part of its own.
OF_PATH = ("prepare", "backbone", "teacher", "distill")
WITHIN = {"main": (*OF_PATH, "map_items"), "sweep": OF_PATH, "worth": (*OF_PATH, "map_items")}

#: Options that a step had and does not read: accepted for one version, with a line that says so.
DROPPED: dict[str, tuple[str, ...]] = {
    "prepare": ("seed", "device", "mask_seen"),
    "evaluate": ("seed",),
    "compare": ("device",),
    "recommend": ("seed", "device"),
    "export": ("seed", "device"),
}


def revision(step: str) -> list[int]:
    """Revision of a step's results, and those of the steps that it runs."""
    return [REVISIONS[name] for name in (step, *WITHIN.get(step, ()))]
