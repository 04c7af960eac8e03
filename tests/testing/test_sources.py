"""Every data source keeps its contract, and a broken one is told why it does not."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from registered_parts import registries_restored
from small_data import write_csv

from recdistill.config.data import DataConfig
from recdistill.config.option import option
from recdistill.data.frames import data_from_frames
from recdistill.data.interactions import Interactions
from recdistill.data.load import load_data
from recdistill.data.samples import Samples
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError
from recdistill.registry import SOURCES
from recdistill.release.dllm2rec_data import write_dllm2rec
from recdistill.testing import check_source

LOG = Interactions(
    user=np.array([0, 1, 1, 0]),
    item=np.array([0, 2, 1, 0]),
    timestamp=np.array([4, 1, 2, 3]),
    user_ids=("ann", "bob"),
    item_ids=("x", "y", "z"),
    titles=("X", "Y", "Z"),
    source="a log",
)


@pytest.fixture
def files(tmp_path) -> dict[str, dict[str, str]]:
    """Options that each registered source finds its data by."""
    (tmp_path / "csv").mkdir()
    (tmp_path / "ilora").mkdir()
    csv = write_csv(tmp_path / "csv")
    del csv["dataset"]
    write_dllm2rec(tmp_path / "dllm2rec", load_data(DataConfig(dataset="csv", **csv)))
    for name in ("train", "valid", "test"):
        (tmp_path / "ilora" / f"{name}.jsonl").write_text('{"history": [0, 1, 2], "next": 1}\n')
    (tmp_path / "ilora" / "titles.tsv").write_text("item\ttitle\n0\tA\n1\tB\n2\tC\n")
    (tmp_path / "recbole").mkdir()
    (tmp_path / "movielens").mkdir()
    (tmp_path / "recbole" / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nv\ta\t2\n")
    (tmp_path / "recbole" / "x.item").write_text("item_id:token\ttitle:token_seq\na\tA\nb\tB\n")
    (tmp_path / "movielens" / "ratings.dat").write_text("1::2::5::10\n3::2::5::11\n")
    (tmp_path / "movielens" / "movies.dat").write_text("2::A (1999)::Drama\n4::B (2000)::Drama\n")
    return {
        "ml-100k": {},
        "ml-latest-small": {},
        "recbole": {"interactions": str(tmp_path / "recbole")},
        "movielens": {"interactions": str(tmp_path / "movielens")},
        "csv": csv,
        "dllm2rec": {"interactions": str(tmp_path / "dllm2rec")},
        "ilora": {"interactions": str(tmp_path / "ilora")},
    }


@pytest.mark.parametrize("name", SOURCES.names())
def test_every_registered_source(name, files):
    check_source(name, **files[name])
    check_source(SOURCES.get(name), **files[name])


def gives(found, missing: Exception | None = None):
    """A source that gives ``found`` where no file is named, and otherwise raises ``missing``."""

    def source(config: DataConfig):
        if config.interactions:
            raise missing or InputError(f"interactions={config.interactions}: is not read; leave it out")
        return found() if callable(found) else found

    return source


@dataclass(frozen=True, kw_only=True)
class TitleOptions:
    upper: bool = option(False, "titles in capitals")


def test_a_source_with_options_of_its_own():
    def shouted(config: DataConfig, options: TitleOptions) -> Interactions:
        log = gives(LOG)(config)
        return replace(log, titles=tuple(title.upper() if options.upper else "" for title in log.titles))

    with registries_restored():
        SOURCES.register("shouted", options=TitleOptions)(shouted)
        check_source("shouted", upper=True)
        with pytest.raises(AssertionError, match=r"^shouted: titles holds ''; ids and titles are text and not blank"):
            check_source("shouted")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timestamp": LOG.timestamp.astype(np.float32)}, "timestamp is float32; make it int64"),
        ({"item": [0, 2, 1, 0]}, "item is list; make it int64"),
        ({"item": LOG.item[:3]}, r"item has the shape \(3,\)"),
        ({"item": LOG.item + 1}, r"item holds numbers outside 0 \.\. 2; they are positions in item_ids"),
        ({"user": LOG.user - 1}, r"user holds numbers outside 0 \.\. 1"),
        ({"user": LOG.user * 0}, "1 users have no interaction; leave them out of user_ids"),
        ({"user": 1 - LOG.user}, "users are not numbered by first appearance"),
        ({"source": " "}, "source is blank"),
        ({"item_ids": ("x", "y", 3)}, "item_ids holds 3; ids and titles are text"),
        ({"item_ids": ("x", "y", "x")}, "item_ids holds an id twice"),
        ({"titles": ("X", "Y")}, "3 items have 2 titles; give each one"),
        ({"titles": ("X", " ", "Z")}, "titles holds ' '"),
        ({"item_columns": {"year": ("1", "2")}}, "item_columns has no text of each item in 'year'; give V texts"),
        ({"item_columns": {"year": ("1", "2", None)}}, "item_columns has no text of each item in 'year'"),
        (
            {"user": LOG.user[:0], "item": LOG.item[:0], "timestamp": LOG.timestamp[:0], "user_ids": ()},
            "gives no interaction",
        ),
    ],
)
def test_broken_interactions_are_told(changes, said):
    check_source(gives(LOG))
    with pytest.raises(AssertionError, match=f"^source: .*{said}"):
        check_source(gives(replace(LOG, **changes)))


def split_data(tmp_path) -> SequenceData:
    return load_data(DataConfig(**write_csv(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_items": 41}, "num_items is 41, and there are 40 titles"),
        ({"fingerprint": "abc"}, "fingerprint is not that of the content"),
        ({"name": ""}, r"its \['name'\] is blank"),
        ({"user_ids": ("u0", "u1")}, r"train holds users outside 0 \.\. 1"),
        ({"train": Samples(np.array([0, 40]), [0], [1], [0])}, r"train holds items outside 0 \.\. 39"),
        ({"test": Samples(np.array([0, 1]), [], [], [])}, "test has no sample"),
    ],
)
def test_broken_split_data_are_told(tmp_path, changes, said):
    data = split_data(tmp_path)
    check_source(gives(data))
    with pytest.raises(AssertionError, match=f"^source: .*{said}"):
        check_source(gives(replace(data, **changes)))


def test_other_things_are_no_data():
    with pytest.raises(AssertionError, match="gives a tuple; give Interactions, or SequenceData"):
        check_source(gives((LOG.user, LOG.item)))


def test_data_that_change_are_told():
    random = np.random.default_rng()
    with pytest.raises(AssertionError, match="gives other data when read again"):
        check_source(gives(lambda: replace(LOG, timestamp=random.integers(10**9, size=4))))


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (FileNotFoundError("no such file"), r"raises FileNotFoundError \(no such file\); raise InputError"),
    ],
)
def test_a_file_that_is_not_there_is_bad_input(missing, said):
    with pytest.raises(AssertionError, match=said):
        check_source(gives(LOG, missing))


def test_an_option_that_is_not_read_is_told():
    with pytest.raises(AssertionError, match="changes nothing; read the file, or raise InputError"):
        check_source(lambda config: LOG)


def test_frames_of_the_tests_are_good_data(tmp_path):
    log = pd.DataFrame({"user": ["a"] * 4, "item": list("wxyz"), "timestamp": [1, 2, 3, 4]})
    check_source(gives(data_from_frames(log)))
