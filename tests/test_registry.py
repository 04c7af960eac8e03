"""Parts by name: what the text of a file says of them is what importing it gives."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from recdistill.errors import InputError
from recdistill.registry import REGISTRIES, STUDENTS, Registry, declared_in

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
