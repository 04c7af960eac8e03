"""The whole path on six real users with the real LLMs that have an alias, under a tiny budget."""

import math
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from small_data import options_of, write_table
from transformers import AutoModelForCausalLM
from workplace import Workplace, add_model, make_downloads, ml100k_files, run_step

from recdistill.config import DataConfig
from recdistill.data.load import load_data
from recdistill.data.pinned_models import LLMS
from recdistill.data.samples import Samples
from recdistill.runs.step_runs import StepRun, finished_run
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.llm_source import load_llm

HIDDEN_SIZES = {"smollm2-135m": 576, "gemma3-270m": 640}
FILMS = (
    *("Toy Story (1995)", "Star Wars (1977)", "The Silence of the Lambs (1991)", "Raiders of the Lost Ark (1981)"),
    *("Forrest Gump (1994)", "Schindler's List (1993)", "The Lion King (1994)", "Back to the Future (1985)"),
)


@torch.no_grad()
def perplexity(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Of the tokens [1, T] after the first."""
    logits = model(input_ids=tokens).logits[0, :-1].float()
    return math.exp(torch.nn.functional.cross_entropy(logits, tokens[0, 1:]))


def check_that_it_knows_english(llm: BaseLLM) -> None:
    """Film titles are likely, as no model of random weights of the same shape has it, and a sentence goes on well."""
    tokens = llm.tokenizer("\n".join(FILMS), return_tensors="pt")["input_ids"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = AutoModelForCausalLM.from_config(llm.model.config).eval()
    found, by_chance = perplexity(llm.model, tokens), perplexity(untrained, tokens)
    assert found < 10 < 1000 < by_chance
    begin = llm.tokenizer("The first president of the United States was George", return_tensors="pt")
    written = llm.model.generate(**begin, max_new_tokens=2, do_sample=False)[0, begin["input_ids"].shape[1] :]
    assert llm.tokenizer.decode(written).split()[0].startswith("Washington")


def films_of(users: int, folder: Path) -> dict[str, str]:
    """Options that read the films of MovieLens-100K's first users, and no others: an LLM reads them all some times."""
    data = load_data(DataConfig(max_users=users))
    samples = (data.train, data.validation, data.test)
    rows = {(user, item) for part in samples for user, items in histories(part) for item in enumerate(items)}
    items = sorted({item for _, (_, item) in rows})
    log = [(user, data.item_ids[item], moment) for user, (moment, item) in sorted(rows)]
    write_table(folder / "interactions.csv", [("user", "item", "timestamp"), *log])
    write_table(
        folder / "items.csv", [("item", "title"), *((data.item_ids[item], data.titles[item]) for item in items)]
    )
    return options_of(folder)


def histories(samples: Samples) -> Iterator[tuple[int, list[int]]]:
    """User, and history with its target, of each sample."""
    for user, start, end in zip(samples.user, samples.start, samples.end, strict=True):
        yield int(user), samples.items[start : end + 1].tolist()


def ranks(run: StepRun) -> list[int]:
    """The ranks of the test targets that a run keeps."""
    found: list[int] = pd.read_parquet(run.artifact("ranks") / "test.parquet")["rank"].tolist()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("alias", LLMS)
def test_ratings_to_distilled_student(tmp_path_factory, capsys, alias):
    downloads = make_downloads(tmp_path_factory.mktemp("downloads"), ml100k_files())
    add_model(downloads, LLMS[alias])
    place = Workplace(tmp_path_factory.mktemp(alias), downloads)
    with place.entered():
        films = films_of(6, tmp_path_factory.mktemp("films"))
        options = {**films, "llm": alias, "token_budget": 3000, "outputs_token_budget": 3000}
        # Whole texts that are given twice are several times as many tokens.
        options |= {"teacher_text": "title", "teacher_reading": "mean"}
        assert run_step("main", **options, epochs=2, top_n=20) == 0
        tags = mlflow.get_run(place.newest("distill").info.run_id).data.tags
        run = finished_run(tags["recdistill.teacher_run_id"], "teacher")
        data = data_of(DataConfig(**films))
        outputs = teacher_outputs_of(run, data)
        assert 400 < data.num_items < 600
        assert outputs.manifest.llm == alias
        assert outputs.item_embedding.shape == (data.num_items, HIDDEN_SIZES[alias])
        assert outputs.top_n == 20
        assert 0.01 < outputs.covered_share <= 1
        assert (
            outputs.covered_share
            == run.metrics()["covered_share"]
            == place.newest("distill").data.metrics["teacher_covered_share"]
        )
        metrics = run.metrics()
        assert 0 < metrics["train/total"] < 12  # ln 458 is 6.1
        assert all(0 <= value <= 1 for name, value in metrics.items() if "_at_" in name)
        assert "sasrec, distilled" in capsys.readouterr().out
        # The GGUF file is converted once, and the next teacher reads what is there.
        (converted,) = (place.folder / "cache" / "llm").glob("*/model.safetensors")
        before = converted.stat()
        assert run_step("evaluate", run_id=run.run_id) == 0
        assert ranks(finished_run(place.newest("evaluate").info.run_id, "evaluate")) == ranks(run)
        check_that_it_knows_english(load_llm(alias, torch.device("cpu"), causal_lm=True))
        assert (converted.stat().st_ino, converted.stat().st_mtime) == (before.st_ino, before.st_mtime)
