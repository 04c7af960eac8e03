"""Options of ``study``."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.config.base import Config
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Config):
    """Options of ``study``: rows, data sets, students and seeds of a plan, each cell a run, and the report."""

    section: ClassVar[str] = "study"

    plan: str = option(
        "study", "a plan that comes with the package, study or study_queries, or a file; see docs/STUDY.md",
        role="place", common=True, content=True, path="file-or-name",
    )  # fmt: skip
    results: str = option(
        "study", "folder of the finished cells, from which a study goes on",
        role="place", common=True, path="written-folder",
    )  # fmt: skip
    report: str = option(
        "", "Markdown file to write, its pictures beside it; empty: report.md in results",
        role="place", common=True, path="written-file",
    )  # fmt: skip
    cells: str = option(
        "", "cells to make now, patterns of their names, data set/row/student-seed, joined by commas, as "
        "ml-100k/*/sasrec-1, and those they start from; empty: all",
        role="place", common=True,
    )  # fmt: skip
    most_cells: int = option(
        -1, "cells to make now at most; 0: only write the report; -1: all", role="place", least=-1, common=True
    )
    jobs: int = option(
        1, "worker processes here; the cores are divided between them, and each makes all cells of a data set and seed",
        role="place", least=1, common=True,
    )  # fmt: skip
