"""What a study depends on, and what it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recdistill.config import DistillConfig
from recdistill.config.steps import REVISIONS
from recdistill.sweep.named_study import description, most_epochs
from recdistill.sweep.space import base_config
from recdistill.sweep.space_file import read_space

SPACE = """\
objective: val/ndcg_at_20
parameters:
  lam: {low: 0.0, high: 2.0}
"""


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., str]:
    def describe(text: str = SPACE, fingerprint: str = "data", **options: object) -> str:
        path = tmp_path / "space.yaml"
        path.write_text(text, encoding="utf-8")
        space = read_space(path)
        return description(base_config(space, DistillConfig(**options)), space, fingerprint)

    return describe


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0.25}, {"experts": 2}, {"seed": 2}, {"epochs": 3}, {"token_budget": 7}, {"teacher_run_id": "one"}],
)
def test_a_study_depends_on_the_options_of_a_trial_and_of_its_teacher(
    described: Callable[..., str], options: dict[str, object]
) -> None:
    assert described(**options) != described()


def test_a_study_depends_on_the_space_and_the_data(described: Callable[..., str]) -> None:
    assert described(SPACE.replace("2.0", "3.0")) != described()
    assert described(fingerprint="other data") != described()
    assert described("# a comment\n" + SPACE) == described()


@pytest.mark.parametrize(
    "options", [{"device": "cpu"}, {"force": True}, {"interactions": "elsewhere.csv"}, {"gradient_checkpointing": True}]
)
def test_a_study_does_not_depend_on_places(described: Callable[..., str], options: dict[str, object]) -> None:
    assert described(**options) == described()


@pytest.mark.parametrize("step", ["sweep", "distill", "teacher", "backbone"])
def test_another_revision_of_a_step_is_another_study(
    described: Callable[..., str], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = described()
    monkeypatch.setitem(REVISIONS, step, REVISIONS[step] + 1)
    assert described() != before


def test_the_files_that_a_trial_reads_count_by_their_content(described: Callable[..., str], tmp_path: Path) -> None:
    models = [tmp_path / "one", tmp_path / "two"]
    for model in models:
        model.mkdir()
        (model / "config.json").write_text("{}")
    searched = SPACE + f"  llm: {{choices: [{models[0]}, {models[1]}]}}\n"
    before, fixed = described(searched), described(llm=str(models[0]))
    assert {f"llm {model}" for model in models} == set(json.loads(before)["files"])
    (models[0] / "config.json").write_text('{"changed": 1}')
    assert described(searched) != before
    assert described(llm=str(models[0])) != fixed


def test_a_pruner_knows_the_most_epochs_of_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE + "  epochs: {choices: [3, 60, 9]}\n")
    assert most_epochs(read_space(path), DistillConfig(epochs=5)) == 60
    path.write_text(SPACE)
    assert most_epochs(read_space(path), DistillConfig(epochs=5)) == 5
