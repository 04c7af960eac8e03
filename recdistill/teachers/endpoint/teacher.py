"""The teacher behind a server: an LLM orders the SASRec's first candidates, sample by sample, by their titles.

It is not trained. What the server answers is a permutation of the candidates; behind them the catalogue stays in the
SASRec's order. A sample whose answer cannot be read counts as one that was not asked.
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from recdistill.config import TeacherConfig
from recdistill.config.option import option
from recdistill.data.batches import Batch, seen_items
from recdistill.data.downloads import cache_dir
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.evaluation.ranking import rank_of_target
from recdistill.registry import TEACHERS
from recdistill.students.student import Student
from recdistill.teachers.backbone.scores import backbone_scores, own_windows
from recdistill.teachers.endpoint.asking import Asker, Prices, Query, Spending, spending_metrics
from recdistill.teachers.endpoint.client import AnswerCache, Server, checked_address
from recdistill.teachers.endpoint.ordering import order_named, question
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.training.distributed import ALONE, Processes

SETTINGS_FILE = "teacher.json"
SAMPLES_A_BATCH = 64
TITLES_A_REQUEST = 64
#: Tokens around the text of a question, at most: a server's chat template.
AROUND = 64
CONFIDENCE = (
    "log of an item's place: first the candidates in the order that the server's LLM named, then those of the SASRec's "
    "first {count} that it did not name, then the catalogue, these by the SASRec; small is sure"
)


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Own options of a teacher behind a server."""

    endpoint: str = option("", "address of an OpenAI-compatible server, as http://localhost:8000/v1", role="place")
    endpoint_model: str = option("", "the model that the server is asked for")
    endpoint_form: Literal["chat", "completions"] = option("chat", "ask /chat/completions or /completions")
    endpoint_key_variable: str = option(
        "OPENAI_API_KEY", "environment variable that holds the server's key; the key itself is never logged",
        role="place",
    )  # fmt: skip
    endpoint_candidates: int = option(20, "first candidates of the SASRec that the server orders", least=2)
    endpoint_tokens: int = option(256, "tokens of an answer, at most", least=1)
    endpoint_evaluate: int = option(100, "test samples that are asked for metrics; 0: none", role="budget", least=0)
    endpoint_queries: int = option(4, "queries at once", role="place", least=1, most=256)
    endpoint_timeout: float = option(60.0, "seconds to wait for an answer", role="place", above=0)
    endpoint_tries: int = option(6, "tries of a query, with growing waits between them", role="place", least=1)
    query_budget: int = option(1000, "training samples that the server is asked about, at most", role="budget", least=1)
    cost_budget: float = option(
        0.0, "what the training samples' answers may cost, in the prices' currency; 0: no limit", role="budget", least=0
    )
    price_prompt: float = option(0.0, "price of a million prompt tokens", role="place", least=0)
    price_answer: float = option(0.0, "price of a million answer tokens", role="place", least=0)
    embeddings_model: str = option("", "model of /embeddings for the items' titles; empty: the SASRec's item table")


