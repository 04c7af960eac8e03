"""Prompts against the LLM's positions: the longest one is found exactly, and refused before training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tiny_llm import tiny_tokenizer

from recdistill.config import DataConfig, TeacherConfig
from recdistill.data.batches import batches
from recdistill.errors import InputError
from recdistill.steps.inputs import data_of
from recdistill.teachers.ranking.prompt_length import check_prompts, longest_prompt
from recdistill.steps.teacher import teacher
from recdistill.teachers.ranking.packing import one_prompt_a_sample, packed_prompts
from recdistill.teachers.ilora.titles import tokenise_titles


@pytest.fixture(scope="module")
def scored(small_files: dict[str, str]) -> Any:
    """The small data set and its titles, as a scorer has them."""
    data = data_of(DataConfig(**small_files))  # type: ignore[arg-type]
    return SimpleNamespace(data=data, teacher=SimpleNamespace(titles=tokenise_titles(tiny_tokenizer(), data.titles)))


def parts(scored: Any) -> tuple[Any, ...]:
    return scored.data.train, scored.data.validation, scored.data.test


@pytest.mark.parametrize(("window", "context", "stride"), [(12, 4, 1), (12, 4, 6), (5, 5, 1), (3, 10, 1), (50, 10, 31)])
def test_no_prompt_is_longer_and_one_is_as_long(scored: Any, window: int, context: int, stride: int) -> None:
    count = min(window, stride + context - 1)
    found = []
    for samples in parts(scored):
        # A window of each sample alone, and windows that samples share.
        for shared in (1, stride):
            for batch in batches(
                samples, length=window, batch_size=64, stride=min(shared, window), padding_id=scored.data.padding_id,
                seed=0, epoch=0, shuffle=False,
            ):  # fmt: skip
                titles = scored.teacher.titles
                packed = packed_prompts(titles, batch.history, batch.row, batch.column, context + stride - shared)
                found.append(int(packed.length.max()))
    assert max(found) == longest_prompt(scored.teacher.titles, parts(scored), count)


def test_one_prompt_a_sample(scored: Any) -> None:
    found = []
    for samples in parts(scored):
        for batch in batches(
            samples, length=8, batch_size=64, stride=1, padding_id=scored.data.padding_id, seed=0, epoch=0
        ):
            prompts = one_prompt_a_sample(scored.teacher.titles, batch.history, batch.row, batch.column, 4)
            found.append(int(prompts.length.max()))
    assert max(found) == longest_prompt(scored.teacher.titles, parts(scored), 4)


def scorer(scored: Any, config: TeacherConfig, window: int = 50) -> Any:
    stride = max(1, min(config.teacher_window, window) - config.teacher_history + 1)
    return SimpleNamespace(**vars(scored), window=window, stride=stride)


@pytest.mark.parametrize("packing", [True, False])
def test_the_advice_fits_and_one_title_more_does_not(scored: Any, packing: bool) -> None:
    config = TeacherConfig(llm="tiny", teacher_history=4, teacher_window=12, packing=packing)
    titles = scored.teacher.titles
    longest = longest_prompt(titles, parts(scored), 12 if packing else 4)
    check_prompts(config, scorer(scored, config), longest)
    check_prompts(config, scorer(scored, config), None)
    limits = {longest_prompt(titles, parts(scored), count): count for count in range(1, 12 if packing else 4)}
    for limit, fitting in limits.items():
        with pytest.raises(InputError) as refused:
            check_prompts(config, scorer(scored, config), limit)
        name = "teacher_window" if packing else "teacher_history"
        lower = "teacher_history and teacher_window" if packing and fitting < 4 else name
        assert str(refused.value) == (
            f"{name}={getattr(config, name)}: makes prompts of up to {longest} tokens, and llm=tiny reads {limit}; "
            f"set {lower} to {fitting} at most"
        )
        advised = replace(config, **dict.fromkeys(lower.split(" and "), fitting))
        check_prompts(advised, scorer(scored, advised), limit)
    with pytest.raises(InputError, match="llm=tiny: reads 5 tokens, and a title alone takes more"):
        check_prompts(config, scorer(scored, config), 5)


def test_a_teacher_is_refused_before_it_is_trained(taught, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(str(taught.options["llm"]), tmp_path / "llm"))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 200}))
    config = TeacherConfig(**taught.options | {"llm": str(folder)})
    with pytest.raises(InputError, match=r"^teacher_window=10: makes prompts of up to \d+ tokens, .* reads 200; set"):
        teacher(config)
    run = taught.place.newest("teacher")
    assert run.info.status == "FAILED"
    assert MlflowClient().get_metric_history(run.info.run_id, "train/total") == []
