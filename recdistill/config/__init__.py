"""What a person may choose: the options of every step, each with its role, and what follows from the roles."""

from recdistill.config.base import Config, changed, config_of, narrow, option_table
from recdistill.config.data import DataConfig, TrainingConfig
from recdistill.config.distill import DistillConfig, MainConfig, SweepConfig
from recdistill.config.doctor import DoctorConfig
from recdistill.config.finished import CompareConfig, EvaluateConfig, ExportConfig, RecommendConfig
from recdistill.config.new_items import AddItemsConfig, MapItemsConfig
from recdistill.config.option import Option, option
from recdistill.config.promote import PromoteConfig
from recdistill.config.recommend_spark import RecommendSparkConfig
from recdistill.config.retire_items import RetireItemsConfig
from recdistill.config.steps import ALIASES, STEPS, UPSTREAM
from recdistill.config.student import BaselineConfig, StudentConfig
from recdistill.config.study import StudyConfig
from recdistill.config.sync import SyncConfig
from recdistill.config.teacher import TeacherConfig
from recdistill.config.worth import WorthConfig

__all__ = [
    "ALIASES",
    "STEPS",
    "UPSTREAM",
    "AddItemsConfig",
    "BaselineConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "MainConfig",
    "MapItemsConfig",
    "Option",
    "PromoteConfig",
    "RecommendConfig",
    "RecommendSparkConfig",
    "RetireItemsConfig",
    "StudentConfig",
    "StudyConfig",
    "SweepConfig",
    "SyncConfig",
    "TeacherConfig",
    "TrainingConfig",
    "WorthConfig",
    "changed",
    "config_of",
    "narrow",
    "option",
    "option_table",
]
