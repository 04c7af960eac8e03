"""What is kept of a cell's files and data, and whether that is of today."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from recdistill.errors import InputError
from recdistill.study.cells import CellResult, cells_to_make, write_cell
from recdistill.study.contents import AtHand, Contents
from recdistill.study.plan import Cell, Plan, read_plan

PLAN = """\
shared: {new_items: 0.1}
data:
  own: {dataset: csv, interactions: x.csv, items: y.csv}
  pinned: {dataset: ml-100k}
students:
  sasrec: {student: sasrec}
seeds: [1, 2]
rows:
  ids: {step: backbone}
  given: {step: backbone, options: {released: RELEASED}}
  after: {step: map_items, of: {student_run_id: given}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "weights.pt").write_bytes(b"before")
    (tmp_path / "plan.yaml").write_text(PLAN.replace("RELEASED", str(tmp_path / "weights.pt")))
    return read_plan(tmp_path / "plan.yaml")


def at_hand(fingerprint: str = "a", texts: str = "t") -> AtHand:
    def data(config):
        if not fingerprint:
            raise InputError("x.csv: no such file")
        assert (config.new_items, config.new_items_seed) == (0.0, 1)
        return SimpleNamespace(fingerprint=fingerprint)

    return AtHand(data, lambda config, data: {"item texts": texts} if texts else {})


def cell_of(plan: Plan, name: str) -> Cell:
    return next(cell for cell in plan.cells if cell.name == name)


def test_a_cell_is_of_todays_data_and_files_and_of_those_of_what_it_starts_from(plan, tmp_path, capsys):
    after = cell_of(plan, "own/after/sasrec-2")
    kept = at_hand().of(after)
    assert kept.undrawn == "a"
    assert {name: bool(value) for name, value in kept.files.items()} == {
        "given: released content": True,
        "after: item texts": True,
    }
    assert at_hand().fits(after, kept)
    assert not at_hand(fingerprint="b").fits(after, kept)
    assert not at_hand(texts="").fits(after, kept)
    # On a machine that has no such data the cells are what they were.
    assert at_hand(fingerprint="").fits(after, kept)
    assert "the data of own are taken to be as they were (x.csv: no such file)" in capsys.readouterr().out
    (tmp_path / "weights.pt").write_bytes(b"after it")
    assert not at_hand().fits(after, kept)
    assert at_hand().fits(cell_of(plan, "own/ids/sasrec-2"), replace(kept, files={}))


def test_pinned_data_and_cells_of_before_have_nothing_to_hold_against(plan):
    pinned = cell_of(plan, "pinned/ids/sasrec-1")
    never = AtHand(pytest.fail, pytest.fail)
    assert never.of(pinned) == Contents()
    assert never.fits(pinned, Contents())
    assert never.fits(cell_of(plan, "own/ids/sasrec-1"), Contents())


def test_a_cell_of_other_data_is_made_again_and_with_force_every_one(plan, tmp_path):
    cells = [cell for cell in plan.cells if "/ids/" in cell.name]
    for cell in cells:
        own = at_hand().of(cell)
        told = {"files": own.files, "undrawn": own.undrawn}
        kept = CellResult(cell.key, "abc", "sqlite", {}, 2.0, cell.options, "f" * 64, {}, "c" * 40, "cpu", **told)
        write_cell(tmp_path, cell, kept, pd.DataFrame({"user": ["u"], "item": ["i"], "rank": [1]}))
    assert cells_to_make(cells, tmp_path, at_hand()) == []
    grown = cells_to_make(cells, tmp_path, at_hand(fingerprint="b"))
    assert {cell.data for cell in grown} == {"own"}
    assert cells_to_make(cells, tmp_path, at_hand(), force=True) == cells
