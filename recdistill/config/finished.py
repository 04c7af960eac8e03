"""Options of the steps that read finished runs: ``evaluate``, ``compare``, ``recommend``, ``export``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from recdistill.config.base import Config, OnDevice, Seeded
from recdistill.config.option import option


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(OnDevice):
    """Options of ``evaluate``: rank again with a finished run's model."""

    section: ClassVar[str] = "evaluation"

    run_id: str = option(
        "",
        "a finished backbone, teacher, distill or map_items run; empty: the newest distill run",
        role="upstream",
        common=True,
    )
    exclude_seen: bool = option(True, "leave the items of the user's history out of the ranking", common=True)
    answer: Literal["as-trained", "free", "constrained", "likelihood"] = option(
        "as-trained", "how a generative teacher answers, another way than in its own run"
    )


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Seeded):
    """Options of ``compare``: evaluated runs tested against their baselines, paired by user."""

    section: ClassVar[str] = "comparison"

    runs: str = option("", "ids of finished runs, separated by commas", role="upstream", common=True)
    filter: str = option(
        "", "instead of runs: an MLflow search condition; both empty: every evaluated run", role="upstream", common=True
    )
    baseline: str = option(
        "auto", "auto: each student's undistilled twin, a teacher's backbone; or a run id", role="upstream", common=True
    )
    promote: str = option(
        "", "name in the registry: the recommender that is best on validation gets a version there, which is promoted "
        "where it is better",
        role="place",
    )  # fmt: skip
    rankings: str = option(
        "",
        "others' rankings beside the runs: Parquet or CSV files of user, item and rank or score, joined by commas, "
        "each as name=file",
        role="place", common=True,
    )  # fmt: skip
    metric: str = option(
        "test/ndcg_at_10",
        "metric that decides: val or test, a metric and its cut-off, as test/hr_at_20 or test/mrr",
        common=True,
    )
    resamples: int = option(10_000, "bootstrap and permutation draws", least=100)


@dataclass(frozen=True, kw_only=True)
class RecommendConfig(Config):
    """Options of ``recommend``: what a finished student recommends for a file of histories."""

    section: ClassVar[str] = "recommendations"

    model: str = option(
        "", "run of a student, or a model's address as models:/name/1; empty: the newest distill run",
        role="upstream", common=True, path="read-or-name",
    )  # fmt: skip
    histories: str = option(
        "", "file with a column history of item ids, oldest first: .jsonl, .csv or .tsv, gzipped or not, or .parquet",
        role="place", common=True, content=True, path="read",
    )  # fmt: skip
    output: str = option(
        "recommendations.csv", "file to write, a row an item: .jsonl, .parquet or .csv",
        role="place", common=True, path="written-file",
    )  # fmt: skip
    k: int = option(10, "items to recommend where the file gives no k", least=1, common=True)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Options of ``export``: a student as an ONNX model, or data and teacher outputs in DLLM2Rec's files."""

    section: ClassVar[str] = "export"

    format: Literal["dllm2rec", "onnx"] = option(
        "dllm2rec", "dllm2rec: files that DLLM2Rec's release reads; onnx: a student as student.onnx", common=True
    )
    teacher_run_id: str = option(
        "", "of dllm2rec: a finished teacher run; empty: the newest", role="upstream", common=True
    )
    model: str = option(
        "", "of onnx: run of a student, or a model's address as models:/name/1; empty: the newest distill run",
        role="upstream", common=True, path="read-or-name",
    )  # fmt: skip
    folder: str = option("", "where the files go", role="place", common=True, path="written-folder")
    allow_partial: bool = option(False, "write also where the teacher did not score every training sample")
