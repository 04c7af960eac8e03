"""Hundreds of inputs of every kind: each is taken, or refused in one line; none ends in a traceback or hangs.

All in this process. ``pytest -m slow`` tries ten times as many.
"""

import gzip
import itertools
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file
from workplace import new_store

from recdistill.__main__ import main
from recdistill.config import STEPS, DataConfig, option_table
from recdistill.config.command_line import parse
from recdistill.data.catalogue import Catalogue
from recdistill.data.histories import read_histories
from recdistill.data.load import load_data
from recdistill.errors import InputError
from recdistill.release.teacher_files import DISTANCE_FILE, EMBEDDING_FILES, RANKING_FILE, read_teacher_files
from recdistill.runs.served_model import load_model, log_student_model
from recdistill.students.build import StudentShape, build_student, load_recommender, save_recommender
from recdistill.students.catalogue_file import read_catalogue
from recdistill.sweep.space_file import read_space
from recdistill.teachers.outputs import Manifest, TeacherOutputs, read_teacher_outputs, write_teacher_outputs

#: Inputs that each kind tries: over 500 together.
QUICK, SLOW = 80, 800
SECONDS_EACH = 20

both = pytest.mark.parametrize("count", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])


def fuzz(count: int, strategy: st.SearchStrategy[Any], tried: Callable[[Any], object]) -> None:
    """Try inputs. Fails with what is raised, but for an InputError of one line."""

    @settings(
        max_examples=count,
        deadline=1000 * SECONDS_EACH,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(strategy)
    def one(value: Any) -> None:
        try:
            tried(value)
        except InputError as error:
            said = str(error)
            assert said
            assert "\n" not in said, said
            assert len(said) < 3000

    one()


#: What people and programs write where a value is due.
WORDS = [
    "", " ", "0", "-1", "1", "2.5", "1e9", "1e-9", "1e400", "nan", "inf", "-inf", "NaN", "None", "null", "true", "True",
    "yes", "9" * 40, "0x10", "1_000", "١٢", "..", "../../etc/passwd", "/", "/dev/null", "~", "~nobody/x", "a" * 300,
    "é", "\u202e", "\x00", "\ud800", "a b", "'", '"', "`id`", "$(id)", "{}", "[]", "%s", "{0}", "--", "-x", "=", "a=b",
    ",", "itemknn,", "sasrec", "all+random", "sqlite:///:memory:", "http://127.0.0.1:9", "user:x,item:y", "\n",
    "line\nbreak",
]  # fmt: skip
words = st.sampled_from(WORDS) | st.text(max_size=12)
NAMES = sorted({name for kind in STEPS.values() for name in option_table(kind)} - {"plugin"})


@both
def test_the_command_line(count: int) -> None:
    name = st.sampled_from(NAMES) | st.text(string.ascii_lowercase + "_-", max_size=10)
    argument = st.builds("--{}={}".format, name, words) | st.builds("--{}".format, name) | words
    lines = st.tuples(st.sampled_from(sorted(STEPS)), st.lists(argument, max_size=5))

    def tried(line: tuple[str, list[str]]) -> None:
        step, arguments = line
        # A plugin is a user's own code.
        if not any(one.startswith("--plugin") for one in arguments):
            parse(STEPS[step], step, arguments)

    fuzz(count, lines, tried)


@both
def test_names_of_steps(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    def tried(arguments: list[str]) -> None:
        if not arguments or arguments[0] not in STEPS:
            assert main(arguments) in (0, 1)

    fuzz(count // 4, st.lists(words.filter(lambda word: word not in STEPS), max_size=3), tried)


@both
def test_paths(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.csv").write_text("user,item,timestamp\n")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    known = st.sampled_from(["folder", "folder/../file.csv", "file.csv", "loop", "loop/x", "file.csv/x", "."])
    sources = st.sampled_from(["csv", "recbole", "movielens", "ilora", "dllm2rec"])

    def tried(given: tuple[str, str, str]) -> None:
        source, first, second = given
        with pytest.raises(InputError):
            read_histories(first)
        with pytest.raises(InputError):
            read_teacher_outputs(first)
        with pytest.raises(InputError):
            read_space(second or "no such name")
        load_data(parse(DataConfig, "prepare", [f"--dataset={source}", f"--interactions={first}", f"--items={second}"]))

    fuzz(count, st.tuples(sources, known | words, known | words), tried)


def mutated(texts: list[bytes]) -> st.SearchStrategy[bytes]:
    """Files made of a good one by cutting, repeating and inserting, and some of any bytes."""
    pieces = [b"", b"\n", b"\r\n", b"\r", b",", b'"', b'""', b"\x00", b"\xff", b"\xef\xbb\xbf", b"\t", b";"]
    pieces += [b"\xe2\x80\xa8"]  # a line separator, which ends no line
    pieces += [word.encode("utf-8", "surrogatepass") for word in WORDS] + texts
    return st.builds(
        lambda text, cuts, inserted: b"".join(
            part for one, piece in zip(split_at(text, cuts), inserted, strict=False) for part in (one, piece)
        ),
        st.sampled_from(texts),
        st.lists(st.integers(0, 400), max_size=6),
        st.lists(st.sampled_from(pieces) | st.binary(max_size=6), min_size=7, max_size=7),
    ) | st.binary(max_size=60)


def split_at(text: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


INTERACTIONS = "user,item,timestamp\n"
INTERACTIONS += "".join(f"u{u},i{(u + t) % 6},{1000 + t}\n" for u in range(8) for t in range(6))
ITEMS = "item,title\n" + "".join(f"i{item},Film {item}\n" for item in range(6))


@both
def test_csv_files_of_interactions_and_items(count: int, tmp_path: Path) -> None:
    interactions, items = tmp_path / "interactions.csv", tmp_path / "items.csv"
    good = [INTERACTIONS.encode(), ITEMS.encode(), INTERACTIONS.replace(",", "\t").encode()]
    settings_of = st.fixed_dictionaries(
        {
            "missing_titles": st.sampled_from(["id", "refuse"]),
            "split": st.sampled_from(["user-holdout", "leave-one-out", "chronological"]),
            "columns": st.sampled_from(["", "user:a,item:b", "timestamp:user", "user:user", "x:y", ":", "title:"]),
            "k_core": st.sampled_from([0, 2, 100]),
        }
    )

    def tried(given: tuple[bytes, bytes, dict[str, Any]]) -> None:
        interactions.write_bytes(given[0])
        items.write_bytes(given[1])
        load_data(DataConfig(dataset="csv", interactions=str(interactions), items=str(items), **given[2]))

    fuzz(count, st.tuples(mutated(good[:1] + good[2:]), mutated(good[1:2]) | st.just(good[1]), settings_of), tried)


@both
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".jsonl.gz", ".parquet"])
def test_files_of_histories(count: int, kind: str, tmp_path: Path) -> None:
    rows = [{"user": "u1", "history": ["i1", "i2"], "k": 3}, {"user": "u2", "history": [], "exclude": ["i3"]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = b'user,history,k\nu1,"[""i1"", ""i2""]",3\nu2,"i1,i2",\nu3,,1\n'
    good = lines if "jsonl" in kind else table
    path = tmp_path / f"histories{kind}"

    def tried(content: bytes) -> None:
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") and len(content) % 5 else content)
        read_histories(str(path))

    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
        max_leaves=4,
    )
    names = st.sampled_from(["user", "history", "k", "exclude", "item", "row", "title"]) | words
    made = st.lists(st.dictionaries(names, values, max_size=4), max_size=4).map(
        lambda found: "".join(json.dumps(row) + "\n" for row in found).encode()
    )
    fuzz(count // 2, mutated([good]) | made, tried)


SPACE = """\
objective: val/ndcg_at_20
sampler: {name: tpe, startup_trials: 4}
pruner: {name: median, warmup_epochs: 2}
seeds: 2
fixed: {epochs: 3}
parameters:
  lam: {low: 0.0, high: 2.0}
  alpha: {low: 1e-3, high: 1.0, log: true}
  selection_policy: {choices: [all, random, coverage]}
  selection_fraction: {low: 0.1, high: 0.9, unless: {selection_policy: all}}
"""


@both
def test_search_spaces(count: int, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    bomb = b"a: &a [x, x]\nb: &b [*a, *a]\nparameters: {lam: {choices: *b}}\nobjective: val/mrr\n"
    endless = b"parameters: &p\n  lam: *p\nobjective: val/mrr\n"
    lines = [line.encode() + b"\n" for line in SPACE.splitlines()]
    shuffled = st.lists(st.sampled_from(lines), max_size=12).map(b"".join)

    def tried(content: bytes) -> None:
        path.write_bytes(content)
        read_space(path)

    fuzz(count, mutated([SPACE.encode(), bomb, endless]) | shuffled, tried)


IDS = tuple(f"i{item}" for item in range(12))
SHAPE = StudentShape("sasrec", 8, 0.1, 6, "tied", {"blocks": 1, "heads": 1})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import mlflow

    folder, before = tmp_path_factory.mktemp("store"), mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RECDISTILL_CACHE", str(folder / "cache"))
        mlflow.set_tracking_uri(new_store(folder))
        run_id = MlflowClient().create_run("0").info.run_id
        torch.manual_seed(0)
        catalogue = Catalogue(IDS, IDS, np.arange(len(IDS)))
        address = log_student_model(
            run_id, build_student(SHAPE, len(IDS)).eval(), SHAPE, catalogue=catalogue, exclude_seen=True
        )
        yield load_model(address)
        mlflow.set_tracking_uri(before)


ids = st.sampled_from([*IDS, " i1 ", "new", ""]) | words
cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ids,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ids, inner, max_size=2),
    max_leaves=5,
)
columns = st.sampled_from(["history", "k", "exclude"]) | words
rows = st.lists(st.dictionaries(columns, st.lists(ids, max_size=3) | cells, max_size=4), max_size=4)
requests_made = st.builds(
    lambda form, found: json.dumps({form: found}),
    st.sampled_from(["dataframe_records", "inputs", "instances", "dataframe_split", "x"]),
    rows | cells,
)


def status(answered: Callable[[], int]) -> int:
    """The HTTP status of an answer."""
    try:
        return answered()
    except MlflowException as error:
        return int(error.get_http_status_code())


@both
def test_requests_to_the_served_model(count: int, served: Any) -> None:
    """What is bad is answered with status 400 and a reason, as MLflow's server makes of such an error."""

    schema = served.metadata.get_input_schema()

    def tried(request: tuple[str, str]) -> None:
        body, content_type = request
        assert status(lambda: invocations(body, content_type, served, schema).status) in (200, 400, 415)

    good = json.dumps({"dataframe_records": [{"history": ["i1", "i2"], "k": 3}]})
    table = "history,k\n\"['i1']\",3\n"
    types = st.sampled_from(["application/json"] * 4 + ["text/csv", "text/plain", "application/xml; charset=x", ""])
    broken = mutated([good.encode(), table.encode()]).map(lambda text: text.decode("utf-8", "replace"))
    fuzz(count, st.tuples(requests_made | broken, types), tried)


@both
def test_rows_given_to_the_served_model(count: int, served: Any) -> None:
    def tried(found: list[dict[str, Any]]) -> None:
        try:
            table = pd.DataFrame(found)
        except UnicodeEncodeError:  # pandas holds no such name
            return
        assert status(lambda: 200 if len(served.predict(table)) == len(found) else 500) in (200, 400)

    fuzz(count, rows.filter(bool), tried)


def outputs(**changes: Any) -> TeacherOutputs:
    found = {
        "manifest": Manifest("f" * 64, "llm", 6, 4),
        "sample": torch.tensor([0, 2]),
        "ranking": torch.tensor([[0, 1], [2, 3]]),
        "distance": torch.tensor([[0.1, 0.2], [0.3, 0.4]]),
        "item_embedding": torch.zeros(6, 3),
    }
    return TeacherOutputs(**(found | changes))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@both
def test_manifests_of_teacher_outputs(count: int, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    write_teacher_outputs(folder, outputs())
    path = folder / "teacher_outputs.json"
    good = json.loads(path.read_text())
    names = st.sampled_from([*good, "files", "path"])
    values = json_values | st.sampled_from([10**18, 2**63, -1, "../../x", ["../x"], {"a": "../x"}, 1e300, True])

    def tried(given: dict[str, Any] | bytes) -> None:
        path.write_bytes(given if isinstance(given, bytes) else json.dumps(good | given).encode())
        found = read_teacher_outputs(folder, good["fingerprint"])
        assert found.manifest.num_items == 6
        if found.manifest.num_samples < 10**6:
            found.answers(2)

    fuzz(count, st.dictionaries(names, values, max_size=3) | mutated([json.dumps(good).encode()]), tried)


@both
def test_files_of_a_student_and_its_catalogue(count: int, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    save_recommender(folder, build_student(SHAPE, 12), SHAPE)
    (folder / "catalogue.json").write_text(
        json.dumps({"item_ids": list(IDS), "titles": list(IDS), "item_count": [1] * 12, "exclude_seen": True})
    )
    names = ("student.json", "student.safetensors", "catalogue.json")
    good = {name: (folder / name).read_bytes() for name in names}

    def tried(given: tuple[str, bytes]) -> None:
        name, content = given
        (folder / name).write_bytes(content)
        try:
            if name == "catalogue.json":
                read_catalogue(folder)
            else:
                load_recommender(folder)
        finally:
            (folder / name).write_bytes(good[name])

    changed = st.sampled_from(names[::2]).flatmap(
        lambda name: st.tuples(
            st.just(name),
            mutated([good[name]])
            | st.dictionaries(st.sampled_from(sorted(json.loads(good[name]))), json_values, max_size=2).map(
                lambda changes: json.dumps(json.loads(good[name]) | changes).encode()
            ),
        )
    )
    weights = st.tuples(st.just(names[1]), mutated([good[names[1]]]))
    fuzz(count, changed | weights, tried)


@both
def test_dllm2rec_s_teacher_files(count: int, tmp_path: Path) -> None:
    save_file({"embedding": torch.zeros(3, 2)}, tmp_path / EMBEDDING_FILES[1])
    table = b"0 1\n2 0\n"
    numbers = b"0.1 0.2\n0.3 0.4\n"

    def tried(given: tuple[bytes, bytes]) -> None:
        (tmp_path / RANKING_FILE).write_bytes(given[0])
        (tmp_path / DISTANCE_FILE).write_bytes(given[1])
        read_teacher_files(tmp_path, fingerprint="f", num_items=3, num_samples=2)

    fuzz(count // 2, st.tuples(mutated([table]), mutated([numbers]) | st.just(numbers)), tried)


def test_the_quick_suite_tries_at_least_five_hundred() -> None:
    kinds = {"halves": 5, "quarters": 1, "whole": 7}
    assert kinds["whole"] * QUICK + kinds["halves"] * QUICK // 2 + QUICK // 4 >= 500
