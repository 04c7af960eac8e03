"""Is the LLM worth its price, on one data set: what it adds over cheap text and over ids, where, and what it costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from recdistill.evaluation.paired_tests import p_value_text
from recdistill.study.comparisons import CUT_OFF, METRIC, SIGNIFICANCE, Difference, corrected, difference

NAME = f"{METRIC.upper()}@{CUT_OFF}"
#: Names of rows.
IDS, BOTH, CHEAP, FROZEN, TRAINED, FINAL = (
    "ids",
    "distilled",
    "cheap text",
    "cheap text + frozen LLM",
    "cheap text + teacher",
    "distilled + cheap text + teacher",
)
#: The last one, of a teacher that has no vector of an item's text.
FINAL_TEXTS = "distilled + cheap text"
#: Rows of students that learnt from the teacher's SASRec alone, without an LLM.
UNTAUGHT, UNTAUGHT_FINAL = "control", "control + cheap text"
NO_LLM = "This teacher has no LLM, so that nothing is said of one: the differences are what the teacher adds itself."
CONTROL_IS = f"The {UNTAUGHT} is the same student, taught by the teacher's SASRec alone, without the LLM."

#: What a teacher's price is for.
OF_PRICE = "to train, score training samples and read the items' texts, not to rank validation and test"

UNSET_IS = (
    f"New items of a row without `{CHEAP}` in its name stand where training left them, and take places from items with "
    "clicks; in the others one rule sets them."
)


@dataclass(frozen=True)
class Question:
    """What is asked of two rows.

    Attributes:
        row, against: their names.
        part: of the targets, see `study.comparisons`.
        target: what these targets are called in a sentence.
        of_llm: whether the answer is what the LLM adds.
        unless: rows that answer better where one is there: then this answer is no longer the LLM's.
    """

    row: str
    against: str
    part: str
    target: str
    of_llm: bool = True
    unless: tuple[str, ...] = ()


CLICKED = (("warm", "items with clicks"), ("sparse", "items with few clicks"))
#: Cheap text helps items with clicks, too: an LLM must beat the student whose embeddings start from it. And new items
#: take places from the others: where both students have theirs set by one rule, what is left is what the teacher
#: taught. That may be what its SASRec knows: the LLM's is only what the student is ahead of all of these (`by_target`).
QUESTIONS = (
    *(
        Question(final, against, part, target)
        for final in (FINAL, FINAL_TEXTS)
        for against in (UNTAUGHT_FINAL, CHEAP)
        for part, target in CLICKED
    ),
    *(
        Question(BOTH, against, part, target, unless=(FINAL, FINAL_TEXTS))
        for against in (UNTAUGHT, IDS)
        for part, target in CLICKED
    ),
    Question(CHEAP, IDS, "warm", "items with clicks", of_llm=False),
    Question(CHEAP, IDS, "new_among_new", "new items", of_llm=False),
    Question(FROZEN, CHEAP, "new_among_new", "new items"),
    Question(TRAINED, CHEAP, "new_among_new", "new items"),
    *(
        Question(final, against, "all", "all targets", of_llm=False)
        for final in (FINAL, FINAL_TEXTS)
        for against in (UNTAUGHT_FINAL, CHEAP)
    ),
)


@dataclass(frozen=True)
class Asked:
    """A question that could be asked of the rows that are there.

    Attributes:
        row, against, target: see `Question`.
        of_llm: whether the answer is what the LLM adds.
        difference: the answer.
        questions: how many were asked, over which its p-value is corrected.
        has_llm: whether the teacher has one.
    """

    row: str
    against: str
    target: str
    of_llm: bool
    difference: Difference
    questions: int = 1
    has_llm: bool = True

    @property
    def share(self) -> str:
        """The difference as a share, or as it is where the other row has nothing."""
        one = self.difference
        return f"{one.difference:+.4f}" if math.isnan(one.relative) else f"{one.relative:+.0%}"

    @property
    def line(self) -> str:
        """The answer in a sentence."""
        one = self.difference
        gain = "" if math.isnan(one.relative) else f" ({one.relative:+.1%})"
        bounds = one.wider
        interval = "no interval" if math.isnan(bounds.low) else f"95 % interval {bounds.low:+.4f} to {bounds.high:+.4f}"
        return (
            f"{self.target}: {self.row} {one.value:.4f}, {self.against} {one.against:.4f}, "
            f"{one.difference:+.4f}{gain}, {interval}, p {p_value_text(one.adjusted)}: {self.said}"
        )

    @property
    def said(self) -> str:
        """The verdict in words that fit interval and p-value both."""
        one = self.difference
        if one.verdict in ("better", "worse"):
            return one.verdict
        text = self.doubt or "no difference that noise does not explain"
        if one.verdict == "not below":
            text = f"{self.doubt or 'no difference to be seen'}, and not below"
        return text

    @property
    def doubt(self) -> str:
        """Why a difference whose interval is clear of 0 is no finding; empty where it is one or is not clear of 0."""
        one = self.difference
        if one.verdict in ("better", "worse") or not (one.wider.low > 0 or one.wider.high < 0):
            return ""
        if one.adjusted < SIGNIFICANCE:
            return "clear of 0, but the seeds do not agree"
        return f"clear of 0 alone, not after the correction for {self.questions} comparisons"


@dataclass(frozen=True)
class Price:
    """What a teacher and a student cost.

    Attributes:
        tokens: LLM tokens of the teacher's budgets, or those that its server counted; 0 where a budget has no limit.
        seconds: of the teacher's training and scoring on this machine, or of its server.
        teacher_ms: per 1,000 recommendations; None of a teacher that ranks no whole part.
        student_ms: the same of the student.
        counted: whether the tokens were counted; a budget buys whole batches, which may be larger than asked for.
        text_tokens: LLM tokens that the teacher reads of the items' texts beside its budgets; None: not counted.
        frozen: LLM tokens and seconds of the vectors that the frozen LLM makes of the items' texts; None without them.
    """

    tokens: int
    seconds: float
    teacher_ms: float | None
    student_ms: float
    counted: bool = False
    text_tokens: int | None = 0
    frozen: tuple[int, float] | None = None

    @property
    def spent(self) -> str:
        """What was spent once, and what that is for."""
        budgets, texts = "" if self.counted else "budgets of ", self.text_tokens
        parts = [f"{budgets}{self.tokens:,} LLM tokens"] if self.tokens else []
        if texts:
            parts.append(f"{texts:,} {'' if parts else 'LLM tokens '}to read the items' texts")
        spent = " and ".join([*([", ".join(parts)] if parts else []), f"{self.seconds:,.0f} s once"])
        if self.counted:
            return spent
        if texts is None:
            return f"{spent} ({OF_PRICE}; no tokens of the items' texts, which the teacher's run did not count)"
        return f"{spent} ({OF_PRICE})"

    @property
    def lines(self) -> list[str]:
        """The price of the teacher and its students, and that of the row which has an LLM and no teacher."""
        if self.frozen is None:
            return [self.line]
        tokens, seconds = self.frozen
        return [self.line, f"price of {FROZEN}: {tokens:,} LLM tokens and {seconds:,.0f} s once, no teacher"]

    @property
    def line(self) -> str:
        """The price in a sentence: of training, scoring training samples and reading the items' texts."""
        once, student = f"price: {self.spent}", f"{self.student_ms / 1000:,.2f} s"
        if self.teacher_ms is None:
            return f"{once}; per 1,000 recommendations the student takes {student}"
        factor = self.teacher_ms / self.student_ms if self.student_ms else math.inf
        return (
            f"{once}; per 1,000 recommendations the teacher takes {self.teacher_ms / 1000:,.1f} s and the student "
            f"{student} ({factor:,.0f} times less)"
        )


