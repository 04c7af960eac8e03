"""The options of every step: one frozen dataclass each, the only place of defaults and of their checks.

``DataConfig`` is part of every step that reads data. ``DistillConfig`` has the options of a student
(``BackboneConfig``) and of a teacher (``TeacherConfig``), because where no fitting teacher is found it makes one. The
same flat names are MLproject parameters, command-line options and fields (`tests/test_config.py` holds the three
together).
"""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin

from recdistill.errors import InputError

Split = Literal["leave-one-out", "chronological"]
StudentName = Literal["sasrec", "gru4rec", "caser"]
BaseLoss = Literal["ce", "bce"]
GateName = Literal["linear", "mlp", "topk", "noisy", "dropout", "resnet"]
TeacherName = Literal["ranking", "generative"]
AnswerName = Literal["free", "constrained", "likelihood"]
DomainName = Literal["item", "movie", "music", "game"]
RankingLoss = Literal["ranking", "kl"]
OutputLoss = Literal["mse", "cosine"]
PolicyName = Literal[
    "all",
    "random",
    "kl_divergence",
    "ground_truth_error",
    "uncertainty",
    "teacher_confidence",
    "popularity_inverse",
    "coverage",
    "custom",
]

#: Options that a ranking teacher has no use for.
GENERATIVE = ("answer", "domain", "candidates", "curriculum", "popularity_adjustment")

#: The policies that need no teacher.
QueryPolicyName = Literal["random", "ground_truth_error", "uncertainty", "popularity_inverse", "custom"]


