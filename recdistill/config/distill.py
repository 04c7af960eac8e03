"""Options of ``distill`` and of the steps built on it: ``main`` and ``sweep``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from recdistill.config.base import WEIGHT, Config, option_table
from recdistill.config.option import option
from recdistill.config.student import StudentConfig, check_measured, check_without_teacher
from recdistill.config.teacher import TeacherConfig
from recdistill.config.views import OR, TOGETHER
from recdistill.errors import InputError
from recdistill.registry import LOSS_TERMS, POLICIES, STUDENTS, TEACHERS, VIEWS, Registry

RankingLoss = Literal["base", "bce", "ce", "kl"]
Shuffled = Literal["none", "rankings", "vectors", "both"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig(StudentConfig, TeacherConfig):
    """Options of ``distill``: DLLM2Rec (RecSys 2024) from a teacher's outputs."""

    section: ClassVar[str] = "distillation"
    upstream: ClassVar[type[Config] | None] = TeacherConfig
    weighted: ClassVar[Registry | None] = LOSS_TERMS

    teacher_run_id: str = option(
        "",
        "run of the teacher; empty: the newest that fits, with default budgets of any seed and budget, or a new one",
        role="upstream",
        common=True,
    )
    teacher_files: str = option(
        "", "folder of teacher outputs, or of DLLM2Rec's three teacher files, instead of a teacher run",
        role="place", content=True, path="read",
    )  # fmt: skip
    student: str = option("sasrec", "the student", common=True, choices=STUDENTS, among={"gradient": True})
    lam: float = option(0.5, "weight of the ranking distillation", least=0, common=True)
    alpha: float = option(0.0, "weight of the DRO term", least=0, common=True)
    beta: float = option(
        1.0, "divides what the DRO term exponentiates: the smaller, the more the worst items count", above=0,
        read_with={"alpha": "above 0"},
    )  # fmt: skip
    ed_weight: float = option(
        0.3, "weight of the teacher's item embedding added to the student's", least=0, common=True
    )
    ed_rank: int = option(
        0, "directions of the teacher's item embeddings that are added, the longest; a step reads so many numbers an "
        "item in place of the embedding's whole width; 0: all", least=0, read_with={"ed_weight": "above 0"}, later=True,
    )  # fmt: skip
    temperature: float = option(1.0, "softens the teacher's confidences, and both sides of KL", above=0, common=True)
    candidate_topk: int = option(
        10, "of the teacher's ranking, the first so many items of a sample are taught", least=1
    )
    new_candidates: bool = option(
        False, "also teach items without a training target, where the teacher ranks them; else the next items of its "
        "ranking take their places", read_with={"mask_untrained": "true"},
    )  # fmt: skip
    gamma_position: float = option(
        0.3, "weight of a candidate's position in the teacher's ranking, among what weighs it", least=0,
        read_with={"lam": "above 0", "ranking_loss": "base or bce or ce"},
    )  # fmt: skip
    gamma_confidence: float = option(
        0.5, "weight of the teacher's confidence in the sample, likewise", least=0,
        read_with={"lam": "above 0", "ranking_loss": "base or bce or ce"},
    )  # fmt: skip
    gamma_consistency: float = option(
        0.1, "weight of student and teacher agreeing, likewise", least=0,
        read_with={"lam": "above 0", "ranking_loss": "base or bce or ce"},
    )  # fmt: skip
    ranking_loss: RankingLoss = option(
        "base",
        "loss of each candidate: base, that of the target, as DLLM2Rec has it (ranking is another name of it); ce or "
        "bce, whatever base_loss is; or kl, listwise over the candidates",
        other_names={"ranking": "base"},
        read_with={"lam": "above 0"},
    )
    base_weight: float = option(1.0, "weight of base loss and the target's DRO term; 0: distillation alone", least=0)
    release_compat: bool = option(False, "reproduce the released candidate loss, defects included")
    selection_policy: str = option(
        "all", "which scored samples carry the distillation terms", common=True, choices=POLICIES
    )
    selection_fraction: float = option(
        1.0, "share of the scored samples that the policy keeps; below 1 for a policy other than all", above=0, most=1
    )
    teacher_shuffle: Shuffled = option(
        "none",
        "a control: deal the teacher's rankings to other samples, its item vectors to other items, or both; what is "
        "gained all the same is not what the teacher knows",
    )
    refresh_interval: int = option(
        5, "epochs between two selections", least=1, read_with={"selection_fraction": "below 1"}
    )
    rounds: int = option(
        1,
        "times that the teacher is asked; before each further one a student is distilled, at whose doubt query_policy "
        "looks. Each costs outputs_token_budget (or query_budget) again",
        least=1,
        later=True,
    )
    query_share: float = option(
        1.0,
        "learn from this share of the teacher's answers alone, those that query_policy asks for first: what a smaller "
        "budget would have bought, over all rounds, without asking anybody",
        above=0, most=1, later=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_queries()
        if self.selection_policy == "custom" and not self.value("policy_file"):
            raise InputError("selection_policy=custom: give policy_file, see docs/DISTILLATION.md")
        if self.selection_policy != "all" and self.selection_fraction == 1:
            raise InputError(
                f"selection_policy={self.selection_policy}: chooses nothing at selection_fraction=1; "
                "give selection_fraction below 1"
            )
        if self.release_compat and (self.base_loss != "bce" or self.ranking_loss not in ("base", "bce")):
            raise InputError(
                "release_compat=true: the release's defects are of base_loss=bce and ranking_loss=base; give both"
            )
        if self.lam and self.base_loss in ("sampled", "gbce") and self.ranking_loss in ("ce", "bce"):
            raise InputError(
                f"ranking_loss={self.ranking_loss}: reads other items than base_loss={self.base_loss} draws; give base "
                "or kl, or base_loss=ce"
            )
        if self.teacher_shuffle in ("vectors", "both") and self.starts_from_teacher:
            raise InputError(
                f"teacher_shuffle={self.teacher_shuffle}: views={self.views} has embeddings start from the teacher's "
                "own vectors, which are not dealt; leave teacher out of views, or deal rankings alone"
            )
        weights = [self.value(name + WEIGHT) for name in LOSS_TERMS.names()]
        if not self.base_weight and not self.lam and not any(weights):
            raise InputError("base_weight=0: leaves nothing to learn at lam=0; give lam, or a loss term's weight")

    @classmethod
    def read_of_upstream(cls, values: Mapping[str, Any]) -> Collection[str]:
        """The query policy, with its options, where it deals out a share of a teacher's answers."""
        if float(values.get("query_share", 1.0)) == 1:
            return ()
        chosen = f"query_policy={values.get('query_policy', 'random')}"
        of_policy = [name for name, one in option_table(cls).items() if chosen in one.parts]
        return ("query_policy", *of_policy)

    def wrong_before(self) -> dict[str, bool]:
        """Also, of distillation:

        - over shared negatives: candidates that are targets, and items that are no targets;
        - at a temperature below 1 the confidences, which became all alike; of ``kl`` what float32 left of it;
        - of ``bce`` the student's own top K, which had the items of the history;
        - where samples are drawn, draws that were those of the next seed one epoch before.
        """
        weighs = self.lam > 0 and self.ranking_loss != "kl"
        confidence = weighs and self.gamma_confidence > 0 and self.temperature < 1
        listwise = self.lam > 0 and self.ranking_loss == "kl" and self.temperature != 1
        top_of_bce = weighs and self.gamma_consistency > 0 and self.base_loss == "bce" and self.ranking_loss != "ce"
        return {
            "losses over shared negatives": self.base_loss in ("sampled", "gbce") and bool(self.lam or self.alpha),
            "temperature": confidence or listwise,
            "top K of bce": top_of_bce and self.mask_seen and self.exclude_seen and not self.release_compat,
            "draws of samples": self.selection_fraction < 1,
            **super().wrong_before(),
        }

    def unread(self) -> Collection[str]:
        """Also whether new items are candidates, where all items are."""
        return (*super().unread(), *(["new_candidates"] if not self.mask_untrained else []))

    @property
    def leaves_new_out(self) -> bool:
        """Whether items without a training target are no candidates: nothing would push their scores down again."""
        return self.mask_untrained and not self.new_candidates

    def check_queries(self) -> None:
        """Raise InputError where nobody can say which samples are asked first, or a teacher cannot be asked again."""
        name = f"rounds={self.rounds}" if self.rounds > 1 else f"query_share={self.query_share:g}"
        if self.teacher_files and (self.rounds > 1 or self.query_share < 1):
            raise InputError(f"{name}: files have no teacher to ask; give a teacher run in place of teacher_files")
        asks_queries = bool(TEACHERS.declaration(self.teacher).about.get("queries"))
        if self.rounds > 1 and self.query_share == 1 and not self.outputs_token_budget and not asks_queries:
            raise InputError(
                f"rounds={self.rounds}: nothing is left to ask at outputs_token_budget=0, which scores all samples; "
                "give a budget, or query_share below 1"
            )


@dataclass(frozen=True, kw_only=True)
class MainConfig(DistillConfig):
    """Options of ``main``: the whole path, from ratings to the comparison, in minutes on a laptop."""

    section: ClassVar[str] = "the whole path"
    upstream: ClassVar[type[Config] | None] = None

    baselines: str = option(
        "itemknn,ease",
        "recommenders without training by gradient to show beside, by commas: itemknn, ease; empty: none",
        listed=True,
    )
    promote: bool = option(
        False, "hold the registered student (register) against the champion of that name, and promote it where better",
        role="place",
    )  # fmt: skip
    cheap_views: str = option(
        "sentence+tfidf", "views of an item's text without an LLM, which the LLM must beat: where items are new, the "
        "students start from them, and new items are told by them; empty: none",
        choices=VIEWS, several=True,
    )  # fmt: skip
    control: bool = option(
        True, "also distil a student from the SASRec that the teacher reads, without the LLM: what the LLM taught is "
        "what its student is ahead of this one",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_without_teacher(self)
        check_measured(self)
        if self.promote and not self.register:
            raise InputError("promote=true: give register, the name of the student in the registry")
        object.__setattr__(self, "cheap_views", self._spelled("cheap_views", self.cheap_views, TOGETHER))
        if OR in self.cheap_views:
            raise InputError(
                f"cheap_views={self.cheap_views}: students start from one choice of views; give one of them"
            )
        for name in self.baseline_names:
            if name not in STUDENTS.names(gradient=False):
                raise InputError(f"baselines={name}: must be of {', '.join(STUDENTS.names(gradient=False))}, or empty")

    def parts(self) -> list[tuple[str, Registry, str]]:
        """Also the recommenders that ``baselines`` names, whose own options are none of this step."""
        return [*super().parts(), *(("baselines", STUDENTS, name) for name in self.baseline_names)]

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """The recommenders that ``baselines`` names."""
        return tuple(name.strip() for name in self.baselines.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class SweepConfig(DistillConfig):
    """Options of ``sweep``: Optuna over the options of ``distill``, each trial a run."""

    section: ClassVar[str] = "sweep"
    upstream: ClassVar[type[Config] | None] = None
    parts_later: ClassVar[bool] = True

    space: str = option(
        "quick", "a search space that comes with the package, quick, distill, teacher, students or new_items, or a "
        "file; see docs/SWEEPS.md",
        role="place", common=True, content=True, path="file-or-name",
    )  # fmt: skip
    trials: int = option(
        20, "finished trials in all, those of earlier and of other processes included",
        role="budget", least=1, common=True,
    )  # fmt: skip
    study: str = option("", "name of the study; empty: made from the space, the options and the data", role="place")
    storage: str = option(
        "", "Optuna storage URL, as postgresql://...; empty: an SQLite file beside the runs", role="place"
    )
    jobs: int = option(1, "worker processes here; the cores are divided between them", role="place", least=1)
    final_seeds: int = option(
        5, "seeds of the best, the default and the undistilled student; 0: none", role="budget", least=0
    )
    final_jobs: int = option(
        0, "processes for the trainings of these seeds; 0: jobs, and at jobs=1 on a CPU one a thread",
        role="place", least=0,
    )  # fmt: skip
    final_together: bool = option(
        False, "train a configuration's final seeds as one batched model, for a GPU", role="budget", later=True
    )
    heartbeat_seconds: int = option(10, "between two signs of life of a running trial", role="place", least=1)
    grace_seconds: int = option(60, "silence after which a trial's worker is taken for dead", role="place", least=1)

    def checked(self) -> Self:
        """These options: what reads them is known with the search space, see `recdistill.sweep.space.base_config`."""
        return self

    def __post_init__(self) -> None:
        super().__post_init__()
        check_without_teacher(self)
        check_measured(self)
        if self.grace_seconds <= self.heartbeat_seconds:
            raise InputError(f"grace_seconds={self.grace_seconds}: must be above heartbeat_seconds")
        if self.final_together and self.final_jobs > 1:
            raise InputError(
                f"final_jobs={self.final_jobs}: final_together=true trains seeds in one process; leave one of them out"
            )
