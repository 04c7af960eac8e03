"""A space over the parts of a user's module: read, fixed, searched, and known in worker processes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from registered_parts import registries_restored
from sweep_runs_seen import trials_of
from sweep_store import own_store
from sweep_stub import options, sweep

from recdistill import plugins
from recdistill.config import DistillConfig, SweepConfig, changed
from recdistill.config.command_line import parse
from recdistill.errors import InputError
from recdistill.plugins import load_plugins
from recdistill.registry import METRICS, SOURCES, SPLITS
from recdistill.sweep.named_study import searched_files
from recdistill.sweep.space import base_config
from recdistill.sweep.space_file import read_space

PLUGIN = """\
from dataclasses import dataclass

from recdistill.config.option import option
from recdistill.registry import LOSS_TERMS, METRICS, POLICIES, STUDENTS


@dataclass(frozen=True, kw_only=True)
class MineOptions:
    depth: int = option(2, "layers of mine", least=1)


@STUDENTS.register("mine", options=MineOptions, gradient=True)
class Mine:
    pass


@POLICIES.register("oldest", queries=False)
def oldest(signals):
    return signals


@LOSS_TERMS.register("margin", help="weight of the margin term")
class Margin:
    pass


@METRICS.register("found", cut_offs=(3,))
def found(ranks, k):
    return ranks <= k
"""
SPACE = """\
objective: val/ndcg_at_20
fixed: {output: linear}
parameters:
  student: {choices: [mine, sasrec]}
  depth: {low: 1, high: 3, only: {student: mine}}
  selection_policy: {choices: [all, oldest]}
  selection_fraction: {low: 0.1, high: 0.9, unless: {selection_policy: all}}
  margin_weight: {low: 0.5, high: 1.0}
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(plugins, "_loaded", {})
    # A part whose file is first imported inside would be forgotten after it.
    for registry in (SOURCES, SPLITS, METRICS):
        for name in registry.names():
            registry.get(name)
    with own_store(monkeypatch) as path, registries_restored():
        (path / "parts_of_a_sweep.py").write_text(PLUGIN, encoding="utf-8")
        yield path
    sys.modules.pop("parts_of_a_sweep", None)


def test_parts_of_a_plugin_are_read_and_checked(folder: Path) -> None:
    load_plugins(str(folder / "parts_of_a_sweep.py"))
    path = folder / "space.yaml"
    path.write_text(SPACE.replace("ndcg_at_20", "found_at_3"))
    space = read_space(path)
    assert space.objectives[0].metric == "val/found_at_3"
    base = base_config(space, DistillConfig())
    assert base.value("output") == "linear"
    assert set(searched_files(base, space)) == {
        "student mine",
        "selection policy oldest",
        "loss term margin",
        # What trials are ranked by.
        "metric found",
    }
    path.write_text(SPACE.replace("low: 1,", "low: 0,"))
    with pytest.raises(InputError, match=r"space\.yaml:5: depth=0: must be at least 1"):
        read_space(path)
    path.write_text(SPACE.replace(", only: {student: mine}", ""))
    with pytest.raises(InputError, match=r"space\.yaml:5: depth=1: is of student=mine; set that, or leave depth out"):
        base_config(read_space(path), DistillConfig())


def test_an_option_of_a_part_that_the_space_fixes_is_given_to_the_command(folder: Path) -> None:
    plugin = str(folder / "parts_of_a_sweep.py")
    load_plugins(plugin)
    path = folder / "space.yaml"
    fixed = (
        "objective: val/ndcg_at_20\nfixed: {student: mine, margin_weight: 0.5}\nparameters:\n  lam: {low: 0, high: 1}\n"
    )
    path.write_text(fixed)
    config = parse(SweepConfig, "sweep", ["--plugin", plugin, "--space", str(path), "--depth", "3"])
    assert config.values()["depth"] == 3
    assert changed(config, trials=3).value("depth") == 3
    base = base_config(read_space(path), config)
    assert type(base) is DistillConfig
    assert (base.student, base.value("depth"), base.value("margin_weight")) == ("mine", 3, 0.5)
    # The command's wins over the file's.
    path.write_text(fixed.replace("mine,", "mine, depth: 2,"))
    assert base_config(read_space(path), config).value("depth") == 3
    for parameters in ("  lam: {low: 0, high: 1}\n", "  student: {choices: [sasrec, mine]}\n"):
        path.write_text(f"objective: val/ndcg_at_20\nparameters:\n{parameters}")
        with pytest.raises(
            InputError, match=r"^depth=3: is of student=mine, which not all trials of .*space.yaml have"
        ):
            base_config(read_space(path), config)


def test_a_sweep_trains_with_an_option_of_a_fixed_part(folder: Path) -> None:
    plugin = str(folder / "parts_of_a_sweep.py")
    load_plugins(plugin)
    text = "objective: val/ndcg_at_20\nfixed: {student: mine}\nparameters:\n  lam: {low: 0.0, high: 2.0}\n"
    run = sweep(options(folder, text, trials=2, seed=3, plugin=plugin, depth=3, final_seeds=0))
    assert {trial.data.params["depth"] for trial in trials_of(run.run_id).values()} == {"3"}


def test_another_text_of_the_plugin_is_another_study(folder: Path) -> None:
    load_plugins(str(folder / "parts_of_a_sweep.py"))
    path = folder / "space.yaml"
    path.write_text(SPACE)
    space = read_space(path)
    before = searched_files(DistillConfig(), space)
    (folder / "parts_of_a_sweep.py").write_text(PLUGIN + "\n# another version\nimport beside_it\n")
    (folder / "beside_it.py").write_text("SCALE = 1\n")
    after = searched_files(DistillConfig(), space)
    assert after != before
    # What the file imports of the files beside it is of the plugin, too.
    (folder / "beside_it.py").write_text("SCALE = 2\n")
    assert searched_files(DistillConfig(), space) != after


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_trials_have_the_parts_of_a_plugin(folder: Path, jobs: int) -> None:
    plugin = str(folder / "parts_of_a_sweep.py")
    run = sweep(options(folder, SPACE, trials=6, jobs=jobs, seed=3, plugin=plugin))
    trials = trials_of(run.run_id)
    assert [trial.info.status for trial in trials.values()] == ["FINISHED"] * 6
    params = [trial.data.params for trial in trials.values()]
    assert {one["student"] for one in params} == {"mine", "sasrec"}
    assert {"depth" in one for one in params if one["student"] == "mine"} == {True}
    assert {"depth" in one for one in params if one["student"] == "sasrec"} == {False}
    assert all(0.5 <= float(one["margin_weight"]) <= 1.0 for one in params)
    command = run.artifact("answer/command.txt").read_text()
    assert f"-P plugin={plugin}" in command
    assert mlflow.get_run(run.run_id).data.params["plugin"] == plugin