def ask(rows: Mapping[str, Sequence[pd.DataFrame]], margin: float) -> list[Asked]:
    """Every question whose rows are there, p-values corrected over them.

    Args:
        rows: ranks of the test samples by name of the row, one table a seed, as `study.comparisons` reads them.
        margin: of *not below*, as a share.
    """
    asked: list[Asked] = []
    for one in QUESTIONS:
        if one.row in rows and one.against in rows:
            found = difference(rows[one.row], rows[one.against], one.part, margin)
            if found is not None:
                of_llm = one.of_llm and not any(name in rows for name in one.unless)
                asked.append(Asked(one.row, one.against, one.target, of_llm, found))
    adjusted = corrected([one.difference for one in asked])
    return [replace(one, difference=new, questions=len(asked)) for one, new in zip(asked, adjusted, strict=True)]


def by_target(asked: Sequence[Asked]) -> dict[str, Asked]:
    """What the LLM adds for each target: of several ways to use it one that helps, else one that harms, else any.

    A way that is held against several students without the LLM adds what it adds to the one that it is least ahead of:
    a control that was stopped early by luck makes no LLM worth its price.
    """
    order = {"better": 0, "worse": 1}
    behind = {"worse": 0, "better": 2}

    def sureness(one: Asked) -> tuple[int, float]:
        return order.get(one.difference.verdict, len(order)), one.difference.adjusted

    def ahead(one: Asked) -> tuple[int, float]:
        return behind.get(one.difference.verdict, 1), one.difference.difference

    ways: dict[tuple[str, str], Asked] = {}
    for one in (one for one in asked if one.of_llm):
        way = (one.row, one.target)
        if way not in ways or ahead(one) < ahead(ways[way]):
            ways[way] = one
    where: dict[str, Asked] = {}
    for one in ways.values():
        if one.target not in where or sureness(one) < sureness(where[one.target]):
            where[one.target] = one
    return where


