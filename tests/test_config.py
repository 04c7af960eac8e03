"""MLproject, the command line and the dataclasses say the same; each mistake is one line."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow.projects import load_project

from recdistill.config import mlproject
from recdistill.config.command_line import parse
from recdistill.config import STEPS, StudentConfig, DataConfig, DistillConfig, TeacherConfig, narrow
from recdistill.errors import InputError

ROOT = Path(__file__).parents[1]
# At least these, by the names of the papers.
DISTILL_OPTIONS = """
dataset student teacher_run_id lam alpha beta ed_weight temperature candidate_topk gamma_position gamma_confidence
gamma_consistency selection_policy selection_fraction epochs batch_size learning_rate seed
"""

every_step = pytest.mark.parametrize("step", STEPS)


@pytest.fixture(scope="module")
def entry_points():
    return yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


def text_of(value) -> str:
    """A value as MLflow hands it on."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_mlproject_is_the_one_that_is_written():
    assert (ROOT / "MLproject").read_text(encoding="utf-8") == mlproject.mlproject(), "run make mlproject"


def test_every_step_is_an_entry_point(entry_points):
    assert list(entry_points) == list(STEPS)
    assert {"main", "prepare", "backbone", "teacher", "distill", "evaluate", "sweep", "compare"} <= set(STEPS)
    assert set(DISTILL_OPTIONS.split()) <= set(entry_points["distill"]["parameters"])


@every_step
def test_parameters_are_the_fields_with_type_and_default(entry_points, step):
    parameters = entry_points[step]["parameters"]
    assert list(parameters) == [spec.name for spec in fields(STEPS[step])]
    for spec in fields(STEPS[step]):
        declared = parameters[spec.name]
        assert set(declared) == {"type", "default"}
        assert declared["type"] == ("float" if spec.type in (int, float) else "string")
        assert spec.type in (int, float, bool, str) or get_origin(spec.type) is Literal
        if spec.type is bool:
            # MLflow has no booleans: a bare false would reach the command as False.
            assert declared["default"] == text_of(spec.default)
        elif spec.type in (int, float):
            assert float(declared["default"]) == spec.default
        else:
            assert declared["default"] == spec.default


@every_step
def test_the_command_mlflow_makes_of_all_defaults_gives_the_dataclass_defaults(step):
    command = shlex.split(load_project(str(ROOT)).get_entry_point(step).compute_command({}, None))
    assert command[:4] == ["python", "-m", "recdistill", step]
    assert set(command[4::2]) == {f"--{spec.name}" for spec in fields(STEPS[step])}
    assert parse(STEPS[step], step, command[4:]) == STEPS[step]()


def test_what_a_user_gives_mlflow_arrives():
    given = {"lam": "0.25", "selection_policy": "kl_divergence", "selection_fraction": "0.5", "force": "true"}
    given |= {"llm": "a folder/with 'quotes' $HOME"}
    command = shlex.split(load_project(str(ROOT)).get_entry_point("distill").compute_command(given, None))
    config = parse(DistillConfig, "distill", command[4:])
    assert (config.lam, config.selection_policy, config.force, config.llm) == (
        0.25,
        "kl_divergence",
        True,
        given["llm"],
    )
    assert config == DistillConfig(
        lam=0.25, selection_policy="kl_divergence", selection_fraction=0.5, force=True, llm=given["llm"]
    )


@every_step
def test_help_lists_every_option(step, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(STEPS[step], step, ["--help"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    for spec in fields(STEPS[step]):
        assert f"--{spec.name} " in printed
        assert spec.metadata["help"]
    assert (STEPS[step].__doc__ or "").startswith(f"Options of ``{step}``: ")


@every_step
@pytest.mark.parametrize("form", ["--{} {}", "--{}={}"])
@pytest.mark.parametrize("dashes", [False, True])
def test_options_parse_in_every_spelling(step, form, dashes):
    arguments = []
    for spec in fields(STEPS[step]):
        name = spec.name.replace("_", "-") if dashes else spec.name
        arguments += form.format(name, "\0").split(" ")
        arguments[-1] = arguments[-1].replace("\0", text_of(spec.default))
    assert parse(STEPS[step], step, arguments) == STEPS[step]()


@pytest.mark.parametrize(
    "text", ["", "007", "1e3", "null", "true", "[1, 2]", "{a: b}", "a b", "-1", "@file", "ünï", "sqlite:///x.db", "#1"]
)
def test_text_stays_as_it_is(text):
    assert parse(DataConfig, "prepare", ["--interactions", text]).interactions == text
    assert parse(DataConfig, "prepare", [f"--interactions={text}"]).interactions == text


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False), st.integers(0, 2**63))
def test_numbers_arrive_exactly(weight, seed):
    config = parse(DistillConfig, "distill", ["--lam", repr(weight), f"--seed={seed}"])
    assert (config.lam, config.seed) == (weight, seed)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True), ("False", False)])