def option(
    default: Any, text: str, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> Any:
    """A field with its help and the interval of its values (``least`` and ``most`` included, ``above`` not)."""
    return field(default=default, metadata={"help": text, "least": least, "above": above, "most": most})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Checks each field against its type, choices and interval. Raises InputError, one line."""

    seed: int = option(1, "seed of every random number", least=0)
    force: bool = option(False, "run again even where a finished run fits")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "cuda where there is one, else cpu")

    def __post_init__(self) -> None:
        for spec in fields(self):
            check_value(spec.name, getattr(self, spec.name), spec.type, spec.metadata)


def check_value(name: str, value: Any, kind: Any, limits: Any) -> None:
    """Raise InputError unless ``value`` is of ``kind`` and within ``limits`` (the metadata of `option`)."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}={value}: must be one of {', '.join(get_args(kind))}")
        return
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{name}={value}: must be a finite number")
        if limits.get("least") is not None and value < limits["least"]:
            raise InputError(f"{name}={value}: must be at least {limits['least']}")
        if limits.get("above") is not None and value <= limits["above"]:
            raise InputError(f"{name}={value}: must be greater than {limits['above']}")
        if limits.get("most") is not None and value > limits["most"]:
            raise InputError(f"{name}={value}: must be at most {limits['most']}")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Options of ``prepare``: which interactions, and how they are split."""

    dataset: Literal["ml-100k", "csv", "dllm2rec", "ilora"] = option(
        "ml-100k", "ml-100k, csv (with interactions= and items=), dllm2rec or ilora (interactions= a folder)"
    )
    interactions: str = option("", "csv: file with columns user, item, timestamp[, rating]; dllm2rec, ilora: a folder")
    items: str = option("", "csv: file with columns item, title")
    split: Split = option("leave-one-out", "leave-one-out, or chronological (8:1:1 by time)")
    min_interactions: int = option(0, "leave out users with fewer interactions", least=0)
    max_users: int = option(0, "keep only the first users, for a quick try; 0 keeps all", least=0)
    exclude_seen: bool = option(True, "leave the items of the user's history out of the ranking")
    mask_seen: bool = option(
        True, "where they are left out of the ranking, leave them out of the softmax (ce) in training too"
    )


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(DataConfig):
    """Options of a student, in every step that trains one."""

    student: StudentName = option("sasrec", "architecture of the student")
    hidden_size: int = option(64, "size of item embeddings and states", least=1)
    blocks: int = option(2, "SASRec blocks, GRU4Rec layers", least=1)
    heads: int = option(2, "SASRec attention heads", least=1)
    dropout: float = option(0.5, "dropout of the student", least=0, most=0.99)
    max_length: int = option(50, "history items a student reads", least=1)
    output: Literal["tied", "linear"] = option("tied", "score by the item embeddings, or by a layer of its own")
    base_loss: BaseLoss = option("ce", "ce: full softmax; bce: one sampled negative, as DLLM2Rec released")
    epochs: int = option(40, "most passes over the training samples", least=1)
    patience: int = option(8, "epochs without a better validation NDCG@10 before stopping", least=1)
    batch_size: int = option(512, "training samples a step", least=1)
    learning_rate: float = option(0.002, "Adam's learning rate for the student", above=0)
    weight_decay: float = option(0.0, "Adam's weight decay for the student", least=0)
    register: str = option("", "name to register the student under, as a new version; empty: not")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student == "sasrec" and self.hidden_size % self.heads:
            raise InputError(f"heads={self.heads}: must divide hidden_size={self.hidden_size}")


@dataclass(frozen=True, kw_only=True)
class BackboneStepConfig(BackboneConfig):
    """Options of ``backbone``: an undistilled student. SASRec is also the teacher's frozen backbone."""

    released: str = option("", "file of iLoRA's released SASRec, imported instead of training")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(DataConfig):
    """Options of ``teacher``: iLoRA over an LLM, and what it leaves for students."""

    backbone_run_id: str = option("", "run of the frozen SASRec; empty: the newest that fits, or a new one")
    llm: str = option("smollm2-135m", "alias, Hugging Face id or local path of a causal LLM")
    load_in_4bit: bool = option(False, "hold the LLM in 4 bits (NF4, as QLoRA does); needs bitsandbytes")
    teacher: TeacherName = option(
        "ranking", "ranking: a head over the whole catalogue; generative: answers with a title, as in the paper"
    )
    answer: AnswerName = option(
        "free",
        "generative: free, constrained to the candidates' titles, or the likelihood of each (of these the most tokens)",
    )
    domain: DomainName = option("item", "generative: whose words the prompts are in")
    candidates: int = option(20, "generative: titles to choose from in a prompt", least=2)
    curriculum: bool = option(
        True, "generative: text alone at first, item embeddings in ever more batches; false: in all of them"
    )
    popularity_adjustment: float = option(
        0.0, "generative: grounded distances are multiplied by (1 + popularity) to the power of minus this", least=0
    )
    lora_rank: int = option(8, "total LoRA rank, over all experts", least=1)
    lora_alpha: float = option(32.0, "LoRA alpha", above=0)
    lora_dropout: float = option(
        0.0, "LoRA dropout; the release has 0.1, for five passes over its data", least=0, most=0.99
    )
    experts: int = option(4, "LoRA experts; must divide lora_rank", least=1)
    gate: GateName = option("linear", "gate over the backbone's state")
    gate_per_layer: bool = option(False, "a gate for each adapted transformer layer; false: one that all share")
    backbone_residual: bool = option(True, "the head's query starts from the backbone's state")
    plain_titles: bool = option(
        True, "ranking: titles in prompts without a year, and with their article first; false: as they are"
    )
    packing: bool = option(True, "supervise every item boundary of a window; false: one prompt a sample")
    teacher_history: int = option(
        10, "history titles of a sample in its prompt, at least, where the user has them", least=1
    )
    teacher_window: int = option(40, "history titles in a packed prompt, at most", least=1)
    llm_learning_rate: float = option(1e-3, "peak learning rate of LoRA, projector and head", above=0)
    gate_scale: float = option(0.3, "gate learning rate as a share of llm_learning_rate", above=0)
    llm_weight_decay: float = option(1e-5, "weight decay of the teacher's parameters", least=0)
    gradient_clip: float = option(1.0, "greatest norm of the teacher's gradient; 0 does not clip", least=0)
    warmup: float = option(0.05, "share of the steps with rising learning rate", least=0, most=1)
    token_budget: int = option(100_000, "LLM tokens to train on", least=0)
    tokens_per_batch: int = option(1024, "LLM tokens of a training batch", least=1)
    accumulation: int = option(1, "batches whose gradients make a training step", least=1)
    outputs_token_budget: int = option(0, "LLM tokens to score training samples with; 0: all of them", least=0)
    query_policy: QueryPolicyName = option("random", "which training samples the teacher is asked to score first")
    policy_file: str = option("", "Python file with the function policy(signals) that a custom policy is")
    top_n: int = option(50, "candidates kept for each scored sample", least=1)
    sequence_embeddings: bool = option(False, "also keep the teacher's state of each scored sample")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank % self.experts:
            raise InputError(f"experts={self.experts}: must divide lora_rank={self.lora_rank}")
        if self.teacher_history > self.teacher_window:
            raise InputError(
                f"teacher_history={self.teacher_history}: must be at most teacher_window={self.teacher_window}"
            )
        if self.query_policy == "custom" and not self.policy_file:
            raise InputError("query_policy=custom: give policy_file, see docs/DISTILLATION.md")
        if self.query_policy != "random" and not self.outputs_token_budget:
            raise InputError(
                f"query_policy={self.query_policy}: asks for nothing at outputs_token_budget=0, which scores all "
                "samples; give a budget"
            )
        if self.teacher != "generative":
            for spec in fields(self):
                if spec.name in GENERATIVE and getattr(self, spec.name) != spec.default:
                    raise InputError(
                        f"{spec.name}={getattr(self, spec.name)}: is of teacher=generative; set that, or leave it out"
                    )