def verdict(asked: Sequence[Asked]) -> str:
    """'better' where the LLM helps for some target, else 'worse' where it harms, else 'unclear'."""
    said = {one.difference.verdict for one in by_target(asked).values()}
    return next((one for one in ("better", "worse") if one in said), "unclear")


def sentence(asked: Sequence[Asked]) -> str:
    """For which targets the LLM is worth it, in one sentence."""
    where = by_target(asked)
    if asked and not any(one.has_llm for one in asked):
        return NO_LLM
    if not where:
        return "Whether the LLM is worth it cannot be said: there is nothing to compare."
    worth = [f"{t} ({one.share})" for t, one in where.items() if one.difference.verdict == "better"]
    harms = [f"{t} ({one.share})" for t, one in where.items() if one.difference.verdict == "worse"]
    unseen = {t: one for t, one in where.items() if one.difference.verdict not in ("better", "worse")}
    hidden = [t for t, one in unseen.items() if not one.doubt]
    doubts = dict.fromkeys(one.doubt for one in unseen.values() if one.doubt)
    parts = [f"worth it for {joined(worth)}"] if worth else []
    parts += [f"not for {joined(hidden)}, where noise hides whatever it adds"] if hidden else []
    for doubt in doubts:
        clear = [f"{t} ({one.share})" for t, one in unseen.items() if one.doubt == doubt]
        parts.append(f"not for {joined(clear)}, {doubt}")
    parts += [f"harmful for {joined(harms)}"] if harms else []
    text = "; ".join(parts) if worth else f"not shown to be worth it: {'; '.join(parts)}"
    return f"The LLM is {text}."


def explained(asked: Sequence[Asked]) -> list[str]:
    """What the names of rows mean, a sentence each: of the control, and of new items that no rule has set."""
    named = {name for one in asked for name in (one.row, one.against)}
    sentences = [CONTROL_IS] if {UNTAUGHT, UNTAUGHT_FINAL} & named else []
    return [*sentences, UNSET_IS] if BOTH in named and {FINAL, FINAL_TEXTS} & named else sentences


def joined(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def report(asked: Sequence[Asked], price: Price | None, seeds: int, terms: str = "") -> str:
    """The answer in Markdown: the sentence, each question, the price, the terms of the language models."""
    read = f"{NAME} on test samples; intervals are the wider of users' and items'"
    read += f", each p is after Holm's correction for all {len(asked)} comparisons." if asked else "."
    lines = [f"**{sentence(asked)}**", "", read]
    if seeds == 1:
        lines.append("One seed: another seed gives other numbers, and these intervals do not hold that.")
    lines += explained(asked)
    lines += ["", *(f"- {one.line}" for one in asked)]
    if price is not None:
        lines += ["", *(f"- {line}" for line in price.lines)]
    if terms:
        lines += ["", f"Made with language models: {terms}"]
    return "\n".join(lines) + "\n"
