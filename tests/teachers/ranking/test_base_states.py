"""States of titles and texts are read once for a base, and again where what is kept is not theirs."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from tiny_llm import tiny_base_llm

from recdistill.teachers.ilora.base_llm import BaseLLM
from recdistill.teachers.ilora.titles import TitleTokens, tokenise_titles
from recdistill.teachers.ranking import base_states as module
from recdistill.teachers.ranking.base_states import base_of, read_titles, title_states

TITLES = [f"Film {item}" for item in range(9)]


@pytest.fixture(autouse=True)
def _all_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RECDISTILL_CACHE", str(tmp_path))
    with patch.object(module, "LEAST_SECONDS", 0.0):
        yield


def of(titles: list[str]) -> tuple[BaseLLM, TitleTokens]:
    llm = tiny_base_llm()
    return llm, tokenise_titles(llm.tokenizer, titles)


def kept_in(llm: BaseLLM, titles: TitleTokens) -> Path:
    base = base_of(llm.fingerprint, llm.model.get_input_embeddings().weight)
    return base.states_of((titles.tokens, titles.start), len(titles.lengths)).path


def test_titles_are_read_once():
    llm, titles = of(TITLES)
    first = title_states(llm, titles)[0]
    assert torch.equal(first, read_titles(llm, titles))
    with patch.object(module, "read_titles", side_effect=AssertionError("read again")):
        assert torch.equal(title_states(llm, titles)[0], first)


@pytest.mark.parametrize("other", ["titles", "order", "weights", "precision"])
def test_other_titles_or_another_base_are_read(other: str):
    llm, titles = of(TITLES)
    title_states(llm, titles)
    if other in ("titles", "order"):
        llm, titles = of([*TITLES[:-1], "Play"] if other == "titles" else TITLES[::-1])
    elif other == "weights":
        llm = BaseLLM(llm.model, llm.tokenizer, llm.name, "another")
    else:
        llm.model.to(torch.bfloat16)
    assert not kept_in(llm, titles).exists()
    assert torch.equal(title_states(llm, titles)[0], read_titles(llm, titles))


@pytest.mark.parametrize("damage", [b"", b"no safetensors"])
def test_a_damaged_file_is_read_again(damage: bytes):
    llm, titles = of(TITLES)
    expected = title_states(llm, titles)[0]
    kept_in(llm, titles).write_bytes(damage)
    assert torch.equal(title_states(llm, titles)[0], expected)
    with patch.object(module, "read_titles", side_effect=AssertionError("read again")):
        assert torch.equal(title_states(llm, titles)[0], expected)


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path):
    (tmp_path / module.FOLDER).write_text("in the way")
    llm, titles = of(TITLES)
    assert torch.equal(title_states(llm, titles)[0], read_titles(llm, titles))


def test_what_takes_no_time_is_not_kept():
    llm, titles = of(TITLES)
    with patch.object(module, "LEAST_SECONDS", 1e9):
        title_states(llm, titles)
    assert not kept_in(llm, titles).exists()
