"""Files of histories as people have them, through the step ``recommend``."""

import json
from pathlib import Path

import pandas as pd
import pytest
from small_data import write_csv
from workplace import Workplace, run_step

FEW = {"epochs": 1, "hidden_size": 8, "blocks": 1}


def rows_of(place: Workplace, file: Path, tmp_path: Path) -> pd.DataFrame:
    output = tmp_path / "out.csv"
    run_id = place.newest("backbone").info.run_id
    assert run_step("recommend", model=run_id, histories=file, output=output, k=3) == 0
    return pd.read_csv(output)


def test_every_row_of_mixed_files_is_answered(place: Workplace, tmp_path: Path) -> None:
    assert run_step("backbone", **write_csv(tmp_path), **FEW) == 0
    mixed = tmp_path / "mixed.jsonl"
    lines = [{"user": 7, "history": ["i1", " i2 "]}, {"user": "u8", "history": ["i3"]}, {"user": 2**70, "history": []}]
    mixed.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    found = rows_of(place, mixed, tmp_path)
    assert found["row"].tolist() == [1] * 3 + [2] * 3 + [3] * 3
    assert not set(found["item"][found["row"] == 1]) & {"i1", "i2"}
    assert found["unknown_items"].eq(0).all()
    commas = tmp_path / "commas.csv"
    commas.write_text('\ufeffid,history\n1,"i1,i2"\n2,"[""i3""]"\n', encoding="utf-8")
    assert rows_of(place, commas, tmp_path)["row"].tolist() == [1] * 3 + [2] * 3


@pytest.mark.slow
def test_a_file_of_unknown_ids_alone_is_an_error_with_a_hint(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_step("backbone", **write_csv(tmp_path), **FEW) == 0
    run_id = place.newest("backbone").info.run_id
    file = tmp_path / "unknown.jsonl"
    file.write_text('{"history": ["item-1", "item-2"]}\n', encoding="utf-8")
    capsys.readouterr()
    assert run_step("recommend", model=run_id, histories=file, output=tmp_path / "out.csv") == 1
    said = capsys.readouterr().err
    assert "none of its 2 item ids is known to the model, which has ids as 'i" in said
    assert not (tmp_path / "out.csv").exists()
