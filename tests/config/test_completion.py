"""What the shell is told may follow."""

import shutil
import subprocess

import pytest

from recdistill.__main__ import COMPLETE, main


def asked(monkeypatch, capsys, *words: str) -> list[str]:
    monkeypatch.setenv(COMPLETE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["recdistill", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert main([]) == 0
    return [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]


def test_steps_options_and_values_follow(monkeypatch, capsys):
    assert asked(monkeypatch, capsys, "dis") == ["distill"]
    assert "baseline" in asked(monkeypatch, capsys, "b")
    assert "--lam" in asked(monkeypatch, capsys, "distill", "--l")
    assert {"gru4rec", "sasrec"} <= set(asked(monkeypatch, capsys, "distill", "--student", ""))
    assert asked(monkeypatch, capsys, "main", "--force", "t") == ["true"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(monkeypatch, capsys, shell):
    monkeypatch.setenv(COMPLETE, f"{shell}_source")
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash")
    assert main([]) == 0
    script = capsys.readouterr().out
    assert COMPLETE in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("recdistill 0.")
