import importlib.metadata
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server import invocations
from mlflow.tracking import MlflowClient

from recdistill.data.catalogue import Catalogue
from recdistill.data.pinned_models import terms_of
from recdistill.errors import InputError
from recdistill.registry import STUDENTS
from recdistill.runs.provenance import PACKAGE
from recdistill.runs.run import StepRun
from recdistill.runs.served_model import (
    address_of,
    load_model,
    log_student_model,
    recommendations,
    register_student,
    student_folder,
)
from recdistill.runs.shipped_code import REQUIRED, requirements
from recdistill.students import build
from recdistill.students.build import StudentShape, build_recommender, build_student
from recdistill.students.serving import ItemRecommender
from recdistill.students.terms_file import terms_of_student

NUM_ITEMS = 30
SHAPE = StudentShape("sasrec", 8, 0.1, 6, "tied", {"blocks": 1, "heads": 1})
# Longer than one character, and with a title that is no ASCII.
IDS = [f"item-{item}" for item in range(NUM_ITEMS)]
TITLES = [f"Amélie {item}" for item in range(NUM_ITEMS)]
COUNTS = list(range(NUM_ITEMS))
CATALOGUE = Catalogue(tuple(IDS), tuple(TITLES), np.array(COUNTS))
HISTORIES = [["item-3", "item-4"], ["item-9", "new"], []]


def student(ed_weight: float = 0.0):
    torch.manual_seed(0)
    teacher = torch.randn(NUM_ITEMS, 12)
    model = build_student(SHAPE, NUM_ITEMS, teacher, ed_weight)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
        model.items.embedding.weight[NUM_ITEMS] = 0
    return model.eval()


def log(client: MlflowClient, model=None, shape: StudentShape = SHAPE, terms: str = "") -> tuple[str, str]:
    """Id of a new finished distill run and the address of its model."""
    run_name = "sasrec distilled · lam 0.5"
    run_id = client.create_run("0", run_name=run_name, tags={"recdistill.step": "distill"}).info.run_id
    StepRun(run_id, "", "", reused=False).tag_terms(terms)
    address = log_student_model(run_id, model or student(), shape, catalogue=CATALOGUE, exclude_seen=True, terms=terms)
    client.set_terminated(run_id)
    return run_id, address


@pytest.fixture(scope="module")
def logged(client: MlflowClient) -> tuple[str, str]:
    return log(client)


#: A model of another kind.
AS_IT_IS = """\
from mlflow.models import set_model


def as_it_is(model_input: list[str]) -> list[str]:
    return model_input


set_model(as_it_is)
"""


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"history": HISTORIES} | columns)


def test_a_request_may_list_the_allowed_items(logged):
    model, allowed = load_model(logged[0]), [["item-1", "item-7", "nowhere"], None, ["item-2"]]
    found = model.predict(frame(k=[4, 4, 4], allowed_items=allowed))
    expected = ItemRecommender(student(), IDS, COUNTS).recommend(HISTORIES, [4] * 3, [[], [], []], allowed)
    assert found["items"].tolist() == [[IDS[item] for item in answer.items] for answer in expected]
    assert sorted(found["items"][0]) == ["item-1", "item-7"]
    assert len(found["items"][1]) == 4
    assert found["items"][2] == ["item-2"]
    with pytest.raises(MlflowException, match="row 0: allowed_items is 'item-1'"):
        model.predict(frame(allowed_items=["item-1", None, None]))


def test_a_model_of_before_does_not_ignore_the_allowed_items(logged, monkeypatch):
    model = load_model(logged[0])
    inputs = [one for one in model.metadata.signature.inputs.inputs if one.name != "allowed_items"]
    monkeypatch.setattr(model.metadata.signature, "inputs", type(model.metadata.signature.inputs)(inputs))
    with pytest.raises(InputError, match="the model does not read allowed_items"):
        recommendations(model, frame(allowed_items=[["item-1"]] * 3))


def test_the_loaded_model_gives_what_the_student_gives(logged):
    found = load_model(logged[0]).predict(frame(k=[4, 4, 4], exclude=[["item-1"], [], ["item-29"]]))
    expected = ItemRecommender(student(), IDS, COUNTS).recommend(HISTORIES, [4] * 3, [["item-1"], [], ["item-29"]])
    assert found["items"].tolist() == [[IDS[item] for item in answer.items] for answer in expected]
    assert found["titles"].tolist() == [[TITLES[item] for item in answer.items] for answer in expected]
    for scores, answer in zip(found["scores"], expected, strict=True):
        assert scores == pytest.approx(answer.scores, abs=1e-6)
    assert found["unknown_items"].tolist() == [0, 1, 0]
    assert found["fallback"].tolist() == [False, False, True]


