"""The answer: the best trials, and options that a command and a file give back."""

import shlex
from pathlib import Path

import optuna
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.config import DistillConfig, StudentConfig, changed
from recdistill.config.command_line import parse
from recdistill.sweep import answer
from recdistill.sweep.best_trials import best_trials
from recdistill.sweep.space import Objective, Parameter, Space

SPACE = Space("space.yaml", (Parameter("lam", float, 0.0, 1.0),), (Objective("val/ndcg_at_20", "maximize"),))


@settings(deadline=None, max_examples=30)
@given(
    lam=st.floats(0, 1e6),
    learning_rate=st.floats(1e-12, 10),
    policy=st.sampled_from(["all", "coverage"]),
    packing=st.booleans(),
    interactions=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20),
)
def test_the_command_and_the_file_give_the_options_back(
    lam: float, learning_rate: float, policy: str, packing: bool, interactions: str
) -> None:
    given_options = {"lam": lam, "learning_rate": learning_rate, "selection_policy": policy, "packing": packing}
    given_options["selection_fraction"] = 0.5
    config = DistillConfig(**given_options, interactions=interactions)  # type: ignore[arg-type]
    options = answer.options_of(config)
    assert DistillConfig(**yaml.safe_load(answer.as_yaml(options))) == config
    words = shlex.split(answer.command(options))
    assert words[:6] == ["mlflow", "run", ".", "-e", "distill", "--env-manager"]
    assert words[7:9] == ["--experiment-name", "recdistill"]
    arguments = [f"--{word}" for word in words[9:] if word != "-P"]
    if "=" not in interactions and not interactions.startswith("~"):
        # A path that is nowhere is told as the absolute one that was looked for.
        found = parse(DistillConfig, "distill", arguments)
        assert changed(found, interactions=interactions) == config
        assert found.interactions == (str(Path.cwd() / interactions) if interactions else "")


def test_a_configuration_has_no_seed_and_no_upstream_run() -> None:
    config = DistillConfig(seed=5, teacher_run_id="a", backbone_run_id="b", lam=0.75)
    assert answer.options_of(config) == {"lam": 0.75}
    assert answer.options_of(StudentConfig(epochs=3)) == {"epochs": 3}
    # The command would refuse what a trial had and nothing reads.
    assert answer.options_of(StudentConfig(epochs=3, negatives=7)) == {"epochs": 3}


def test_a_configuration_has_the_options_of_its_parts_and_the_files_it_reads() -> None:
    config = DistillConfig(student="gru4rec", blocks=3, interactions="ratings.csv", teacher_files="teacher")
    expected = {"student": "gru4rec", "blocks": 3, "interactions": "ratings.csv", "teacher_files": "teacher"}
    assert answer.options_of(config) == expected


def test_the_front_is_not_dominated() -> None:
    objectives = (Objective("val/ndcg_at_20", "maximize"), Objective("latency_ms", "minimize"))
    space = Space("space.yaml", SPACE.parameters, objectives)
    study = optuna.create_study(directions=["maximize", "minimize"])
    points = [(0.1, 1.0), (0.2, 2.0), (0.15, 3.0), (0.3, 9.0), (0.05, 1.5)]
    for lam, values in enumerate(points):
        distribution = optuna.distributions.FloatDistribution(0, 9)
        study.add_trial(
            optuna.create_trial(params={"lam": float(lam)}, distributions={"lam": distribution}, values=values)
        )
    front = best_trials(study, space)
    assert [trial.number for trial in front] == [3, 1, 0]
    assert [trial.number for trial in best_trials(study, space, 1)] == [0, 1, 3]
    lines = answer.front(front, space).splitlines()
    assert lines[0] == "trial,val/ndcg_at_20,latency_ms,lam"
    assert lines[1] == "3,0.3,9.0,3.0"