@dataclass(frozen=True, kw_only=True)
class DistillConfig(BackboneConfig, TeacherConfig):
    """Options of ``distill``: DLLM2Rec (RecSys 2024) from a teacher's outputs."""

    teacher_run_id: str = option("", "run of the teacher; empty: the newest that fits, or a new one")
    teacher_files: str = option("", "folder with DLLM2Rec's three teacher files, instead of a teacher run")
    lam: float = option(0.5, "weight of the ranking distillation", least=0)
    alpha: float = option(0.0, "weight of the DRO term", least=0)
    beta: float = option(1.0, "DRO robustness radius", above=0)
    ed_weight: float = option(0.3, "weight of the teacher's item embedding added to the student's", least=0)
    temperature: float = option(1.0, "softens the teacher's confidences, and both sides of KL", above=0)
    candidate_topk: int = option(10, "teacher candidates a sample", least=1)
    gamma_position: float = option(0.3, "weight of a candidate's position", least=0)
    gamma_confidence: float = option(0.5, "weight of the teacher's confidence", least=0)
    gamma_consistency: float = option(0.1, "weight of student and teacher agreeing", least=0)
    ranking_loss: RankingLoss = option("ranking", "ranking: DLLM2Rec's; kl: listwise over the candidates")
    release_compat: bool = option(False, "reproduce the released candidate loss, defects included")
    output_weight: float = option(0.0, "weight of the distance between student and teacher sequence states", least=0)
    output_loss: OutputLoss = option("cosine", "that distance")
    selection_policy: PolicyName = option("all", "which scored samples carry the distillation terms")
    selection_fraction: float = option(
        1.0, "share of the scored samples that the policy keeps; below 1 for a policy other than all", above=0, most=1
    )
    refresh_interval: int = option(5, "epochs between two selections", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection_policy == "custom" and not self.policy_file:
            raise InputError("selection_policy=custom: give policy_file, see docs/DISTILLATION.md")
        if self.selection_policy != "all" and self.selection_fraction == 1:
            raise InputError(
                f"selection_policy={self.selection_policy}: chooses nothing at selection_fraction=1; "
                "give selection_fraction below 1"
            )
        if self.release_compat and (self.base_loss != "bce" or self.ranking_loss != "ranking"):
            raise InputError(
                "release_compat=true: the release's defects are of base_loss=bce and ranking_loss=ranking; give both"
            )


@dataclass(frozen=True, kw_only=True)
class MainConfig(DistillConfig):
    """Options of ``main``: the whole path, from ratings to the comparison, in minutes on a laptop."""

    token_budget: int = option(80_000, "LLM tokens to train on; the step teacher alone takes 100,000", least=0)
    outputs_token_budget: int = option(
        120_000, "LLM tokens to score training samples with; 0: all of them, as the step teacher does alone", least=0
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """Options of ``evaluate``: rank again with a finished run's model."""

    run_id: str = option("", "a finished backbone, teacher or distill run; empty: the newest distill run")
    exclude_seen: bool = option(True, "leave the items of the user's history out of the ranking")
    answer: Literal["as-trained", "free", "constrained", "likelihood"] = option(
        "as-trained", "how a generative teacher answers, another way than in its own run"
    )


@dataclass(frozen=True, kw_only=True)
class SweepConfig(DistillConfig):
    """Options of ``sweep``: Optuna over the options of ``distill``, each trial a run."""

    space: str = option("sweeps/quick.yaml", "file with the search space; see docs/SWEEPS.md")
    trials: int = option(20, "finished trials in all, those of earlier and of other processes included", least=1)
    study: str = option("", "name of the study; empty: made from the space, the options and the data")
    storage: str = option("", "Optuna storage URL, as postgresql://...; empty: an SQLite file beside the runs")
    jobs: int = option(1, "worker processes here; the cores are divided between them", least=1)
    final_seeds: int = option(5, "seeds of the best, the default and the undistilled student; 0: none", least=0)
    heartbeat_seconds: int = option(10, "between two signs of life of a running trial", least=1)
    grace_seconds: int = option(60, "silence after which a trial's worker is taken for dead", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grace_seconds <= self.heartbeat_seconds:
            raise InputError(f"grace_seconds={self.grace_seconds}: must be above heartbeat_seconds")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Config):
    """Options of ``compare``: evaluated runs tested against their baselines, paired by user."""

    runs: str = option("", "ids of finished runs, separated by commas")
    filter: str = option("", "instead of runs: an MLflow search condition; both empty: every evaluated run")
    baseline: str = option("auto", "auto: each student's undistilled twin, a teacher's backbone; or a run id")
    metric: str = option("test/ndcg_at_10", "metric that decides: val or test, hr or ndcg, and a cut-off")
    resamples: int = option(10_000, "bootstrap and permutation draws", least=100)


@dataclass(frozen=True, kw_only=True)
class RecommendConfig(Config):
    """Options of ``recommend``: what a finished student recommends for a file of histories."""

    model: str = option("", "run of a student, or a model's address as models:/name/1; empty: the newest distill run")
    histories: str = option("", "file with a column history of item ids, oldest first: .jsonl, .parquet or .csv")
    output: str = option("recommendations.csv", "file to write, a row an item: .jsonl, .parquet or .csv")
    k: int = option(10, "items to recommend where the file gives no k", least=1)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Options of ``export``: data and teacher outputs in the files that DLLM2Rec's release reads."""

    teacher_run_id: str = option("", "a finished teacher run; empty: the newest")
    folder: str = option("", "where the files go")
    allow_partial: bool = option(False, "write also where the teacher did not score every training sample")


#: The options of each step, by the name of its entry point.
STEPS: dict[str, type[Config]] = {
    "main": MainConfig,
    "prepare": DataConfig,
    "backbone": BackboneStepConfig,
    "teacher": TeacherConfig,
    "distill": DistillConfig,
    "evaluate": EvaluateConfig,
    "sweep": SweepConfig,
    "compare": CompareConfig,
    "recommend": RecommendConfig,
    "export": ExportConfig,
}

Narrow = TypeVar("Narrow", bound=Config)


def narrow(config: Config, kind: type[Narrow], **changes: Any) -> Narrow:
    """The options of an upstream step, taken from those of a later one, with ``changes``."""
    values = asdict(config)
    return kind(**({spec.name: values[spec.name] for spec in fields(kind) if spec.name in values} | changes))


def own_fields(kind: type[Config], *parents: type[Config]) -> list[str]:
    """Names that ``kind`` has beyond ``parents``."""
    known = {spec.name for parent in parents for spec in fields(parent)}
    return [spec.name for spec in fields(kind) if spec.name not in known]
