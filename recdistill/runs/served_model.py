"""A recommender as an MLflow model: logged, registered, loaded."""

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError, one_line
from recdistill.runs.artifacts import copies
from recdistill.runs.finished_runs import newest, run_of
from recdistill.runs.logged_models import STUDENT_TYPE, begun_model, finish, link, model_id_of, model_of_run, new_mark
from recdistill.runs.outbox import outbox, post, read
from recdistill.runs.registry import asking_registry
from recdistill.runs.run import REUSED, TERMS
from recdistill.runs.shipped_code import requirements, ship_code
from recdistill.runs.tracking_store import reason_of
from recdistill.runs.writes import Write
from recdistill.students.kept_student import Beside, write_student
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape

#: Artifact of a run that leads to its model, see `student_address`; of older runs, the name of the model itself.
MODEL = "model"
STUDENT = "student"
#: In a student's folder: the terms of the language models that it was made with; missing where none has an alias.
RUN_ID = re.compile("[0-9a-f]{32}")
#: A run that keeps a model, by its id or as MLflow writes it.
OF_RUN = re.compile(f"(?:runs:/)?({RUN_ID.pattern})(?:/{MODEL})?")
ROWS = 10_000  # histories that a model is given at a time
SCRIPT = Path(__file__).with_name("student_model.py")
ADDRESS_SCRIPT = Path(__file__).with_name("student_address.py")
ITEMS = Array(DataType.string)
#: Columns that a model reads.
READ = ("history", "k", "exclude", "allowed_items")
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            # Checked by the model itself. MLflow's check of Array(string) cuts every id of a list that holds a null
            # to one character, and takes as long as the model; its check of long refuses a null in single rows.
            ColSpec(AnyType(), "history"),
            ColSpec(AnyType(), "k", required=False),
            ColSpec(AnyType(), "exclude", required=False),
            ColSpec(AnyType(), "allowed_items", required=False),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(ITEMS, "items"),
            ColSpec(ITEMS, "titles"),
            ColSpec(Array(DataType.double), "scores"),
            ColSpec(DataType.long, "unknown_items"),
            ColSpec(DataType.boolean, "fallback"),
        ]
    ),
)


def log_student_model(
    run_id: str,
    model: Recommender,
    shape: StudentShape,
    *,
    catalogue: Catalogue,
    exclude_seen: bool,
    beside: Beside | None = None,
    terms: str = "",
    mark: str = "",
) -> str:
    """Log a fitted recommender as the model of a run, by whose name it is called.

    Returns its address: ``models:/<id>``, or ``runs:/<run id>/model`` while the tracking store does not take it.

    Args:
        run_id: the run that fitted it.
        model: as fitted; an injected teacher is folded in.
        shape: its shape.
        catalogue: its items.
        exclude_seen: whether it was evaluated without the items of the history.
        beside: writes further files into the student's folder.
        terms: of the language models that it was made with; see `write_terms`.
        mark: by which metrics that are logged behind it name it, see `logged_models`; '' where none are.

    Raises:
        InputError: the recommender is a user's, and its code lies in no file.
    """
    ids = catalogue.item_ids
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_student(
            folder / STUDENT, model, shape, catalogue=catalogue, exclude_seen=exclude_seen, beside=beside, terms=terms
        )
        ship_code(folder / STUDENT, shape.student)
        example = {"history": [list(ids[:3])], "k": [5], "exclude": [list(ids[3:4])]}
        mark = mark or new_mark()
        values = {"requirements": requirements(shape.student), "example": example, "mark": mark, "terms": terms}
        post(Write("model", run_id, values), folder)
    if outbox().waits_for(run_id):
        return f"runs:/{run_id}/{MODEL}"
    return f"models:/{read(lambda: model_id_of(MlflowClient(), run_id, mark))}"


