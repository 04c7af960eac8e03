"""Search spaces: what a file means, and where each mistake is."""

from pathlib import Path

import pytest

from recdistill.config import DistillConfig
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.sweep.shipped import shipped_spaces
from recdistill.sweep.space import Objective, Pruner, Sampler, base_config
from recdistill.sweep.space_file import read_space

SWEEPS = Path(__file__).parents[2] / "sweeps"

GOOD = """\
# a comment
objective: val/ndcg_at_20
sampler: {name: tpe, startup_trials: 3}
pruner:
  name: median
  warmup_epochs: 2
seeds: 2
fixed:
  epochs: 7
parameters:
  selection_fraction: {low: 0.1, high: 0.9, unless: {selection_policy: all}}
  lam: {low: 1e-3, high: 2, log: true}
  blocks: {low: 1, high: 5, step: 2}
  selection_policy: {choices: [all, random, coverage]}
  backbone_residual: {choices: [true, false]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_what_is_searched(tmp_path: Path) -> None:
    space = read_space(write(tmp_path, GOOD))
    assert space.objectives == (Objective("val/ndcg_at_20", "maximize"),)
    assert space.sampler == Sampler("tpe", 3)
    assert space.pruner == Pruner("median", warmup_epochs=2)
    assert (space.seeds, space.fixed) == (2, {"epochs": 7})
    by_name = {parameter.name: parameter for parameter in space.parameters}
    assert (by_name["lam"].low, by_name["lam"].high, by_name["lam"].log, by_name["lam"].line) == (0.001, 2.0, True, 12)
    assert (by_name["blocks"].kind, by_name["blocks"].step) == (int, 2)
    assert by_name["backbone_residual"].choices == (True, False)
    assert by_name["selection_fraction"].only == ("selection_policy", ("random", "coverage"))
    names = [parameter.name for parameter in space.parameters]
    assert names.index("selection_policy") < names.index("selection_fraction")


def test_several_objectives_have_directions(tmp_path: Path) -> None:
    text = "objectives: [val/hr_at_10, {metric: latency_ms}, {metric: val/mrr, direction: minimize}]\n"
    space = read_space(write(tmp_path, text + "parameters: {lam: {low: 0, high: 1}}\n"))
    assert [o.direction for o in space.objectives] == ["maximize", "minimize", "minimize"]


@pytest.mark.parametrize("name", sorted(path.name for path in shipped_spaces().values()))
def test_shipped_spaces_fit_the_options(name: str) -> None:
    space = read_space(SWEEPS / name)
    base_config(space, DistillConfig())


def test_the_issue_names_what_distill_yaml_searches() -> None:
    names = {parameter.name for parameter in read_space(SWEEPS / "distill.yaml").parameters}
    gammas = {"gamma_position", "gamma_confidence", "gamma_consistency"}
    assert names == gammas | {"lam", "alpha", "ed_weight", "temperature", "selection_policy", "selection_fraction"}


LAM = "parameters:\n  lam: {low: 0, high: 1}\n"
VAL = "objective: val/ndcg_at_20\n"

BAD = {
    "unknown parameter": (VAL + "parameters:\n  lamda: {low: 0, high: 1}\n", 3, "nearest is lam"),
    "low above high": (VAL + "parameters:\n  lam: {low: 2, high: 1}\n", 3, "low 2.0 is above high 1.0"),
    "low above high, own lines": (VAL + "parameters:\n  lam:\n    high: 1\n    low: 2\n", 5, "above high"),
    "unknown policy": (VAL + "parameters:\n  selection_policy:\n    choices:\n      - all\n      - best\n", 6, "best"),
    "log at zero": (VAL + "parameters:\n  lam: {low: 0, high: 1, log: true}\n", 3, "above 0 on a log scale"),
    "syntax": (VAL + "parameters:\n  lam: {low: 0, high: 1\nseeds: 1\n", 4, "not YAML"),
    "syntax, tab": (VAL + "parameters:\n\tlam: 1\n", 3, "not YAML"),
    "unlogged metric": ("# x\nobjective: val/ndcg_at_15\n" + LAM, 2, "nearest is val/ndcg_at_"),
    "test metric": ("objective: test/ndcg_at_20\n" + LAM, 1, "never optimised; use val/ndcg_at_20"),
    "one metric twice": ("objectives: [val/mrr, val/mrr]\n" + LAM, 1, "two different"),
    "one objective as list": ("objectives: [val/mrr]\n" + LAM, 1, "at least two"),
    "both": (VAL + "objectives: [val/mrr, latency_ms]\n" + LAM, 2, "either"),
    "no objective": (LAM, 1, "either"),
    "no parameters": (VAL, 1, "parameters: missing"),
    "empty parameters": (VAL + "parameters: {}\n", 2, "is empty"),
    "parameters null": (VAL + "parameters:\n", 2, "must hold lines"),
    "unknown key": (VAL + "trails: 5\n" + LAM, 2, "trails"),
    "unknown parameter key": (VAL + "parameters:\n  lam: {low: 0, hihg: 1}\n", 3, "nearest is high"),
    "twice": (VAL + "parameters:\n  lam: {low: 0, high: 1}\n  lam: {low: 0, high: 2}\n", 4, "already in line 3"),
    "no high": (VAL + "parameters:\n  lam: {low: 0}\n", 3, "high is missing"),
    "word for a number": (VAL + "parameters:\n  lam: {low: 0, high: lots}\n", 3, "lots: must be a number"),
    "fraction for a whole number": (VAL + "parameters:\n  blocks: {low: 1, high: 2.5}\n", 3, "whole number"),
    "out of the option's interval": (VAL + "parameters:\n  temperature: {low: 0, high: 1}\n", 3, "greater than 0"),
    "nan": (VAL + "parameters:\n  lam: {low: 0, high: nan}\n", 3, "finite"),
    "step and log": (VAL + "parameters:\n  lam: {low: 1, high: 2, step: 1, log: true}\n", 3, "takes no step"),
    "step of zero": (VAL + "parameters:\n  lam: {low: 0, high: 1, step: 0}\n", 3, "step 0.0"),
    "no choices": (VAL + "parameters:\n  student: {low: 1, high: 2}\n", 3, ", ".join(STUDENTS.names(gradient=True))),
    "choices and low": (VAL + "parameters:\n  lam: {choices: [1, 2], low: 0}\n", 3, "takes no low"),
    "choice twice": (VAL + "parameters:\n  lam: {choices: [1, 1.0]}\n", 3, "each value once"),
    "list for a number": (VAL + "parameters:\n  lam: {low: [0], high: 1}\n", 3, "single value"),
    "boolean": (VAL + "parameters:\n  backbone_residual: {choices: [yes, no]}\n", 3, "true or false"),
    "data": (VAL + "parameters:\n  max_users: {low: 1, high: 5}\n", 3, "cannot be searched"),
    "seed": (VAL + "parameters:\n  seed: {low: 1, high: 5}\n", 3, "cannot be searched"),
    "how is ranked": (VAL + "parameters:\n  exclude_seen: {choices: [true, false]}\n", 3, "cannot be searched"),
    "a run": (VAL + "parameters:\n  teacher_run_id: {choices: [a, b]}\n", 3, "cannot be searched"),
    "a place": (VAL + "parameters:\n  device: {choices: [cpu, cuda]}\n", 3, "cannot be searched"),
    "fixed force": (VAL + "fixed:\n  force: true\n" + LAM, 3, "fixed has no such name"),
    "fixed plugin": (VAL + "fixed:\n  plugin: mine\n" + LAM, 3, "fixed has no such name"),
    "fixed and searched": (VAL + "fixed:\n  lam: 1\n" + LAM, 3, "both fixed and searched"),
    "fixed out of range": (VAL + "fixed:\n  alpha: -1\n" + LAM, 3, "at least 0"),
    "unknown fixed": (VAL + "fixed:\n  alpa: 1\n" + LAM, 3, "nearest is alpha"),
    "only of itself": (VAL + "parameters:\n  lam: {low: 0, high: 1, only: {lam: 1}}\n", 3, "no such name"),
    "only of what is not searched": (
        VAL + "parameters:\n  lam: {low: 0, high: 1, only: {student: sasrec}}\n  alpha: {low: 0, high: 1}\n",
        3,
        "no such name",
    ),
    "only of an interval": (
        VAL + "parameters:\n  alpha: {low: 0, high: 1}\n  lam: {low: 0, high: 1, only: {alpha: 1}}\n",
        4,
        "has no choices",
    ),
    "only of another value": (
        VAL + "parameters:\n  gate: {choices: [mlp]}\n  lam:\n    low: 0\n    high: 1\n    only: {gate: linear}\n",
        7,
        "not among the choices",
    ),
    "never": (
        VAL + "parameters:\n  gate: {choices: [mlp]}\n  lam: {low: 0, high: 1, unless: {gate: mlp}}\n",
        4,
        "never",
    ),
    "a circle": (
        VAL
        + "parameters:\n  gate: {choices: [mlp], only: {student: caser}}\n"
        + "  student: {choices: [caser], only: {gate: mlp}}\n",
        3,
        "depends on itself",
    ),
    "unknown sampler": (VAL + "sampler: tpa\n" + LAM, 2, "nearest: tpe"),
    "unknown pruner": (VAL + "pruner: {name: medium}\n" + LAM, 2, "nearest: median"),
    "setting of another pruner": (VAL + "pruner: {name: median, reduction: 3}\n" + LAM, 2, "median has no reduction"),
    "pruner for two": ("objectives: [val/mrr, latency_ms]\npruner: median\n" + LAM, 2, "one objective only"),
    "pruner without curve": ("objective: latency_ms\npruner: median\n" + LAM, 2, "not measured each epoch"),
    "no seeds": (VAL + "seeds: 0\n" + LAM, 2, "at least 1"),
    "empty": ("", 1, "is empty"),
    "only comments": ("# nothing\n", 1, "is empty"),
    "a list": ("- a\n", 1, "must hold lines"),
    "two documents": (VAL + LAM + "---\n" + VAL, 4, "not YAML"),
    "control character": (VAL + "parameters:\n  lam: \x00\n", 3, "not YAML"),
    "alias without anchor": (VAL + "parameters: *there\n", 2, "not YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line_with_their_place(tmp_path: Path, case: str) -> None:
    text, line, said = BAD[case]
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_space(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert said in message
    assert "\n" not in message


def test_unreadable_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or space"):
        read_space(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_space(tmp_path)
    path = tmp_path / "space.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=":1: is not UTF-8"):
        read_space(path)


def test_the_file_cannot_run_code(tmp_path: Path) -> None:
    path = write(tmp_path, VAL + "parameters: !!python/object/apply:os.system ['touch here']\n")
    with pytest.raises(InputError, match=":2: parameters: must hold lines"):
        read_space(path)