def test_a_distilled_student_needs_no_teacher_to_be_served(client):
    model = student(ed_weight=0.4)
    _, address = log(client, model)
    found = load_model(address).predict(frame())
    expected = ItemRecommender(model, IDS, COUNTS).recommend(HISTORIES[:1], [10], [[]])
    assert found["items"][0] == [IDS[item] for item in expected[0].items]


def test_ten_items_where_no_k_is_given_and_nulls_are_none(logged):
    model = load_model(logged[1])
    assert model.predict(frame())["items"].map(len).tolist() == [10, 10, 10]
    some = model.predict(frame(k=[3, None, np.nan], exclude=[None, [], ["item-29"]]))
    assert some["items"].map(len).tolist() == [3, 10, 10]
    assert some["items"][2][0] == "item-28"


def test_the_run_the_registry_and_the_id_lead_to_one_model(client, logged):
    assert register_student(logged[0], "film-student") == "models:/film-student/1"
    addresses = (logged[0], logged[1], "models:/film-student/1", f"runs:/{logged[0]}/model")
    assert {address_of(load_model(name)) for name in addresses} == {logged[1]}
    assert {student_folder(name)[1] for name in addresses} == {logged[1]}
    reused = client.create_run("0", tags={"recdistill.step": "distill", "recdistill.reused_run_id": logged[0]})
    client.set_terminated(reused.info.run_id)
    assert address_of(load_model("")) == logged[1]


def test_mlflow_itself_finds_the_model_where_it_was_before_it_had_a_name(client, logged):
    assert client.get_logged_model(logged[1].removeprefix("models:/")).name == "sasrec distilled · lam 0_5"
    expected = load_model(logged[1]).predict(frame())
    of_run = mlflow.pyfunc.load_model(f"runs:/{logged[0]}/model")
    pd.testing.assert_frame_equal(of_run.predict(frame()), expected)
    # What is registered by that address leads on, too.
    mlflow.register_model(f"runs:/{logged[0]}/model", "by hand")
    assert student_folder("models:/by hand/1")[1] == logged[1]
    pd.testing.assert_frame_equal(load_model("models:/by hand/1").predict(frame()), expected)


def test_a_model_that_an_older_version_called_model_is_found_by_its_run(client, tmp_path):
    (tmp_path / "as_it_is.py").write_text(AS_IT_IS)
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(name="model", python_model=str(tmp_path / "as_it_is.py"), pip_requirements=["mlflow"])
    for name in (run.info.run_id, f"runs:/{run.info.run_id}/model"):
        assert load_model(name).predict(["a"]) == ["a"]
    client.delete_run(run.info.run_id)


def test_a_model_is_registered_once_and_another_is_the_next_version(client, logged):
    assert register_student(logged[0], "films") == "models:/films/1"
    assert register_student(logged[0], "films") == "models:/films/1"
    other, address = log(client)
    assert register_student(other, "films") == "models:/films/2"
    assert address_of(load_model("models:/films/2")) == address
    client.delete_run(other)


@pytest.mark.parametrize("terms", ["", terms_of("gemma3-270m")])
def test_the_terms_of_language_models_stand_on_the_model_its_version_and_in_its_folder(client, terms):
    run_id, address = log(client, terms=terms)
    expected = {"recdistill.terms": terms} if terms else {}
    name = "with terms" if terms else "without"
    version = client.get_model_version(name, register_student(run_id, name).rpartition("/")[2])
    model = client.get_logged_model(address.removeprefix("models:/"))
    for tags in (client.get_run(run_id).data.tags, model.tags, version.tags):
        assert {name: text for name, text in tags.items() if name == "recdistill.terms"} == expected
    assert terms_of_student(student_folder(address)[0]) == terms
    client.delete_run(run_id)


def test_what_cannot_be_registered_is_one_line(client, logged):
    bare = client.create_run("0").info.run_id
    for run_id, name, said in ((bare, "films", "keeps no model"), (logged[0], "a/b:c", "register=a/b:c: ")):
        with pytest.raises(InputError, match=said) as caught:
            register_student(run_id, name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["0" * 32, "models:/nothing/1", "runs:/nothing/model", "/no/such/folder"])
