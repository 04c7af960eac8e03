"""Parts by name: what the text of a file says of them is what importing it gives."""

import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from registered_parts import registries_restored

import recdistill.testing
from recdistill.errors import InputError, Pruned
from recdistill.evaluation import part_metrics
from recdistill.registry import (
    GATES,
    LOSS_TERMS,
    METRICS,
    POLICIES,
    REGISTRIES,
    SPLITS,
    STUDENTS,
    TAKEN_BY_RESULTS,
    TEACHERS,
    VIEWS,
    Registry,
    declared_in,
    part_errors,
)

EVERY = [(registry, name) for registry in REGISTRIES for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), EVERY, ids=lambda value: getattr(value, "kind", value))
def test_a_part_is_what_its_file_says(registry: Registry, name: str) -> None:
    (told,) = [
        one
        for one in declared_in(registry.declaration(name).file, registry.declaration(name).module, registry.variable)
        if one.name == name
    ]
    part = registry.get(name)
    found = registry.declaration(name)
    assert found.part is part
    assert (found.module, found.file, dict(found.about)) == (told.module, told.file, dict(told.about))
    assert registry.name_of(part) == name

    def described(kind: type | None) -> list[tuple]:
        specs = dataclasses.fields(kind) if kind is not None else ()
        return [(spec.name, spec.type, spec.default, dict(spec.metadata)) for spec in specs]

    assert described(registry.options(name)) == described(told.options)


def test_every_door_has_parts() -> None:
    assert all(registry.names() for registry in REGISTRIES)
    assert {"sasrec", "gru4rec", "caser"} <= set(STUDENTS.names(gradient=True))


def test_listing_imports_no_torch() -> None:
    program = (
        "import sys; from recdistill.registry import REGISTRIES\n"
        "print([(r.kind, n, r.options(n)) for r in REGISTRIES for n in r.names()])\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^student 'sasrek' is unknown; choose one of .*\(nearest: sasrec\)$"):
        STUDENTS.get("sasrek")


def test_a_name_is_taken_once() -> None:
    STUDENTS.names()
    with pytest.raises(
        InputError, match=r"^a student named 'sasrec' exists, in recdistill.students.sasrec; give yours"
    ):
        STUDENTS.register("sasrec")(type("Mine", (), {"__module__": __name__}))


@pytest.mark.parametrize(
    "line",
    ["size: int = option(1 + 1, 'x')", "size: list = option(1, 'x')", "size: int = 3", "size: int = option(f(), 'x')"],
)
def test_options_that_cannot_be_read_are_told_with_their_place(line: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f'class Mine:\n    {line}\n\n@STUDENTS.register("mine", options=Mine)\nclass Model:\n    pass\n')
    with pytest.raises(InputError, match=r"mine\.py:2: write the option size as `name: type = option\(\.\.\.\)`"):
        declared_in(file, "mine", "STUDENTS")


def test_nothing_of_a_file_is_run_to_list_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text('raise SystemExit\n\n@STUDENTS.register("mine", gradient=True)\nclass Model:\n    pass\n')
    assert [(one.name, dict(one.about)) for one in declared_in(file, "mine", "STUDENTS")] == [
        ("mine", {"gradient": True})
    ]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    with registries_restored():
        yield


def part(*_: object) -> None:
    """A part that is never called."""