def test_booleans_are_text(text, value):
    assert parse(DataConfig, "prepare", ["--force", text]).force is value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lam", "-1"], "lam=-1.0: must be at least 0"),
        (["--temperature", "0"], "temperature=0.0: must be greater than 0"),
        (["--lam", "abc"], "lam=abc: must be a number"),
        (["--lam", ""], "lam=: must be a number"),
        (["--lam", "nan"], "lam=nan: must be a number"),
        (["--lam", ".nan"], "lam=nan: must be a finite number"),
        (["--lam", "1e999"], "lam=inf: must be a finite number"),
        (["--epochs", "1.5"], "epochs=1.5: must be a whole number"),
        (["--epochs", "0"], "epochs=0: must be at least 1"),
        (["--selection_fraction", "1.5"], "selection_fraction=1.5: must be at most 1"),
        (["--force", "maybe"], "force=maybe: must be true or false"),
        (["--split", "random"], "split=random: must be one of leave-one-out, chronological"),
        (["--device", "abacus"], "device=abacus: must be one of auto, cpu, cuda"),
        (["--experts", "3"], "experts=3: must divide lora_rank=8"),
        (["--teacher_history", "50"], "teacher_history=50: must be at most teacher_window=40"),
        (
            ["--selection_policy", "random"],
            "selection_policy=random: chooses nothing at selection_fraction=1; give selection_fraction below 1",
        ),
        (["--lamb", "1"], "lamb: distill has no such option; the nearest is lam"),
        (["--learnin-rate=1"], "learnin_rate: distill has no such option; the nearest is learning_rate"),
        (["--lam"], "lam: needs a value, as in --lam value"),
        (["--interactions", "--items", "x"], "interactions: needs a value, as in --interactions value"),
        (["lam=1"], "lam=1: options are --name value; see recdistill distill --help"),
        (["--lam=1", "2"], "2: options are --name value; see recdistill distill --help"),
        (["--lam", "1", "--beta=2", "3"], "3: options are --name value; see recdistill distill --help"),
        (["-l", "1"], "-l: options are --name value; see recdistill distill --help"),
    ],
)
def test_each_mistake_is_one_line(arguments, message):
    with pytest.raises(InputError) as caught:
        parse(DistillConfig, "distill", arguments)
    assert str(caught.value) == message


@every_step
def test_every_number_has_a_checked_interval(step):
    for spec in fields(STEPS[step]):
        if spec.type not in (int, float):
            continue
        least, above = spec.metadata["least"], spec.metadata["above"]
        assert (least is None) != (above is None), spec.name
        outside = least - 1 if above is None else above
        with pytest.raises(InputError, match=f"^{spec.name}={outside}"):
            STEPS[step](**{spec.name: outside})
        if spec.metadata["most"] is not None:
            with pytest.raises(InputError, match=f"^{spec.name}="):
                STEPS[step](**{spec.name: spec.metadata["most"] + 1})


@every_step
def test_every_choice_is_refused_by_its_options(step):
    for spec in fields(STEPS[step]):
        if get_origin(spec.type) is Literal:
            with pytest.raises(InputError, match=f"^{spec.name}=nonsense: must be one of {get_args(spec.type)[0]}, "):
                STEPS[step](**{spec.name: "nonsense"})


def test_options_of_upstream_steps_are_taken_over():
    config = DistillConfig(seed=3, lam=0.1, epochs=7, llm="some", max_users=5)
    assert narrow(config, TeacherConfig, force=True) == TeacherConfig(seed=3, llm="some", max_users=5, force=True)
    assert narrow(config, StudentConfig) == StudentConfig(seed=3, epochs=7, max_users=5)