def send_model(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log the recommender in ``files/student`` as a model of a run.

    One that an earlier try made is left, and one that it began is finished: there is one in the end.
    """
    run = client.get_run(run_id)
    begun = begun_model(client, run, values, tags_of_terms(values.get("terms", "")))
    if begun.status == LoggedModelStatus.READY:
        return
    saved: dict[str, Any] = {
        "python_model": str(SCRIPT),
        "artifacts": {"student": str(files / STUDENT)},
        "signature": SIGNATURE,
        "input_example": pd.DataFrame(values["example"]),
        "pip_requirements": values["requirements"],
    }
    link(client, run, begun)
    save_files(begun, run_id, saved)
    save_address(client, begun, run_id, saved)
    finish(client, begun)


def tags_of_terms(terms: str) -> dict[str, str]:
    """The tag that names the terms; none where there are none."""
    return {TERMS: terms} if terms else {}


def save_files(model: LoggedModel, run_id: str, saved: Mapping[str, Any]) -> None:
    """Write the files of a model into the store.

    MLflow's own ``Model.log`` asks for the history of every metric of the run, a request each, to link those that were
    logged before the model; ours are logged behind it.
    """
    model_id = model.model_id
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        described = Model(artifact_path=model.artifact_location, model_uuid=model_id, run_id=run_id, model_id=model_id)
        mlflow.pyfunc.save_model(folder, mlflow_model=described, **saved)
        MlflowClient().log_model_artifacts(model_id, str(folder))


def save_address(client: MlflowClient, model: LoggedModel, run_id: str, saved: Mapping[str, Any]) -> None:
    """Keep as a run's artifact what leads from ``runs:/<run id>/model`` to its model, see `student_address`."""
    leads = {"python_model": str(ADDRESS_SCRIPT), "artifacts": None, "model_config": {"model": model.model_uri}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / MODEL
        mlflow.pyfunc.save_model(folder, mlflow_model=Model(artifact_path=MODEL, run_id=run_id), **{**saved, **leads})
        client.log_artifacts(run_id, str(folder), MODEL)


def register_student(run_id: str, name: str) -> str:
    """Give a run's model a version under ``name`` in the model registry. Returns its address.

    A model that has a version there keeps it. Raises InputError, in one line, where the run keeps no model or the
    registry refuses the name.
    """
    run = run_of(run_id)
    outputs = run.outputs
    models = [one.model_id for one in outputs.model_outputs] if outputs is not None else []
    if not models:
        raise InputError(f"register={name}: run {run_id} keeps no model; run its step again with force=true")
    with asking_registry(f"register={name}"):
        known = MlflowClient().search_model_versions(f"run_id = '{run_id}'")
        version = next((one.version for one in known if one.name == name), None)
        if version is None:
            tags = tags_of_terms(run.data.tags.get(TERMS, ""))
            version = mlflow.register_model(f"models:/{models[0]}", name, tags=tags).version
    return f"models:/{name}/{version}"


def load_model(model: str) -> PyFuncModel:
    """A logged model, by the id of its run or its address; '' is that of the newest distill run.

    Addresses are MLflow's: ``runs:/<run id>/model``, ``models:/<name>/<version>``, ``models:/<id>`` or a folder.
    Raises InputError where there is none.
    """
    found: PyFuncModel = _fetched(model or newest("distill"), mlflow.pyfunc.load_model)
    return found


def student_folder(model: str) -> tuple[Path, str]:
    """A copy of a logged model's student, as `log_student_model` wrote it, and the model's own address.

    Takes an address as `load_model` does. Raises InputError where there is no model, or none of a student.
    """
    place = tempfile.mkdtemp(dir=copies().name)
    folder = Path(_fetched(model, lambda one: mlflow.artifacts.download_artifacts(artifact_uri=one, dst_path=place)))
    described = Model.load(str(folder))
    leads_to = described.flavors["python_function"].get("config", {}).get("model") if described.flavors else None
    if leads_to:
        return student_folder(leads_to)
    student = folder / "artifacts" / STUDENT
    if not student.is_dir():
        raise InputError(f"model={model}: is no student's model; give one that map_items or add_items logged")
    return student, f"models:/{described.model_id or described.model_uuid}"


def _fetched(model: str, fetch: Callable[[str], Any]) -> Any:
    """What ``fetch`` gives for a model's address. Raises InputError where there is none."""
    address = model
    try:
        if of_run := OF_RUN.fullmatch(model):
            address = address_in(run_of(of_run[1]))
        return read(lambda: fetch(address))
    except (MlflowException, OSError, SQLAlchemyError) as error:
        raise InputError(
            f"model={model}: no model at {address} ({reason_of(error)}); give a run or a registered model"
        ) from None


def address_in(run: Run) -> str:
    """The address of a run's student; as older versions had it where the run has none."""
    if REUSED in run.data.tags:
        run = run_of(run.data.tags[REUSED])
    found = read(lambda: model_of_run(MlflowClient(), run))
    if found is None or found.model_type != STUDENT_TYPE:
        return f"runs:/{run.info.run_id}/{MODEL}"
    address: str = found.model_uri
    return address


def address_of(model: PyFuncModel) -> str:
    """What tells a loaded model from every other one."""
    return f"models:/{model.metadata.model_id or model.metadata.model_uuid}"


def example_items(model: PyFuncModel) -> list[str]:
    """Ids of items that a loaded model knows: those that it recommends to someone without a history."""
    answer = pd.DataFrame(model.predict(pd.DataFrame({"history": [[]], "k": [100]})))
    return [str(item) for item in answer["items"][0]]


def recommendations(model: PyFuncModel, histories: pd.DataFrame) -> pd.DataFrame:
    """The model's answer to each row, a bounded number of rows at a time; see `student_model`.

    Args:
        model: of `load_model`.
        histories: column ``history``, and where given those of `READ`.

    Raises InputError, in one line, where the model refuses the rows, or is of before a column was read.
    """
    given = histories[[name for name in READ if name in histories]]
    signature = model.metadata.signature
    takes = signature.inputs.input_names() if signature is not None and signature.inputs is not None else READ
    if unread := [name for name in given if name not in takes]:
        raise InputError(f"the model does not read {unread[0]}: it is of an earlier version; log it again")
    answers: list[pd.DataFrame] = []
    for begin in tqdm(range(0, len(given), ROWS), desc="recommend", disable=len(given) <= ROWS, leave=False):
        try:
            answers.append(pd.DataFrame(model.predict(given.iloc[begin : begin + ROWS].reset_index(drop=True))))
        except MlflowException as error:
            raise InputError(f"the model refuses the histories: {one_line(error.message, most=300)}") from None
    return pd.concat(answers, ignore_index=True)
