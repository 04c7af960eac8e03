"""Questions to a server, several at once, and what they cost: the answers do not depend on how many are under way."""

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from recdistill.errors import InputError
from recdistill.teachers.endpoint.client import AnswerCache, Server

MILLION = 1_000_000
Answer = dict[str, Any]


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens of prompts, and of answers, in any currency."""

    prompt: float
    answer: float

    def of(self, prompt: int, answer: int) -> float:
        """The price of so many tokens."""
        return (prompt * self.prompt + answer * self.answer) / MILLION


@dataclass(frozen=True)
class Query:
    """A question about a sample.

    Attributes:
        asked: the request.
        candidates: items, in the order of their numbers in the question.
        titles: of the candidates.
        most_cost: what it costs at most.
    """

    asked: dict[str, Any]
    candidates: Sequence[int]
    titles: Sequence[str]
    most_cost: float


@dataclass
class Spending:
    """What was asked, and what it took.

    Attributes:
        asked, paid: answers looked at, and those of them that were asked for now.
        read: answers that name a candidate.
        prompt_tokens, answer_tokens: as the server counts them.
        cost: by the prices given; an answer that was kept costs what it had cost.
        seconds: that the answers took.
        stopped: whether the cost budget has ended.
    """

    asked: int = 0
    paid: int = 0
    read: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    stopped: bool = False

    def count(self, answer: Answer, paid: bool, prices: Prices, cost_budget: float) -> None:
        """Add an answer. Raises InputError where there is a cost budget and the server counts no tokens."""
        usage = answer.get("usage")
        prompt, written = (
            (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
            if isinstance(usage, dict)
            else (0, 0)
        )
        if cost_budget and not prompt + written:
            raise InputError(
                f"cost_budget={cost_budget}: the server does not say how many tokens an answer took; leave cost_budget "
                "out and give query_budget"
            )
        self.asked += 1
        self.paid += paid
        self.prompt_tokens += prompt
        self.answer_tokens += written
        self.cost += prices.of(prompt, written)


@dataclass(frozen=True)
class Asker:
    """Asks a server.

    Attributes:
        server: whom.
        cache: where answers are kept.
        path: what is asked, as ``/chat/completions``.
        prices: of tokens.
        at_once: queries under way at a time, at most.
    """

    server: Server
    cache: AnswerCache
    path: str
    prices: Prices
    at_once: int

    def answers(self, queries: Sequence[Query], spent: Spending, cost_budget: float = 0.0) -> list[Answer | None]:
        """The answers to queries; None from the first on whose price the cost budget (0: none) may not hold.

        Raises InputError where the server refuses, or gives no whole answer; what was answered before is kept.
        """
        found: list[Answer | None] = [None] * len(queries)
        running: dict[Future[tuple[Answer, bool]], int] = {}

        def settle() -> None:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                found[number], paid = future.result()
                spent.count(future.result()[0], paid, self.prices, cost_budget)

        def affords(query: Query) -> bool:
            most = query.most_cost + sum(queries[number].most_cost for number in running.values())
            return not cost_budget or spent.cost + most <= cost_budget

        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                for number, query in enumerate(queries):
                    # The same question is not asked twice at the same time: it would be paid for twice.
                    while running and (len(running) == self.at_once or self.same(query, queries, running.values())):
                        settle()
                    while running and not affords(query):
                        settle()
                    spent.stopped = spent.stopped or not affords(query)
                    if spent.stopped:
                        break
                    running[pool.submit(self.ask, query)] = number
                while running:
                    settle()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def same(self, query: Query, queries: Sequence[Query], numbers: Iterable[int]) -> bool:
        """Whether one of the queries of these numbers asks the same."""
        return any(queries[number].asked == query.asked for number in numbers)

    def ask(self, query: Query) -> tuple[Answer, bool]:
        """The answer to a query, and whether it was asked for now."""
        return self.cache.kept(query.asked, lambda: self.server.post(self.path, query.asked, "choices"))


def spending_metrics(prefix: str, spent: Spending) -> dict[str, float]:
    """What was spent, as metrics."""
    found = {
        f"{prefix}/queries": float(spent.asked),
        f"{prefix}/queries_paid_now": float(spent.paid),
        f"{prefix}/prompt_tokens": float(spent.prompt_tokens),
        f"{prefix}/answer_tokens": float(spent.answer_tokens),
        f"{prefix}/cost": spent.cost,
        f"{prefix}/seconds": spent.seconds,
    }
    if spent.asked:
        found[f"{prefix}/readable_share"] = spent.read / spent.asked
    return found