def test_a_model_that_is_not_there_is_one_line(client, logged, model):
    with pytest.raises(InputError, match=f"model={model}: no model at") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


def test_the_model_says_what_it_needs_and_takes(logged):
    needed = requirements("sasrec")
    assert [line.partition("==")[0] for line in needed] == list(REQUIRED)
    assert not any("+" in line for line in needed)
    info = mlflow.models.get_model_info(logged[1])
    assert info.signature.inputs.input_names() == ["history", "k", "exclude", "allowed_items"]
    assert info.signature.inputs.required_input_names() == ["history"]
    assert info.signature.outputs.input_names() == ["items", "titles", "scores", "unknown_items", "fallback"]
    folder = Path(mlflow.artifacts.download_artifacts(logged[1]))
    assert (folder / "requirements.txt").read_text().split() == needed
    assert (folder / "input_example.json").is_file()
    assert not list(folder.rglob("*.pkl"))


def test_loading_leaves_the_installed_package_alone(logged):
    before, path = dict(sys.modules), list(sys.path)
    loaded = mlflow.pyfunc.load_model(logged[1])
    assert {name: module for name, module in sys.modules.items() if name.startswith("recdistill")} == {
        name: module for name, module in before.items() if name.startswith("recdistill")
    }
    assert sys.modules["recdistill.students.build"] is build
    assert sys.path == path
    own = type(loaded.unwrap_python_model().recommender)
    assert own is not ItemRecommender
    assert own.__name__ == "ItemRecommender"


WITHOUT_PACKAGE = """
import importlib.abc, importlib.util, json, sys
import pandas as pd

sys.meta_path[:] = [finder for finder in sys.meta_path if "recdistill" not in getattr(finder, "__module__", "")]
sys.path[:] = [folder for folder in sys.path if folder not in ("", sys.argv[3])]
assert importlib.util.find_spec("recdistill") is None
import mlflow

model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.DataFrame({"history": json.loads(sys.argv[2])}))
assert importlib.util.find_spec("recdistill") is None
print(found.to_json(orient="columns"))
"""