@pytest.mark.parametrize(
    ("registry", "about", "said"),
    [
        (
            METRICS,
            {"cutoffs": (3,)},
            "METRICS.register takes of, cut_offs, says, options, and no cutoffs (nearest: cut_",
        ),
        (METRICS, {"of": "list"}, "of='list' must be 'lists', or left out"),
        (METRICS, {"cut_offs": 3}, "cut_offs=3 must be a tuple of different whole numbers of at least 1, as (10,)"),
        (METRICS, {"cut_offs": (3, 3)}, "cut_offs=(3, 3) must be a tuple of different whole numbers"),
        (METRICS, {"of": "lists", "says": "x"}, "is of lists, and registered without cut_offs"),
        (METRICS, {"of": "lists", "cut_offs": (3,)}, "is of lists, and registered without says"),
        (METRICS, {"of": "lists", "cut_offs": (3,), "says": "of {n}"}, "says='of {n}' can have {k}, the cut-off"),
        (STUDENTS, {}, "is registered without gradient; give gradient=True or False"),
        (
            STUDENTS,
            {"gradiant": True},
            "STUDENTS.register takes gradient, options, and no gradiant (nearest: gradient)",
        ),
        (STUDENTS, {"gradient": "yes"}, "gradient='yes' must be gradient=True or False"),
        (LOSS_TERMS, {"mean_of_sample": True}, "and no mean_of_sample (nearest: mean_of_samples)"),
        (LOSS_TERMS, {"need_states": True}, "and no need_states (nearest: needs_states)"),
        (LOSS_TERMS, {"help": 3}, "help=3 must be a text"),
        (POLICIES, {"query": True}, "and no query (nearest: queries)"),
        (SPLITS, {"least": -1}, "least=-1 must be a whole number of at least 0"),
        (VIEWS, {"option": None}, "VIEWS.register takes options, and no option (nearest: options)"),
    ],
)
def test_what_a_registration_says_is_checked(registry: Registry, about: dict, said: str) -> None:
    with pytest.raises(InputError) as caught:
        registry.register("own", **about)(part)
    assert str(caught.value).startswith(f"{registry.kind} 'own': ")
    assert said in str(caught.value)
    assert "own" not in registry


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        *((VIEWS, name) for name in ("a+b", "a/b", "a,b", "", "-a", "a b")),
        *(
            (METRICS, name)
            for name in ("my metric", "a/b", "é", "a-b", "3d", "ndcg_at_10", "warm_cost", "new", "items")
        ),
        *((LOSS_TERMS, name) for name in ("a.b", "a-b", "total", "ranking", "base", "keys", "training", "forward")),
    ],
)
def test_names_that_cannot_be_used_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match=f"^{registry.kind} {re.escape(repr(name))}: "):
        registry.register(name)(part)
    assert name not in registry


def test_a_registration_without_a_name_is_told() -> None:
    with pytest.raises(InputError, match=r"^selection policy part: has no name; write @POLICIES\.register\('its"):
        POLICIES.register(part)  # type: ignore[arg-type]


@given(
    names=st.lists(st.from_regex(r"[a-z](_|at|1|0){0,5}", fullmatch=True), max_size=4, unique=True),
    k=st.integers(1, 20),
)
def test_no_two_metrics_write_one_result(names: list[str], k: int) -> None:
    with registries_restored():
        known = []
        for place, name in enumerate(names):
            try:
                METRICS.register(name, cut_offs=(k,) if place % 2 else ())(part)
            except InputError:
                continue
            known.append(f"{name}_at_{k}" if place % 2 else name)
        assert len(set(known)) == len(known)


def test_what_runs_write_beside_metrics_is_taken() -> None:
    of_parts = (part_metrics.WARM_COST, part_metrics.CHANCE, part_metrics.RANKED_AMONG)
    assert {re.sub(r"_at_\d+$", "", name.rpartition("/")[2]) for name in of_parts} <= set(TAKEN_BY_RESULTS)


