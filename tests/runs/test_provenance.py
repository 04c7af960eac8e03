"""Commit, changes and versions, and how they are told apart."""

from pathlib import Path

import pytest

from recdistill.runs import provenance
from recdistill.runs.provenance import PACKAGES, CodeState, code_at_hand, differences, git

MADE = CodeState("a" * 40, "", {"python": "3.11.1", "torch": "2.6.0"})


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (MADE, []),
        (CodeState("b" * 40, "", MADE.versions), ["commit aaaaaaaaaa, here bbbbbbbbbb"]),
        (CodeState("", "", MADE.versions), ["commit aaaaaaaaaa, here unknown"]),
        (CodeState("a" * 40, "+ x", MADE.versions), ["other uncommitted changes"]),
        # Changes to another commit are no news.
        (CodeState("b" * 40, "+ x", MADE.versions), ["commit aaaaaaaaaa, here bbbbbbbbbb"]),
        (CodeState("a" * 40, "", {"python": "3.12.0", "torch": "2.6.0"}), ["python 3.11.1, here 3.12.0"]),
        # A package that the run did not note.
        (CodeState("a" * 40, "", dict(MADE.versions) | {"scipy": "1.0"}), []),
    ],
)
def test_differences_in_words(here: CodeState, said: list[str]) -> None:
    assert differences(MADE, here) == said


def test_the_code_at_hand() -> None:
    here = code_at_hand()
    assert here is code_at_hand()
    assert {"python", *PACKAGES} == set(here.versions)
    assert here.commit == git("rev-parse", "HEAD")


def test_where_there_is_no_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert git("rev-parse", "HEAD") == ""
    monkeypatch.setenv("PATH", "")
    assert git("rev-parse", "HEAD") == ""