@pytest.mark.slow
def test_the_model_runs_where_the_package_is_not_installed(logged, tmp_path):
    folder = mlflow.artifacts.download_artifacts(logged[1])
    command = [sys.executable, "-c", WITHOUT_PACKAGE, folder, json.dumps(HISTORIES), str(PACKAGE.parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    here = load_model(logged[1]).predict(frame())
    assert list(found["items"].values()) == here["items"].tolist()
    assert list(found["titles"].values()) == here["titles"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDENTS.names())
def test_every_recommender_runs_where_the_package_is_not_installed(client, tmp_path, name):
    shape = StudentShape(name, 8, 0.1, 6, "tied")
    torch.manual_seed(3)
    model = build_recommender(shape, NUM_ITEMS).eval()
    with torch.no_grad():
        # Closed-form ones are built with zeros; whatever they then hold must arrive.
        for values in model.state_dict().values():
            if values.is_floating_point():
                values += 0.3 * torch.randn(values.shape)
    run_id, address = log(client, model, shape)
    folder = mlflow.artifacts.download_artifacts(address)
    command = [sys.executable, "-c", WITHOUT_PACKAGE, folder, json.dumps(HISTORIES), str(PACKAGE.parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = ItemRecommender(model, IDS, COUNTS).recommend(HISTORIES, [10] * 3, [[]] * 3)
    assert list(found["items"].values()) == [[IDS[item] for item in answer.items] for answer in expected]
    client.delete_run(run_id)


PLUGIN = """
from dataclasses import dataclass

import packaging.version
import torch

import bias_of_{name}
from recdistill import STUDENTS, option
from recdistill.distillation.selection import SelectionSignals
from recdistill.students.recommender import ClosedForm


@dataclass(frozen=True, kw_only=True)
class LastOptions:
    boost: float = option(1.0, "score of the item after the last one")


@STUDENTS.register("{name}", options=LastOptions, gradient=False)
class Last(ClosedForm):
    def __init__(self, num_items, max_length, options):
        super().__init__(num_items, max_length, options)
        self.boost = options.boost
        self.register_buffer("bias", torch.zeros(num_items))

    @classmethod
    def fit(cls, data, options, seed):
        raise AssertionError("not called here")

    def scores(self, history, length):
        last = history[torch.arange(len(history)), length - 1]
        scores = self.bias.repeat(len(history), 1) + bias_of_{name}.BIAS
        scores[torch.arange(len(history)), (last + 1) % self.num_items] += self.boost
        return scores
"""


@pytest.fixture
def plugin_name(tmp_path, monkeypatch):
    """A recommender of the user's own, in a file beside another that it imports."""
    known = dict(STUDENTS._known())
    monkeypatch.setattr(STUDENTS, "_declared", known)
    name = "last_one"
    (tmp_path / f"bias_of_{name}.py").write_text("BIAS = 2.0\n")
    (tmp_path / "not_imported.py").write_text("BIAS = 2.0\n")
    (tmp_path / "my_student.py").write_text(PLUGIN.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    __import__("my_student")
    yield name
    for module in ("my_student", f"bias_of_{name}"):
        sys.modules.pop(module)


@pytest.mark.slow
def test_a_users_recommender_brings_its_own_file(client, plugin_name, tmp_path):
    shape = StudentShape(plugin_name, 8, 0.1, 6, "tied", {"boost": 3.0})
    run_id, address = log(client, build_recommender(shape, NUM_ITEMS), shape)
    folder = Path(mlflow.artifacts.download_artifacts(address))
    code = folder / "artifacts" / "student" / "code"
    assert {path.name for path in code.iterdir()} == {"recdistill", "my_student.py", f"bias_of_{plugin_name}.py"}
    needed = (folder / "requirements.txt").read_text()
    assert f"packaging=={importlib.metadata.version('packaging')}" in needed
    assert "recdistill" not in needed
    mine = sys.modules["my_student"]
    here = load_model(address).predict(frame(k=[2, 2, 2]))
    assert [items[0] for items in here["items"][:2]] == ["item-5", "item-10"]
    assert here["scores"].tolist()[0] == [5.0, 2.0]
    assert sys.modules["my_student"] is mine
    # Neither its module nor the package is there.
    for file in tmp_path.glob("*.py"):
        file.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-c", WITHOUT_PACKAGE, folder, json.dumps(HISTORIES), str(PACKAGE.parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["items"]["0"][0] == "item-5"
    client.delete_run(run_id)


def ask(model, body, content_type: str = "application/json") -> dict:
    """What the scoring server answers."""
    text = body if isinstance(body, str) else json.dumps(body)
    answered = invocations(text, content_type, model, model.metadata.get_input_schema())
    assert answered.status == 200
    return json.loads(answered.response)


def test_a_good_request_is_answered_in_either_json_form(logged):
    model = load_model(logged[1])
    records = ask(model, {"dataframe_records": [{"history": HISTORIES[0], "k": 2}, {"history": []}]})["predictions"]
    split = ask(model, {"dataframe_split": {"columns": ["history", "k"], "data": [[HISTORIES[0], 2], [[], None]]}})
    assert records == split["predictions"]
    assert [len(row["items"]) for row in records] == [2, 10]
    assert records[1]["fallback"] is True


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("history,k\nitem-3|item-4,2\n[],\n", [{"history": HISTORIES[0], "k": 2}, {"history": []}]),
        ('history,k\r\n"item-3, item-4",2\r\n"[]",\r\n', [{"history": HISTORIES[0], "k": 2}, {"history": []}]),
        ('\ufeffhistory\n"[""item-3"", ""item-4""]"\n\n', [{"history": HISTORIES[0]}]),
        ("history\nitem-3,item-4\nitem-9\n", [{"history": HISTORIES[0]}, {"history": ["item-9"]}]),
        ("exclude,history\nitem-1|item-2,item-3\n,item-9\n",
         [{"history": ["item-3"], "exclude": ["item-1", "item-2"]}, {"history": ["item-9"]}]),
        ('history\nitem-3|item-4\n""\nitem-9\n', [{"history": HISTORIES[0]}, {"history": []}, {"history": ["item-9"]}]),
        ("history,k\nitem-3|item-4,2\n,\nitem-9,2\n",
         [{"history": HISTORIES[0], "k": 2}, {"history": []}, {"history": ["item-9"], "k": 2}]),
    ],
)  # fmt: skip
def test_csv_is_answered_as_the_same_rows_in_json(logged, text, same):
    model = load_model(logged[1])
    answered = invocations(text, "text/csv", model, model.metadata.get_input_schema())
    assert answered.status == 200
    assert json.loads(answered.response) == ask(model, {"dataframe_records": same})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Failed to enforce schema"),
        ("items\nitem-3\n", "missing inputs"),
        ("history,k\nitem-3,item-4,2\n", "row 0: has 3 fields, the header 2; quote lists of ids"),
        ('history,k\n"item-3\n', "text/csv: unexpected end of data"),
        ("history,k\n[item-3],2\n", "row 0: history is '[item-3]'; write a list as JSON does"),
        ("history,k\nitem-3,ten\n", "row 0: k is"),
    ],
)
def test_csv_that_is_refused(logged, text, said):
    model = load_model(logged[1])
    with pytest.raises(MlflowException, match=re.escape(said)):
        invocations(text, "text/csv", model, model.metadata.get_input_schema())


def test_csv_for_another_model_is_read_as_before(logged):
    load_model(logged[1])
    assert scoring_server.parse_csv_input(io.StringIO("a,b\n1,x\n")).to_dict("records") == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"history": "item-3"}, "row 0: history is 'item-3'; give a list of item ids"),
        ({"history": None}, "row 0: history is None"),
        ({"history": [3, 4]}, "row 0: history holds an id that is no text"),
        ({"history": ["item-3", None]}, "row 0: history holds an id that is no text"),
        ({"history": ["item-3"], "k": 0}, "row 0: k is 0; give a whole number"),
        ({"history": ["item-3"], "k": 1.5}, "row 0: k is 1.5"),
        ({"history": ["item-3"], "k": "ten"}, "row 0: k is ten"),
        ({"history": ["item-3"], "k": True}, "row 0: k is True"),
        ({"history": ["item-3"], "exclude": "item-4"}, "row 0: exclude is 'item-4'"),
        ({"items": ["item-3"]}, "missing inputs"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(logged, row, said):
    with pytest.raises(MlflowException, match=said) as caught:
        ask(load_model(logged[1]), {"dataframe_records": [row]})
    assert caught.value.get_http_status_code() == 400


def test_what_the_model_refuses_is_an_input_error_of_one_line(logged):
    with pytest.raises(InputError, match=r"the model refuses the histories: .*k is 0") as caught:
        recommendations(load_model(logged[1]), frame(k=[1, 0, 1]))
    assert "\n" not in str(caught.value)


def test_batches_of_rows_do_not_matter(logged, monkeypatch):
    model = load_model(logged[1])
    whole = recommendations(model, frame(user=["a", "b", "c"]))
    monkeypatch.setattr("recdistill.runs.served_model.ROWS", 2)
    assert recommendations(model, frame()).equals(whole)


@pytest.mark.slow
def test_a_real_server_answers_good_and_bad_requests(logged):
    sys.path.insert(0, str(PACKAGE.parent / "benchmarks"))
    try:
        from serving import served
    finally:
        sys.path.pop(0)
    with served(logged[1]) as address:
        good = requests.post(address, json={"dataframe_records": [{"history": HISTORIES[0], "k": 3}]}, timeout=60)
        bad = requests.post(address, json={"dataframe_records": [{"history": HISTORIES[0], "k": 0}]}, timeout=60)
        broken = requests.post(address, data="{", headers={"content-type": "application/json"}, timeout=60)
    assert good.status_code == 200
    assert good.json()["predictions"][0]["items"] == load_model(logged[1]).predict(frame(k=[3] * 3))["items"][0]
    assert (bad.status_code, broken.status_code) == (400, 400)
    assert "k is 0" in bad.json()["message"]


CLEAN = """
import importlib.util, json, sys
import mlflow, pandas as pd

assert importlib.util.find_spec("recdistill") is None
found = mlflow.pyfunc.load_model(sys.argv[1]).predict(pd.DataFrame({"history": json.loads(sys.argv[2])}))
print(found.to_json(orient="columns"))
"""


@pytest.mark.slow
def test_a_clean_environment_of_its_own_requirements_gives_the_same(logged, tmp_path):
    folder = mlflow.artifacts.download_artifacts(logged[1])
    python = tmp_path / "environment" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", tmp_path / "environment"],
        [python, "-m", "pip", "install", "--quiet", "-r", f"{folder}/requirements.txt"],
        [python, "-I", "-c", CLEAN, folder, json.dumps(HISTORIES)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=1800)
        assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    here = load_model(logged[1]).predict(frame())
    assert list(found["items"].values()) == here["items"].tolist()
    assert [score for row in found["scores"].values() for score in row] == pytest.approx(here["scores"].sum(), abs=1e-5)
