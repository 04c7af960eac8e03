"""The experiment that runs go to, what the UI makes of it, and the address that opens its runs best first.

MLflow's UI reads tags of the experiment: its kind (whether it opens on training runs or on traces), its primary
metric, its description, and saved views, ``mlflow.sharedViewState.KEY``, which an address opens by
``viewStateShareKey=KEY``. What is there already is left as it is.
"""

import json
import os
from contextlib import suppress

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from recdistill.runs.outbox import read
from recdistill.runs.tracking_store import tracking_address

EXPERIMENT = "recdistill"
DEFAULT_METRIC = "test/ndcg_at_20"
#: Variables by which a user names another experiment; `mlflow.set_experiment` sets the second.
NAMED_BY = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
KIND, PRIMARY_METRIC, NOTE = "mlflow.experimentKind", "mlflow.experiment.primaryMetric.name", "mlflow.note.content"
VIEW_KEY = "recdistill"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
VIEW_NAME = "HR and NDCG, best first"
COLUMNS = ("test/ndcg_at_20", "test/ndcg_at_10", "test/hr_at_20", "test/hr_at_10", "val/ndcg_at_20", "train_seconds")
#: Of `mlflow ui`, where it is given no other.
UI_ADDRESS = "http://127.0.0.1:5000"
DESCRIPTION = """\
Each run is a step of recdistill, named by what was asked of it: `main` is the whole path, with a table of its
recommenders; `backbone` runs are students without a teacher, `distill` runs learnt from the `teacher` run that their
tag names; a sweep's trials are nested in it.

**How to read them.** The saved view *HR and NDCG, best first* ranks them by NDCG@20 over the whole catalogue on test.
Choose by `val/`; `test/` is measured once, at the end of a run. Runs of other data (column *Dataset*) cannot be
compared. A difference between two runs of one seed may be luck: `recdistill compare` tests it. *Models* has students
and teachers; its chart view shows the metrics of each by the data set that they were measured on.
"""


def chosen_experiment() -> Experiment | None:
    """The experiment ``recdistill``, made where it is missing; None where an open run or the user names another.

    Raises what MLflow raises where the store cannot be used.
    """
    if mlflow.active_run() is not None or any(os.environ.get(name) for name in NAMED_BY):
        return None
    client = MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # Another process may make it at the same moment.
        with suppress(MlflowException):
            client.create_experiment(EXPERIMENT, tags=wanted_tags({}) | {NOTE: DESCRIPTION})
        found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        raise MlflowException(f"no experiment {EXPERIMENT} could be made")
    return found


def experiment_of_nested() -> str | None:
    """Id of the experiment that a run goes to which a step opens: that of the open run, else `chosen_experiment`."""
    active = mlflow.active_run()
    if active is not None:
        return str(active.info.experiment_id)
    found = chosen_experiment()
    return None if found is None else str(found.experiment_id)


def wanted_tags(present: dict[str, str]) -> dict[str, str]:
    """The tags that the UI reads and that an experiment with these lacks."""
    now = get_current_time_millis()
    view = json.dumps({"name": VIEW_NAME, "createdAt": now, "updatedAt": now, "state": json.dumps(view_state())})
    tags = {KIND: "custom_model_development", PRIMARY_METRIC: DEFAULT_METRIC, VIEW_TAG: view}
    return {name: value for name, value in tags.items() if name not in present}


def view_state() -> dict[str, object]:
    """What the UI keeps of a view of runs: the order and the columns, in its own words."""
    columns = [f"metrics.`{name}`" for name in COLUMNS]
    # In the order that they are shown: the UI puts attributes before them.
    columns.append("attributes.`Dataset`")
    return {
        "orderByKey": f"metrics.`{DEFAULT_METRIC}`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
    }


def describe_experiment(experiment: Experiment) -> None:
    """Give an experiment the tags that it lacks; a description only to ours.

    A store that does not let us is left as it is: the run matters more.
    """
    wanted = wanted_tags(experiment.tags)
    if experiment.name == EXPERIMENT and NOTE not in experiment.tags:
        wanted[NOTE] = DESCRIPTION
    client = MlflowClient()
    with suppress(MlflowException):
        for name, value in wanted.items():
            client.set_experiment_tag(experiment.experiment_id, name, value)


def runs_path(experiment_id: str) -> str:
    """The part of an address behind the UI's own that opens the experiment's training runs in the view."""
    return f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW_KEY}"


def models_path(experiment_id: str) -> str:
    """The part of an address that opens the experiment's models as charts of their metrics, by data set.

    The table of the page begins with other columns, and no address and no tag of MLflow 3.17 chooses them.
    """
    return f"/#/experiments/{experiment_id}/models?workflowType=machine_learning&viewMode=CHART"


def how_to_open(experiment_id: str) -> str:
    """How a person opens the runs: an address, and where no server is known the command that starts one."""
    uri = tracking_address()
    if uri.startswith(("http://", "https://")):
        return uri.rstrip("/") + runs_path(experiment_id)
    return f"mlflow ui --backend-store-uri {uri}, then {UI_ADDRESS}{runs_path(experiment_id)}"


def main() -> None:
    """Print the addresses at which ``mlflow ui`` on the default store shows runs and models of `EXPERIMENT`."""
    found = read(lambda: MlflowClient().get_experiment_by_name(EXPERIMENT))
    if found is None:
        print(f"no experiment {EXPERIMENT} yet: `make run` makes it", flush=True)
    else:
        print(f"runs, best first: {UI_ADDRESS}{runs_path(found.experiment_id)}", flush=True)
        print(f"models, their metrics as charts: {UI_ADDRESS}{models_path(found.experiment_id)}", flush=True)


if __name__ == "__main__":
    main()
