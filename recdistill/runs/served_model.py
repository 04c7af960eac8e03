"""A recommender as an MLflow model: logged, registered, loaded."""

import re
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PyFuncModel
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array
from tqdm import tqdm

from recdistill.data.catalogue import Catalogue
from recdistill.errors import InputError, one_line
from recdistill.runs.finished_runs import newest
from recdistill.runs.run import REUSED
from recdistill.runs.shipped_code import requirements, ship_code
from recdistill.students.build import save_recommender
from recdistill.students.catalogue_file import write_catalogue
from recdistill.students.recommender import Recommender
from recdistill.students.shape import StudentShape

MODEL = "model"
RUN_ID = re.compile("[0-9a-f]{32}")
ROWS = 10_000  # histories that a model is given at a time
SCRIPT = Path(__file__).with_name("student_model.py")
ITEMS = Array(DataType.string)
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            # Checked by the model itself. MLflow's check of Array(string) cuts every id of a list that holds a null
            # to one character, and takes as long as the model; its check of long refuses a null in single rows.
            ColSpec(AnyType(), "history"),
            ColSpec(AnyType(), "k", required=False),
            ColSpec(AnyType(), "exclude", required=False),
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
    run_id: str, model: Recommender, shape: StudentShape, *, catalogue: Catalogue, exclude_seen: bool
) -> str:
    """Log a fitted recommender as the model ``model`` of a run. Returns its address, ``models:/<id>``.

    Args:
        run_id: the run that fitted it.
        model: as fitted; an injected teacher is folded in.
        shape: its shape.
        catalogue: its items.
        exclude_seen: whether it was evaluated without the items of the history.

    Raises:
        InputError: the recommender is a user's, and its code lies in no file.
    """
    ids = catalogue.item_ids
    example = pd.DataFrame({"history": [list(ids[:3])], "k": [5], "exclude": [list(ids[3:4])]})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        save_recommender(folder, model, shape, fold=True)
        write_catalogue(folder, catalogue, exclude_seen)
        ship_code(folder, shape.student)
        logged = Model.log(
            None,
            mlflow.pyfunc,
            name=MODEL,
            run_id=run_id,
            python_model=str(SCRIPT),
            artifacts={"student": str(folder)},
            signature=SIGNATURE,
            input_example=example,
            pip_requirements=requirements(shape.student),
        )
    return logged.model_uri


def register_student(run_id: str, name: str) -> str:
    """Give a run's model a version under ``name`` in the model registry. Returns its address.

    A model that has a version there keeps it. Raises InputError, in one line, where the run keeps no model or the
    registry refuses the name.
    """
    outputs = mlflow.get_run(run_id).outputs
    models = [one.model_id for one in outputs.model_outputs] if outputs is not None else []
    if not models:
        raise InputError(f"register={name}: run {run_id} keeps no model; run its step again with force=true")
    try:
        known = MlflowClient().search_model_versions(f"run_id = '{run_id}'")
        version = next((one.version for one in known if one.name == name), None)
        version = version or mlflow.register_model(f"models:/{models[0]}", name).version
    except MlflowException as error:
        raise InputError(f"register={name}: {one_line(error.message)}") from None
    return f"models:/{name}/{version}"


def load_model(model: str) -> PyFuncModel:
    """A logged model, by the id of its run or its address; '' is that of the newest distill run.

    Addresses are MLflow's: ``runs:/<run id>/model``, ``models:/<name>/<version>``, ``models:/<id>`` or a folder.
    Raises InputError where there is none.
    """
    address = chosen = model or newest("distill")
    try:
        if RUN_ID.fullmatch(chosen):
            address = f"runs:/{mlflow.get_run(chosen).data.tags.get(REUSED, chosen)}/{MODEL}"
        return mlflow.pyfunc.load_model(address)
    except (MlflowException, OSError) as error:
        raise InputError(
            f"model={model}: no model at {address} ({one_line(error)}); give a run or a registered model"
        ) from None


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
        histories: column ``history``, and where given ``k`` and ``exclude``.

    Raises InputError, in one line, where the model refuses the rows.
    """
    given = histories[[name for name in ("history", "k", "exclude") if name in histories]]
    answers: list[pd.DataFrame] = []
    for begin in tqdm(range(0, len(given), ROWS), desc="recommend", disable=len(given) <= ROWS, leave=False):
        try:
            answers.append(pd.DataFrame(model.predict(given.iloc[begin : begin + ROWS].reset_index(drop=True))))
        except MlflowException as error:
            raise InputError(f"the model refuses the histories: {one_line(error.message, most=300)}") from None
    return pd.concat(answers, ignore_index=True)
