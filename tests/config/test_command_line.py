"""MLproject, the command line and the dataclasses say the same; each mistake is one line."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow.projects import load_project

from recdistill.config import (
    ALIASES,
    STEPS,
    DataConfig,
    DistillConfig,
    StudentConfig,
    TeacherConfig,
    changed,
    config_of,
    mlproject,
    narrow,
    option_table,
)
from recdistill.config.command_line import COMMON, help_text, parse
from recdistill.errors import InputError
from recdistill.registry import STUDENTS

ROOT = Path(__file__).parents[2]
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
    assert list(entry_points) == [*STEPS, *ALIASES]
    assert {"main", "prepare", "backbone", "teacher", "distill", "evaluate", "sweep", "compare"} <= set(STEPS)
    assert set(DISTILL_OPTIONS.split()) <= set(entry_points["distill"]["parameters"])


@every_step
def test_parameters_are_the_fields_with_type_and_default(entry_points, step):
    parameters = entry_points[step]["parameters"]
    assert list(parameters) == [spec.name for spec in option_table(STEPS[step]).values()]
    for spec in option_table(STEPS[step]).values():
        declared = parameters[spec.name]
        assert set(declared) == {"type", "default"}
        assert declared["type"] == ("float" if spec.type in (int, float) else "string")
        assert spec.type in (int, float, bool, str) or spec.choices
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
    assert set(command[4::2]) == {f"--{name}" for name in option_table(STEPS[step])}
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
def test_help_lists_every_option_in_groups_the_common_ones_first(step):
    printed = help_text(STEPS[step], step, [])
    for name, one in option_table(STEPS[step]).items():
        assert f"--{name} " in printed + " " or f"--{name}\n" in printed
        assert one.help
    groups = [line for line in printed.splitlines() if line.endswith(":") and not line.startswith(" ")]
    common = [one for one in option_table(STEPS[step]).values() if one.metadata["common"]]
    assert not common or groups[0] == f"{COMMON}:"
    assert len(set(groups)) == len(groups)
    assert max(map(len, printed.splitlines())) <= 110
    assert (STEPS[step].__doc__ or "").startswith(f"Options of ``{step}``: ")


def test_help_and_mistakes_need_no_torch():
    program = (
        "import sys; from recdistill.__main__ import main; "
        "assert main(['distill', '--help']) == 0; "
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@every_step
@pytest.mark.parametrize("form", ["--{} {}", "--{}={}"])
@pytest.mark.parametrize("dashes", [False, True])
def test_options_parse_in_every_spelling(step, form, dashes):
    arguments = []
    for spec in option_table(STEPS[step]).values():
        name = spec.name.replace("_", "-") if dashes else spec.name
        arguments += form.format(name, "\0").split(" ")
        arguments[-1] = arguments[-1].replace("\0", text_of(spec.default))
    assert parse(STEPS[step], step, arguments) == STEPS[step]()


@pytest.mark.parametrize(
    "text", ["", "007", "1e3", "null", "true", "[1,2]", "{a: b}", "a b", "-1", "@file", "ünï", "sqlite:///x.db", "#1"]
)
def test_text_stays_as_it_is(text):
    assert parse(DataConfig, "prepare", ["--columns", text]).columns == text
    assert parse(DataConfig, "prepare", [f"--columns={text}"]).columns == text


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
        (["--lam", "nan"], "lam=nan: must be a finite number"),
        (["--lam", ".nan"], "lam=.nan: must be a number"),
        (["--lam", "1e999"], "lam=inf: must be a finite number"),
        (["--epochs", "1.5"], "epochs=1.5: must be a whole number"),
        (["--epochs", "0"], "epochs=0: must be at least 1"),
        (["--selection_fraction", "1.5"], "selection_fraction=1.5: must be at most 1"),
        (["--force", "maybe"], "force=maybe: must be true or false"),
        (["--split", "random"], "split=random: must be one of chronological, leave-one-out, user-holdout"),
        (["--device", "abacus"], "device=abacus: must be one of auto, cpu, cuda"),
        (["--student", "gru"], "student=gru: must be one of NAMES (nearest: gru4rec)"),
        (
            ["--student=gru4rec", "--candidates=4"],
            "candidates=4: is of teacher=generative; set that, or leave candidates out",
        ),
        (["--experts", "3"], "experts=3: must divide lora_rank=8"),
        (["--teacher_history", "50"], "teacher_history=50: must be at most teacher_window=40"),
        (
            ["--selection_policy", "random"],
            "selection_policy=random: chooses nothing at selection_fraction=1; give selection_fraction below 1",
        ),
        (["--lamb", "1"], "lamb: distill has no such option; the nearest is lam"),
        (["--learnin-rate=1"], "learnin_rate: distill has no such option; the nearest is learning_rate"),
        (["--zzzz", "1"], "zzzz: distill has no such option; see recdistill distill --help"),
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
    assert str(caught.value) == message.replace("NAMES", ", ".join(STUDENTS.names(gradient=True)))


def with_part(one, value):
    """The value of an option, and what chooses the part that it is of."""
    chosen = {}
    if one.parts and not one.name.endswith("_weight"):
        name, equals, part = one.parts[0].partition("=")
        chosen = {name: part} if equals else {one.parts[0].partition(">")[0]: 1.0}
    return {one.name: value} | chosen


def test_a_history_is_held_against_the_window_of_packed_prompts_alone():
    assert TeacherConfig(teacher_history=60, packing=False).teacher_history == 60
    with pytest.raises(InputError, match=r"^teacher_history=60: must be at most teacher_window=40"):
        TeacherConfig(teacher_history=60)


def read_with_others():
    """Each option that others switch off, of each step, with what it needs."""
    return [
        (step, name, needed)
        for step, kind in STEPS.items()
        for name, one in option_table(kind).items()
        for needed in one.metadata["read_with"].items()
    ]


def switched(one, condition, on):
    """A value of an option that meets a condition, or one that does not."""
    if condition.startswith(("above ", "below ")):
        word, limit = condition.split()
        more = 0.25 if one.type is float else 1
        limit = one.type(float(limit))
        return (limit + more if word == "above" else limit - more) if on else limit
    names = one.choices or ("true", "false")
    return next(name for name in names if (name in condition.split(" or ")) == on)


def another(one):
    """A value of an option that is not its default."""
    if one.choices or one.type is bool:
        return next(text for text in (one.choices or ("true", "false")) if text != text_of(one.default))
    return one.type(one.default / 2 if 0 < one.default <= 1 and one.type is float else one.default + 1)


@pytest.mark.parametrize(("step", "name", "needed"), read_with_others())
def test_what_nothing_reads_is_refused_unless_it_is_the_default(step, name, needed):
    table = option_table(STEPS[step])
    one, (other, condition) = table[name], needed
    met = {}
    for parent, wanted in one.metadata["read_with"].items():
        met[parent] = switched(table[parent], wanted, on=True)
    if met.get("selection_fraction"):
        met["selection_policy"] = "random"
    given = met | {other: switched(table[other], condition, on=False)}
    if given.get("selection_fraction") == 1:
        del given["selection_policy"]

    def parsed(values):
        return parse(STEPS[step], step, [f"--{name}={text_of(value)}" for name, value in values.items()])

    value = another(one)
    assert text_of(parsed(met | {name: value}).value(name)) == text_of(value)
    assert parsed(given | {name: one.default}).value(name) == one.default
    if step == "sweep":
        # Its trials may have other values: the search space is looked at.
        assert text_of(parsed(given | {name: value}).value(name)) == text_of(value)
        return
    with pytest.raises(InputError, match=rf"^{name}={text_of(value)}: is of {one.need(other)}; set that, or leave"):
        parsed(given | {name: value})
    # What a run kept is read all the same.
    kept = one.read(text_of(value))
    assert config_of(STEPS[step], {name: kept}).value(name) == kept


@every_step
def test_every_number_has_a_checked_interval(step):
    for one in option_table(STEPS[step]).values():
        if one.type not in (int, float):
            continue
        least, above = one.metadata["least"], one.metadata["above"]
        assert (least is None) != (above is None), one.name
        outside = least - 1 if above is None else above
        with pytest.raises(InputError, match=f"^{one.name}={outside}"):
            STEPS[step](**with_part(one, outside))
        if one.metadata["most"] is not None:
            with pytest.raises(InputError, match=f"^{one.name}="):
                STEPS[step](**with_part(one, one.metadata["most"] + 1))


@every_step
def test_every_choice_is_refused_by_its_options(step):
    for one in option_table(STEPS[step]).values():
        if one.choices:
            with pytest.raises(InputError, match=f"^{one.name}=nonsense: must be one of {one.choices[0]}"):
                STEPS[step](**with_part(one, "nonsense"))


def test_options_of_upstream_steps_are_taken_over():
    config = DistillConfig(seed=3, lam=0.1, epochs=7, llm="some", max_users=5, blocks=1)
    assert narrow(config, TeacherConfig, force=True) == TeacherConfig(seed=3, llm="some", max_users=5, force=True)
    assert narrow(config, StudentConfig) == StudentConfig(seed=3, epochs=7, max_users=5, blocks=1)


def test_options_of_a_part_follow_the_part():
    config = DistillConfig(blocks=1, heads=4, output_weight=0.5, output_loss="mse")
    assert (config.value("heads"), config.values()["output_loss"]) == (4, "mse")
    other = changed(config, student="gru4rec")
    assert dict(other.part_options)["blocks"] == 1
    assert "heads" not in other.values()
    assert changed(config, output_weight=0.0).values().get("output_loss") is None
    with pytest.raises(InputError, match=r"^heads=4: is of student="):
        changed(config, student="gru4rec", heads=4)
    with pytest.raises(InputError, match=r"^lamb: there is no such option; the nearest is lam"):
        changed(config, lamb=1)


def test_what_a_run_kept_is_read_whatever_version_wrote_it():
    config = DistillConfig(student="gru4rec", blocks=1, lam=0.25)
    assert config_of(DistillConfig, config.values()) == config
    # An older version kept every option, those of other parts and unknown ones too.
    older = config.values() | {"heads": 4, "answer": "likelihood", "output_loss": "mse", "gone": 1}
    del older["plugin"]
    assert config_of(DistillConfig, older) == config


def test_a_dropped_option_is_accepted_with_a_line(capsys):
    assert parse(DataConfig, "prepare", ["--mask_seen", "false", "--max_users=3"]) == DataConfig(max_users=3)
    assert capsys.readouterr().out == "mask_seen: prepare no longer reads it; leave it out\n"
    assert "mask_seen" not in help_text(DataConfig, "prepare", [])
