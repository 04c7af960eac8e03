"""docs/PYTHON.md runs, block after block, on forty users and the tiny llama."""

import re
from pathlib import Path

import pytest
from tiny_llm import write_tiny_llm
from workplace import Workplace, make_downloads, ml100k_files

DOCUMENT = Path(__file__).parents[1] / "docs" / "PYTHON.md"
#: What is smaller here than on the page.
SMALLER = {
    '"ml-100k"': '"ml-100k", max_users=40',
    "token_budget=80_000": "token_budget=2_000, tokens_per_batch=500, teacher_window=20, teacher_history=5",
    "token_budget=120_000": "token_budget=8_000",
    'student="gru4rec", seed=1': 'student="gru4rec", seed=1, epochs=2',
    'student="sasrec", seed=1': 'student="sasrec", seed=1, epochs=2',
    "ed_weight=0.3, seed=1": "ed_weight=0.3, seed=1, epochs=2",
}


def blocks() -> list[str]:
    """The page's Python."""
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = write_tiny_llm(tmp_path / "llm")
    text = "\n".join(blocks())
    for written, smaller in {**SMALLER, '"smollm2-135m"': repr(str(llm))}.items():
        assert written in text, "the page has changed: so must what is smaller here"
        text = text.replace(written, smaller)
    downloads = make_downloads(tmp_path, ml100k_files())
    place = Workplace(tmp_path, downloads)
    names: dict[str, object] = {"__name__": "__main__"}
    with place.entered() as client:
        exec(compile(text, str(DOCUMENT), "exec"), names)
        (run,) = client.search_runs(["0"])
        assert run.info.run_name == "a GRU4Rec of mine"
        assert run.data.params["student"] == "gru4rec"
        assert "val/ndcg_at_10" in run.data.metrics
    printed = capsys.readouterr().out
    assert "NDCG@10" in printed
    recommended = names["student"].recommend([["50", "181"]], k=5)  # type: ignore[attr-defined]
    assert recommended["rank"].tolist() == [1, 2, 3, 4, 5]
    assert set(recommended["item"]).isdisjoint({"50", "181"})
    again = names["served"].recommend([["50", "181"]], k=5)  # type: ignore[attr-defined]
    assert again["item"].tolist() == recommended["item"].tolist()
