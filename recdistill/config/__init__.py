"""What a person may choose: the options of every step, each with its role, and what follows from the roles."""

from recdistill.config.base import Config, changed, config_of, narrow, option_table
from recdistill.config.data import DataConfig, TrainingConfig
from recdistill.config.distill import DistillConfig, MainConfig, SweepConfig
from recdistill.config.finished import CompareConfig, EvaluateConfig, ExportConfig, RecommendConfig
from recdistill.config.option import Option, option
from recdistill.config.steps import ALIASES, STEPS, UPSTREAM
from recdistill.config.student import BaselineConfig, StudentConfig
from recdistill.config.teacher import TeacherConfig

__all__ = [
    "ALIASES",
    "STEPS",
    "UPSTREAM",
    "BaselineConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "MainConfig",
    "Option",
    "RecommendConfig",
    "StudentConfig",
    "SweepConfig",
    "TeacherConfig",
    "TrainingConfig",
    "changed",
    "config_of",
    "narrow",
    "option",
    "option_table",
]