def module_of(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a file of this text is."""
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


POLICY = """
@POLICIES.register("own", queries=True)
def first(signals):
    return signals["loss"]

"""
IMPORT = "from recdistill.registry import GATES, POLICIES, STUDENTS, VIEWS\n"


def test_one_name_twice_in_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"selection policy 'own': twice\.py registers two of this name"):
        module_of(tmp_path / "twice.py", IMPORT + POLICY + POLICY.replace("first", "second"), monkeypatch)


def test_a_module_may_be_imported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        module = module_of(tmp_path / "again.py", IMPORT + POLICY, monkeypatch)
        assert POLICIES.get("own") is module.first


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
@pytest.mark.parametrize("_time", [1, 2])
def test_what_a_test_registers_is_gone_after_it(registry: Registry, _time: int) -> None:
    assert not {"own", "ours_again"} & set(registry.names())
    about = {STUDENTS: {"gradient": True}, POLICIES: {"queries": True}, METRICS: {"cut_offs": (3,)}}
    registry.register("own", **about.get(registry, {}))(part)
    ours = registry.part(registry.names()[0])
    registry.register("ours_again", **about.get(registry, {}))(ours)
    assert {"own", "ours_again"} <= set(registry.names())


def test_each_kind_names_the_suite_that_checks_it() -> None:
    assert sorted(one.suite for one in REGISTRIES) == sorted(recdistill.testing.__all__)


@pytest.mark.parametrize("registry", [STUDENTS, VIEWS, GATES, TEACHERS])
def test_a_part_is_of_its_kind(registry: Registry) -> None:
    about = {"gradient": True} if registry is STUDENTS else {}
    registry.register("own", **about)(part)
    with pytest.raises(
        InputError, match=rf"^{registry.kind} 'own' \(test_registry\.py:\d+\): is a function; make it a "
    ):
        registry.get("own")
    if registry is not TEACHERS:
        registry.register("own", **about)(type("Own", (), {"__module__": __name__}))
        with pytest.raises(InputError, match=r"'own' \(.*\): is no \w+; derive it from recdistill\."):
            registry.get("own")
    assert isinstance(registry.part("own"), type) == (registry is not TEACHERS)


def test_what_a_part_raises_is_one_line_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = module_of(tmp_path / "own_parts.py", IMPORT + POLICY, monkeypatch).first
    said = r"^selection policy 'own' \(own_parts\.py:5\): KeyError: 'loss'; mend it, recdistill\.testing\.check_policy"
    for name in ("own", own):
        with pytest.raises(InputError, match=said) as caught, POLICIES.calling(name):
            own({})
        assert isinstance(caught.value.__cause__, KeyError)
    # Where the call itself does not fit, the place is that of the part.
    with pytest.raises(InputError, match=r"\(own_parts\.py:3\): TypeError: first\(\) missing"), POLICIES.calling("own"):
        own()
    with pytest.raises(InputError, match=said), part_errors():
        own({})


def test_what_is_not_a_part_s_mistake_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module_of(tmp_path / "own_parts.py", IMPORT + POLICY, monkeypatch)
    for error in (InputError("said"), Pruned(), MemoryError(), torch.OutOfMemoryError(), KeyboardInterrupt()):
        for block in (POLICIES.calling("own"), part_errors()):
            with pytest.raises(type(error)) as caught, block:
                raise error
            assert caught.value is error
    # The package's own parts, parts that are not registered, and code that is of no part.
    for name in ("random", "not registered", part):
        with pytest.raises(KeyError), POLICIES.calling(name):
            raise KeyError
    with pytest.raises(KeyError), part_errors():
        raise KeyError


def test_of_several_parts_in_a_file_the_one_that_raises_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
class Base:
    def vectors(self):
        return self.missing

@VIEWS.register("one")
class One(Base): ...

@VIEWS.register("two")
class Two(Base): ...

@POLICIES.register("three")
def three(signals):
    return deeper(signals)

def deeper(signals):
    return 1 / signals
"""
    module = module_of(tmp_path / "several.py", IMPORT + text, monkeypatch)
    with pytest.raises(InputError, match=r"^view 'two' \(several\.py:5\): AttributeError"), part_errors():
        module.Two().vectors()
    with (
        pytest.raises(InputError, match=r"^selection policy 'three' \(several\.py:18\): ZeroDivisionError"),
        part_errors(),
    ):
        module.three(0)
