"""Each command of the documents: its options are those of the entry point, its target exists; both READMEs agree."""

import re
from pathlib import Path

import pytest
from documented_commands import ROOT, Command, commands, words_of

from recdistill.__main__ import main
from recdistill.config import STEPS, option_table
from recdistill.config.command_line import read_values
from recdistill.config.steps import ALIASES
from recdistill.errors import InputError

COMMANDS = list(commands())
#: A value that the reader puts something in place of.
PLACEHOLDER = re.compile(r"[A-Z][A-Z_0-9]*|.*…|<.*>|NAME|value|\$\w+")
#: Programs that are not ours, and why no test runs the line.
OTHERS = {
    "python3": "makes an environment",
    ".": "activates it",
    "pip": "installs",
    "uv": "installs",
    "export": "sets a variable",
    "eval": "sets up a shell",
    "cd": "changes the folder",
    "git": "gets the project",
    "apt-get": "installs",
    "curl": "asks a server that the reader started",
    "optuna-dashboard": "another project's",
    "docker": "needs a container runtime",
    "kubectl": "needs a cluster",
    "spark-submit": "needs a cluster",
}
#: For several GPUs; `tests/steps/test_launch.py` launches on CPU processes.
LAUNCHERS = ("accelerate", "torchrun")


def step_of(command: Command) -> tuple[str, list[str]] | None:
    """The entry point of a command and its options as ``--name value``; None where it names none of ours."""
    words = list(command.words)
    if words[0] in LAUNCHERS and "recdistill" in words:
        words = words[words.index("recdistill") :]
    if words[:3] in (["python", "-m", "recdistill"], ["python3", "-m", "recdistill"]):
        words = words[2:]
    if words[:2] == ["mlflow", "run"] and "-e" in words:
        given = [words[place + 1] for place, word in enumerate(words) if word == "-P"]
        return words[words.index("-e") + 1], [f"--{text}" for text in given]
    if words[0] == "recdistill" and len(words) > 1 and not words[1].startswith("-"):
        return words[1], words[2:]
    return None


def refused(command: Command) -> str:
    """Why the entry point would refuse the command's options; '' where it would not, or where they are left open."""
    found = step_of(command)
    if found is None:
        return ""
    step, arguments = found
    step = ALIASES.get(step, step)
    if PLACEHOLDER.fullmatch(step) or (command.in_line and step.endswith(":")):
        return ""
    if step not in STEPS:
        return f"no entry point {step}"
    table = option_table(STEPS[step])
    arguments = [word for word in arguments if word != "--help"]
    if arguments[-1:] == ["…"] and not "".join(arguments[-2:-1]).startswith("--"):
        arguments = arguments[:-1]  # further options
    try:
        for name, text in read_values([*table], step, arguments).items():
            if not PLACEHOLDER.fullmatch(text):
                table[name].check(table[name].read(text))
    except InputError as error:
        return str(error)
    return ""


def test_there_are_commands_and_a_wrong_one_is_found():
    assert len([command for command in COMMANDS if step_of(command)]) > 15
    for text, why in {
        "recdistill distill --lamm 1": "lamm",
        "mlflow run . -e distill -P lam=much": "lam",
        "mlflow run . -e destill": "destill",
        "python -m recdistill distill --student sasreck": "sasreck",
        "accelerate launch -m recdistill teacher --rank 3": "rank",
    }.items():
        assert why in refused(Command("", tuple(words_of(text)), in_line=False))
    for text in ("recdistill distill --lam 1", "mlflow run . -e teacher -P llm=NAME", "recdistill NAME --key value"):
        assert not refused(Command("", tuple(words_of(text)), in_line=False))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.document}: {command.text}"[:120])
def test_its_options_are_those_of_the_entry_point(command: Command):
    assert refused(command) == ""


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if not command.in_line],
    ids=lambda command: f"{command.document}: {command.text}"[:120],
)
def test_its_program_is_known(command: Command):
    program = command.words[0]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert command.words[1] in targets
    elif program in ("python", "python3") and command.words[1].startswith(("benchmarks/", "tests/", "website/")):
        assert (ROOT / command.words[1]).is_file()
    elif program == "mlflow":
        assert command.words[1] in ("run", "ui", "models", "server")
    else:
        assert program in (*OTHERS, *LAUNCHERS, "recdistill", "python", "pytest", ".venv/bin/python")


def test_every_mlflow_run_names_the_experiment():
    for command in COMMANDS:
        if command.words[:2] == ("mlflow", "run") and "-e" in command.words:
            assert "--experiment-name" in command.words, command


@pytest.mark.parametrize("step", STEPS)
def test_the_help_of_each_step_is_printed(step: str, capsys: pytest.CaptureFixture[str]):
    assert main([step, "--help"]) == 0
    assert f"recdistill {step}" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert re.search(r"\d+\.\d+\.\d+", capsys.readouterr().out)


def blocks(path: Path) -> list[str]:
    """The blocks of code of a document, without comments."""
    found = re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(r"[ \t]*#.*", "", block) for block in found]


def test_the_japanese_readme_has_the_same_blocks_code_links_and_pictures():
    english, japanese = ROOT / "README.md", ROOT / "README.ja.md"
    assert blocks(japanese) == blocks(english)
    texts = [path.read_text(encoding="utf-8") for path in (english, japanese)]
    for pattern in (r"(?<!`)`([^`\n]+)`(?!`)", r"\]\(([^)]+)\)"):
        of_english, of_japanese = (sorted(re.findall(pattern, without_blocks(text))) for text in texts)
        others = {"README.ja.md", "README.md"}
        assert [one for one in of_japanese if one not in others] == [one for one in of_english if one not in others]
    assert texts[0].count("\n## ") == texts[1].count("\n## ")


def without_blocks(text: str) -> str:
    """A document's text, its lines joined, without blocks of code."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