@TEACHERS.register("endpoint", options=EndpointOptions, queries=True)
@dataclass(frozen=True, eq=False, kw_only=True)
class EndpointTeacher:
    """A teacher behind a server; see `protocol.Teacher` and `protocol.AsksQueries`."""

    needs_llm: ClassVar[bool] = False
    needs_language_model_head: ClassVar[bool] = False

    backbone: Student
    data: SequenceData
    config: TeacherConfig
    processes: Processes = ALONE
    spent: Spending = field(default_factory=Spending)
    of_test: Spending = field(default_factory=Spending)

    @classmethod
    def build(
        cls,
        config: TeacherConfig,
        llm: BaseLLM | None,
        backbone: Student,
        data: SequenceData,
        processes: Processes = ALONE,
    ) -> Self:
        """The teacher; nothing is asked yet. Raises InputError where several processes start it."""
        if processes.count > 1:
            raise InputError("teacher=endpoint: asks by itself; start it in one process, with endpoint_queries at once")
        return cls(backbone=backbone, data=data, config=config, processes=processes)

    @classmethod
    def load(
        cls, folder: Path, config: TeacherConfig, llm: BaseLLM | None, backbone: Student, data: SequenceData
    ) -> Self:
        """The teacher of `save`. Raises InputError where the folder names another model."""
        try:
            model = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["endpoint_model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder}: no readable endpoint teacher ({error}); make it again") from None
        if model != config.value("endpoint_model"):
            raise InputError(f"{folder}: asked {model}, not {config.value('endpoint_model')}; give that endpoint_model")
        return cls(backbone=backbone, data=data, config=config)

    @classmethod
    def check(cls, config: TeacherConfig, most_tokens: int | None) -> None:
        """Raise InputError where the options cannot work; the server is not asked."""
        options: EndpointOptions = config.of_part(TEACHERS, config.teacher)
        checked_address(options.endpoint)
        if not options.endpoint_model:
            raise InputError("endpoint_model=: is empty; give the name that the server has for its model")
        if options.cost_budget and not (options.price_prompt or options.price_answer):
            raise InputError(
                f"cost_budget={options.cost_budget}: has no prices; give price_prompt and price_answer, of a million "
                "tokens each"
            )
        if config.sequence_embeddings:
            raise InputError(
                "sequence_embeddings=true: a server gives no states of samples; leave it out, and loss terms that read "
                "them, as output_weight"
            )

    @cached_property
    def options(self) -> EndpointOptions:
        """Its own options."""
        options: EndpointOptions = self.config.of_part(TEACHERS, self.config.teacher)
        return options

    @cached_property
    def asker(self) -> Asker:
        """What asks the server; answers are kept for all runs of this user."""
        options = self.options
        address = checked_address(options.endpoint)
        server = Server(address, options.endpoint_key_variable, options.endpoint_timeout, options.endpoint_tries)
        prices = Prices(options.price_prompt, options.price_answer)
        path = "/chat/completions" if options.endpoint_form == "chat" else "/completions"
        return Asker(server, AnswerCache(cache_dir() / "endpoint"), path, prices, options.endpoint_queries)

    @property
    def kind(self) -> str:
        """The name that it is registered under."""
        return self.config.teacher

    @property
    def llm(self) -> str:
        """The model that the server is asked for."""
        return self.options.endpoint_model

    @property
    def confidence(self) -> str:
        """How a distance is defined, for the manifest."""
        return CONFIDENCE.format(count=self.options.endpoint_candidates)

    def lesson(self) -> None:
        """It is not trained."""

    def tokens_a_sample(self) -> float:
        """Tokens of a question, about: four characters each."""
        length = np.mean([len(title) for title in self.data.titles]) + 5
        return float(length * (self.config.teacher_history + self.options.endpoint_candidates) / 4)

    def num_tokens(self, samples: Samples, batch: Batch) -> int:
        """Tokens of a batch's questions, about, and of its answers, at most."""
        return int(len(batch) * (self.tokens_a_sample() + self.options.endpoint_tokens))

    def query_budget(self) -> int:
        """Training samples that the server is asked about, at most."""
        return self.options.query_budget

    def batches(
        self, samples: Samples, *, shuffle: bool, seed: int = 0, index: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches of samples (those at ``index``, where given), each with a window of its own."""
        size, padding_id = SAMPLES_A_BATCH, self.data.padding_id
        return own_windows(self.backbone, samples, size, padding_id, shuffle=shuffle, seed=seed, index=index)

    @torch.no_grad()
    def backbone_scores(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """The SASRec's scores [S, V], minus infinity for items left out, and its states [S, D]."""
        logits, states = backbone_scores(self.backbone, batch)
        if self.config.exclude_seen:
            logits[seen_items(samples, batch.sample, logits.device)] = -torch.inf
        return logits.cpu(), states.cpu()

    def outputs(self, samples: Samples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distances [S, V], inf for items left out and for whole samples without an answer, and the SASRec's states."""
        logits, states = self.backbone_scores(samples, batch)
        orders = self.ordered(samples, batch, logits, self.spent, self.options.cost_budget)
        return distances(logits, orders), states

    def ordered(
        self, samples: Samples, batch: Batch, logits: Tensor, spent: Spending, cost_budget: float = 0.0
    ) -> list[list[int] | None]:
        """Items that the server names first for each sample of a batch, best first; None without an answer."""
        queries = [self.query(samples, int(sample), row) for sample, row in zip(batch.sample, logits, strict=True)]
        started = time.perf_counter()
        answers = self.asker.answers(queries, spent, cost_budget)
        spent.seconds += time.perf_counter() - started
        found: list[list[int] | None] = []
        for query, answer in zip(queries, answers, strict=True):
            places = [] if answer is None else order_named(text_of(answer), query.titles)
            spent.read += bool(places)
            found.append([query.candidates[place] for place in places] or None)
        return found

    def query(self, samples: Samples, sample: int, scores: Tensor) -> Query:
        """The question about a sample, whose candidates are the SASRec's best, best first."""
        titles, options = self.data.titles, self.options
        left = int(torch.isfinite(scores).sum())
        candidates = scores.topk(min(options.endpoint_candidates, left)).indices.tolist()
        begin = max(int(samples.start[sample]), int(samples.end[sample]) - self.config.teacher_history)
        history = [titles[item] for item in samples.items[begin : samples.end[sample]]]
        offered = [titles[item] for item in candidates]
        text = question(history, offered)
        asked: dict[str, Any] = {
            "model": options.endpoint_model,
            "temperature": 0,
            "max_tokens": options.endpoint_tokens,
        }
        if options.endpoint_form == "chat":
            asked["messages"] = [{"role": "user", "content": text}]
        else:
            asked["prompt"] = f"{text}\nAnswer:"
        # A token has a byte or more: no price is higher than this.
        most = self.asker.prices.of(len(text.encode()) + AROUND, options.endpoint_tokens)
        return Query(asked, candidates, offered, most)

    def item_embedding(self) -> Tensor:
        """The SASRec's item table [V, D], or the embeddings that the server gives of titles, float32 [V, E]."""
        if not self.options.embeddings_model:
            return self.backbone.item_table().detach().float().cpu()
        titles = list(self.data.titles)
        parts = [titles[begin : begin + TITLES_A_REQUEST] for begin in range(0, len(titles), TITLES_A_REQUEST)]
        with ThreadPoolExecutor(self.options.endpoint_queries) as pool:
            found = list(pool.map(self.embeddings, parts))
        sizes = {len(vector) for part in found for vector in part}
        if len(sizes) != 1:
            raise InputError(
                f"embeddings_model={self.options.embeddings_model}: gives vectors of unlike sizes; choose another"
            )
        return torch.tensor([vector for part in found for vector in part], dtype=torch.float32)

    def embeddings(self, titles: list[str]) -> list[list[float]]:
        """The server's embeddings of some titles."""
        asked = {"model": self.options.embeddings_model, "input": titles, "encoding_format": "float"}
        cache, server = self.asker.cache, self.asker.server
        answer, _ = cache.kept(asked, lambda: server.post("/embeddings", asked, "data"))
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [[float(value) for value in row["embedding"]] for row in rows]
        except (KeyError, TypeError, ValueError):
            vectors = []
        if len(vectors) != len(titles):
            cache.path(asked).unlink(missing_ok=True)
            raise InputError(
                f"embeddings_model={self.options.embeddings_model}: the server gives no vector for each title; choose "
                "another, or leave it out for the SASRec's item table"
            )
        return vectors

    def ranks(self, folder: Path | None = None) -> None:
        """It is asked about single samples, and ranks no whole part; see `metrics`."""

    def metrics(self) -> dict[str, float]:
        """What was asked and spent, and how the first ``endpoint_evaluate`` test samples are ranked."""
        found = spending_metrics("endpoint", self.spent)
        if self.options.endpoint_evaluate:
            found |= self.test_metrics()
            found |= spending_metrics("endpoint/test", self.of_test)
        return found

    def test_metrics(self) -> dict[str, float]:
        """NDCG@10 and HR@10 of the asked test samples whose answers could be read, and the SASRec's on the same."""
        test = self.data.test
        index = np.random.default_rng(0).permutation(len(test))[: self.options.endpoint_evaluate]
        own, of_backbone = [], []
        for batch in self.batches(test, shuffle=False, index=np.sort(index)):
            logits, _ = self.backbone_scores(test, batch)
            orders = self.ordered(test, batch, logits, self.of_test)
            readable = torch.tensor([order is not None for order in orders])
            excluded = seen_items(test, batch.sample) if self.config.exclude_seen else None
            own.append(rank_of_target(-distances(logits, orders), batch.target, excluded)[readable])
            of_backbone.append(rank_of_target(logits, batch.target, excluded)[readable])
        ranks = {"asked": torch.cat(own).double(), "asked/backbone": torch.cat(of_backbone).double()}
        found = {"asked/samples": float(len(ranks["asked"]))}
        for name, rank in ranks.items():
            if len(rank):
                inside = (rank <= 10).double()
                found[f"{name}/hr_at_10"] = float(inside.mean())
                found[f"{name}/ndcg_at_10"] = float((inside / torch.log2(rank + 1)).mean())
        return found

    def answers(self) -> None:
        """It writes orders, which are kept in the cache."""

    def gate_weights(self, states: Tensor) -> None:
        """It has no gate."""

    def save(self, folder: Path) -> None:
        """Write which model was asked, and how."""
        folder.mkdir(parents=True, exist_ok=True)
        options = self.options
        named = ("endpoint_model", "endpoint_form", "endpoint_candidates", "endpoint_tokens", "embeddings_model")
        described = {name: getattr(options, name) for name in named}
        (folder / SETTINGS_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def text_of(answer: dict[str, Any]) -> str:
    """What the model wrote in an answer of either form; empty where it wrote nothing."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (KeyError, IndexError, TypeError):
        return ""
    return text if isinstance(text, str) else ""


def distances(logits: Tensor, orders: Sequence[Sequence[int] | None]) -> Tensor:
    """Log of every item's place [S, V]: first the order named, then that of the scores; inf where these are -inf.

    A sample without an order has inf throughout.
    """
    raised = logits.clone()
    for row, order in enumerate(orders):
        if order is not None:
            raised[row, list(order)] = torch.finfo(torch.float32).max
    # Of those raised the sort keeps no order: they are put in theirs.
    ranking = raised.argsort(dim=1, descending=True, stable=True)
    for row, order in enumerate(orders):
        if order is not None:
            ranking[row, : len(order)] = torch.tensor(list(order))
    place = torch.empty_like(logits).scatter_(1, ranking, torch.arange(1.0, logits.shape[1] + 1).expand_as(logits))
    found = place.log().masked_fill(torch.isneginf(logits), torch.inf)
    without = torch.tensor([order is None for order in orders])
    return found.masked_fill(without.unsqueeze(1), torch.inf)
