"""iLoRA's files: small ones by hand, and Last.fm where it is at hand."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from recdistill.config.data import DataConfig
from recdistill.data.load import load_data
from recdistill.data.sequences import SequenceData
from recdistill.data.sources.ilora import ilora
from recdistill.errors import InputError

LASTFM = Path(__file__).parents[4] / "shared" / "data" / "lastfm"
TITLES = ["Morcheeba", "Café Tacvba", 'The "Who"', "Air", "Low"]
ROWS = {
    "train": [([], 0), ([0, 1], 2), ([0, 1, 2], 3), ([3, 1, 0, 2], 4)],
    "valid": [([4, 3, 2], 1), ([1], 0)],
    "test": [([2, 2, 0], 4)],
}
RELEASED = {"train": "train_data.df", "valid": "Val_data.df", "test": "Test_data.df"}


def write_json(folder: Path, rows=ROWS, zipped=("train",)) -> str:
    for part, samples in rows.items():
        text = "".join(json.dumps({"history": history, "next": item}) + "\n" for history, item in samples)
        if part in zipped:
            (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        else:
            (folder / f"{part}.jsonl").write_text(text)
    lines = ["item_id\ttitle", *(f"{item}\t{title}" for item, title in enumerate(TITLES))]
    (folder / "titles.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def write_released(folder: Path) -> str:
    for part, samples in ROWS.items():
        frame = pd.DataFrame(
            {
                "seq": [history + [5] * (4 - len(history)) for history, _ in samples],
                "len_seq": [len(history) for history, _ in samples],
                "next": [item for _, item in samples],
            }
        )
        frame.to_pickle(folder / RELEASED[part])
    lines = [f"{item}::{title}" for item, title in reversed(list(enumerate(TITLES)))]
    (folder / "id2name.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


def read_ilora(folder: str) -> SequenceData:
    return ilora(DataConfig(dataset="ilora", interactions=folder))


def pairs(samples):
    return [
        (samples.items[start:end].tolist(), int(samples.items[end]))
        for start, end in zip(samples.start, samples.end, strict=True)
    ]


@pytest.mark.parametrize("write", [write_json, write_released])
def test_samples_and_titles_by_hand(tmp_path, write):
    data = read_ilora(write(tmp_path))
    assert pairs(data.train) == ROWS["train"][2:]
    assert pairs(data.validation) == ROWS["valid"][:1]
    assert pairs(data.test) == ROWS["test"]
    assert data.titles == tuple(TITLES)
    assert (data.num_items, data.padding_id, data.split, data.name) == (5, 5, "released", "ilora")
    assert data.item_ids == ("0", "1", "2", "3", "4")
    assert [samples.user.tolist() for samples in (data.train, data.validation, data.test)] == [[0, 1], [2], [3]]
    assert data.user_ids == ("train row 0", "train row 1", "validation row 0", "test row 0")


def test_both_forms_have_one_fingerprint(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = read_ilora(write_json(tmp_path / "a")), read_ilora(write_released(tmp_path / "b"))
    assert first.fingerprint == second.fingerprint
    (tmp_path / "a" / "titles.tsv").write_text("item_id\ttitle\n0\tA\n1\tB\n2\tC\n3\tD\n4\tE\n")
    assert read_ilora(str(tmp_path / "a")).fingerprint != first.fingerprint


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
@pytest.mark.parametrize("write", [write_json, write_released])
def test_what_ends_a_line_elsewhere_may_stand_in_a_title(tmp_path, write, mark):
    folder = write(tmp_path)
    file = tmp_path / ("titles.tsv" if write is write_json else "id2name.txt")
    file.write_text(file.read_text(encoding="utf-8").replace("Air", f"A{mark}ir"), encoding="utf-8")
    assert read_ilora(folder).titles == (*TITLES[:3], f"A{mark}ir", TITLES[4])


@pytest.mark.parametrize("blank", ["\n", "\n\n  \n", "\r\n \t\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("write", [write_json, write_released])
def test_blank_lines_and_byte_order_marks_are_nothing(tmp_path, write, blank, mark):
    expected = read_ilora(write(tmp_path)).fingerprint
    for file in tmp_path.iterdir():
        if file.suffix in (".tsv", ".txt", ".jsonl"):
            text = file.read_text(encoding="utf-8")
            file.write_bytes(mark + f"{blank}{text}{blank}".replace("\n", "\r\n").encode())
    assert read_ilora(str(tmp_path)).fingerprint == expected


def test_titles_that_are_missing_are_made_of_the_id(tmp_path, said):
    folder = write_json(tmp_path)
    (tmp_path / "titles.tsv").write_text("item_id\ttitle\n0\tA\n4\tE\n3\t \n1\tB\n")
    assert read_ilora(folder).titles == ("A", "B", "item 2", "item 3", "E")
    assert said() == [
        f"{tmp_path}/titles.tsv: warning: 2 of 5 items have no title, as item 2; it is made of their id "
        "(missing_titles=refuse refuses them)",
        f"read {tmp_path} (ilora): train.jsonl.gz 2 rows, valid.jsonl 1 rows, test.jsonl 1 rows; 5 items",
    ]
    with pytest.raises(InputError, match=r"titles.tsv: has no title of item 2 \(2 of 5 missing\); add it"):
        ilora(DataConfig(dataset="ilora", interactions=folder, missing_titles="refuse"))


def test_a_file_of_titles_without_header_loses_none(tmp_path):
    folder = write_json(tmp_path)
    (tmp_path / "titles.tsv").write_text("".join(f"{item}\t{title}\n" for item, title in enumerate(TITLES)))
    assert read_ilora(folder).titles == tuple(TITLES)


def test_it_is_a_data_set_of_the_options(tmp_path):
    folder = write_json(tmp_path)
    options = {"dataset": "ilora", "interactions": folder}
    assert load_data(DataConfig(**options)).fingerprint == read_ilora(folder).fingerprint
    for name, value in (("split", "chronological"), ("max_users", 3), ("min_interactions", 3), ("k_core", 2)):
        with pytest.raises(InputError, match=f"{name}={value}: ilora files are split already"):
            load_data(DataConfig(**options, **{name: value}))
    with pytest.raises(InputError, match="items=x: dataset=ilora has its titles in the folder"):
        load_data(DataConfig(**options, items="x"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("valid.jsonl", '{"history": [1, 2, 3], "next": 5}\n', r"valid.jsonl: row 1: item 5 is none of 0 .. 4"),
        ("valid.jsonl", '{"history": [1, -2, 3], "next": 0}\n', r"valid.jsonl: row 1: item -2 is none of 0 .. 4"),
        ("valid.jsonl", '{"history": [1, "2", 3], "next": 0}\n', r"valid.jsonl: row 1: item 2 is none of 0 .. 4"),
        ("valid.jsonl", '{"history": [1, true, 3], "next": 0}\n', r"row 1: item True is none of"),
        ("valid.jsonl", '{"history": [4, 3, 2], "next": 1}\n{"history"\n', r"valid.jsonl: row 2: .*a row is"),
        ("valid.jsonl", '{"history": 4, "next": 1}\n', r"valid.jsonl: row 1: history is no list"),
        ("valid.jsonl", "[1]\n", r"valid.jsonl: row 1: .*a row is"),
        ("valid.jsonl", '{"history": [1, 2], "next": 1}\n', r"valid.jsonl: holds no history of 3 items or more"),
        ("valid.jsonl", "", r"valid.jsonl: holds no history of 3 items or more"),
        ("titles.tsv", "item_id\ttitle\n0\tA\n4\tB\n", r"titles.tsv: has no item 1 .3 of 5 missing.; ids are 0"),
        ("titles.tsv", "item_id\ttitle\n0\tA\n99999999999\tB\n", r"titles.tsv: has no item 1"),
        ("titles.tsv", "item_id\ttitle\n0\tA\n0\tB\n", r"titles.tsv: row 2: item 0 stands twice"),
        ("titles.tsv", "item_id\ttitle\n0 A\n", r"titles.tsv: row 1: '0 A' is no id"),
        ("titles.tsv", "item_id\ttitle\nx\tA\n", r"titles.tsv: row 1: .* is no id"),
        ("titles.tsv", "item_id\ttitle\n", r"titles.tsv: has no item 0"),
    ],
)
def test_each_mistake_is_one_line(tmp_path, name, text, said):
    folder = write_json(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_ilora(folder)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="interactions=: dataset=ilora needs a folder"):
        read_ilora("")
    with pytest.raises(InputError, match="no such folder"):
        read_ilora(str(tmp_path / "nowhere"))
    folder = write_json(tmp_path)
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds no test\.jsonl"):
        read_ilora(folder)


def test_a_damaged_archive_or_a_pickle_that_runs_code_is_refused(tmp_path):
    folder = write_json(tmp_path)
    (tmp_path / "train.jsonl.gz").write_bytes((tmp_path / "train.jsonl.gz").read_bytes()[:-12])
    with pytest.raises(InputError, match=r"train.jsonl.gz: row \d+: "):
        read_ilora(folder)
    released = tmp_path / "released"
    released.mkdir()
    write_released(released)
    (released / "train_data.df").write_bytes(b"cos\nsystem\n(S'touch broken'\ntR.")
    with pytest.raises(InputError, match="is no pickled frame"):
        read_ilora(str(released))


@pytest.mark.skipif(not LASTFM.is_dir(), reason="the shared data are not at hand")
def test_lastfm_has_the_releases_122_validation_and_test_samples():
    data = read_ilora(str(LASTFM))
    assert data.num_items == 4606
    assert (len(data.validation), len(data.test)) == (122, 122)
    lengths = data.test.end - data.test.start
    assert (lengths.min(), lengths.max()) == (3, 10)
    assert len(data.train) == 50_800 - 3 * 976
