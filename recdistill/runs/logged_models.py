"""MLflow's logged models: what a student or teacher is beside its run, and how its metrics are linked to it.

A logged model has the name and the parameters of its run. A metric that names it and the data it was measured on is a
metric of the model, too: the UI's *Models* page compares them, and ``search_logged_models`` finds the best of a data
set. A model is told by a *mark*, unique text that whoever logs it makes, so that a write that is repeated finds its
model, and metrics can be written, or wait for a lost store, before anybody knows the id.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from recdistill.runs.outbox import post, read
from recdistill.runs.writes import Write

#: How MLflow's ids of logged models begin; no mark does.
ID = "m-"
#: Tag of a model: its mark.
MARK = "recdistill.write"
STUDENT_TYPE, TEACHER_TYPE = "student", "teacher"
#: What MLflow refuses in the name of a logged model, each as an underscore.
REFUSED = str.maketrans(dict.fromkeys("/:.%\"'", "_"))
#: Ids by mark, of the models that this process has made or found.
_ids: dict[str, str] = {}


def new_mark() -> str:
    """A mark that no other model has."""
    return uuid.uuid4().hex


def log_teacher(run_id: str, mark: str) -> None:
    """Log a run's teacher as a model; its files stay the run's artifacts."""
    post(Write("external_model", run_id, {"type": TEACHER_TYPE, "mark": mark}))


def send_external_model(client: MlflowClient, run_id: str, values: Mapping[str, Any], files: Path) -> None:
    """Log a model without files of its own. One that an earlier try made or began is finished."""
    run = client.get_run(run_id)
    begun = begun_model(client, run, values, {MLFLOW_MODEL_IS_EXTERNAL: "true"})
    link(client, run, begun)
    finish(client, begun)


def begun_model(
    client: MlflowClient, run: Run, values: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> LoggedModel:
    """The model of a run that carries the mark in ``values``; begun, with the run's parameters, where there is none."""
    found = marked_models(client, run, values["mark"])
    if found:
        return found[0]
    made = client.create_logged_model(
        run.info.experiment_id,
        name=model_name(run),
        source_run_id=run.info.run_id,
        tags={MARK: values["mark"], **(tags or {})},
        params=dict(run.data.params),
        model_type=values.get("type", STUDENT_TYPE),
    )
    _ids[values["mark"]] = made.model_id
    return made


def model_name(run: Run) -> str:
    """The name of a run as its model has it, such as ``sasrec distilled · lam 0_5 · seed 1``."""
    name: str = run.info.run_name or run.info.run_id
    return name.translate(REFUSED)


def link(client: MlflowClient, run: Run, model: LoggedModel) -> None:
    """Make a model an output of its run, where it is none."""
    linked = [] if run.outputs is None else [one.model_id for one in run.outputs.model_outputs]
    if model.model_id not in linked:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])


def finish(client: MlflowClient, model: LoggedModel) -> None:
    """Mark a model ready, where it is not."""
    if model.status != LoggedModelStatus.READY:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def marked_models(client: MlflowClient, run: Run, mark: str) -> list[LoggedModel]:
    """The models of a run that carry a mark, those too that were begun and not finished."""
    found = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'")
    marked = [one for one in found if one.tags.get(MARK) == mark]
    if marked:
        _ids[mark] = marked[0].model_id
    return marked


def model_id_of_run(run_id: str) -> str:
    """Id of the student or teacher that a finished run made; '' where it keeps none."""
    client = MlflowClient()
    found = read(lambda: model_of_run(client, client.get_run(run_id)))
    return "" if found is None else str(found.model_id)


def model_of_run(client: MlflowClient, run: Run) -> LoggedModel | None:
    """The student or teacher that a finished run made; None where it keeps none."""
    for one in [] if run.outputs is None else run.outputs.model_outputs:
        found = client.get_logged_model(one.model_id)
        if found.status == LoggedModelStatus.READY:
            return found
    return None


def model_id_of(client: MlflowClient, run_id: str, mark: str) -> str | None:
    """Id of the model that carries a mark; None where the store has none, or no mark is given.

    An id in place of a mark is that of a model of another run.
    """
    if mark.startswith(ID):
        return mark
    if mark and mark not in _ids:
        marked_models(client, client.get_run(run_id), mark)
    return _ids.get(mark)
