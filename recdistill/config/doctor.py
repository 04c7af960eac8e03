"""Options of ``doctor``."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Config
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Config):
    """Options of ``doctor``: whether this machine has what the steps need, and what to do where it has not."""

    section: ClassVar[str] = "checks"

    llm: str = option(
        "smollm2-135m", "alias, Hugging Face id or local path of a causal LLM",
        role="place", common=True, path="read-or-name",
    )  # fmt: skip
