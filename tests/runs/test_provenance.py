"""Commit, changes and versions, and how they are told apart."""

import subprocess
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
    assert {"python", *PACKAGES} == {*here.versions, "recdistill"}
    assert here.commit == git("rev-parse", "HEAD")


def test_the_commits_of_another_project_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed into a folder of a user's own checkout."""
    package = tmp_path / "environment" / "recdistill"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text("environment")
    name = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*name, "commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert len(git("rev-parse", "HEAD")) == 40
    assert code_at_hand.__wrapped__().commit == ""
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "__init__.py").touch()
    subprocess.run(["git", "-C", str(tmp_path), "add", "__init__.py"], check=True)
    found = code_at_hand.__wrapped__()
    assert len(found.commit) == 40
    assert "__init__.py" in found.changes


def test_where_there_is_no_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert git("rev-parse", "HEAD") == ""
    monkeypatch.setenv("PATH", "")
    assert git("rev-parse", "HEAD") == ""
