"""``python -m recdistill STEP --name value``: from a step's name to its options and function."""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

try:
    from recdistill.config.command_line import parse
    from recdistill.config import STEPS
    from recdistill.errors import InputError
except ModuleNotFoundError as error:
    # `mlflow run --env-manager local` takes the first python on the PATH.
    sys.exit(f"recdistill: {sys.executable} has no {error.name}; activate the environment it is installed in, as .venv")

# Read when torch loads: threads that spin while they wait make each other many times slower where cores are shared;
# a few microseconds of it spare the small students most of the waking up.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# The steps that ``accelerate launch`` and torchrun may start in several processes.
LAUNCHED = ("teacher",)
GRACE_SECONDS = 60.0
USAGE = "usage: recdistill STEP --name value ...; recdistill STEP --help lists a step's options"


def function_of(step: str) -> Callable[[Any], object]:
    """The function of a step; only its own imports are made, so that help and mistakes are quick."""
    function: Callable[[Any], object]
    if step == "main":
        from recdistill.steps.main import main as function
    elif step == "prepare":
        from recdistill.steps.prepare import prepare as function
    elif step == "backbone":
        from recdistill.steps.backbone import backbone as function
    elif step == "teacher":
        from recdistill.steps.teacher import teacher as function
    elif step == "distill":
        from recdistill.steps.distill import distill as function
    elif step == "evaluate":
        from recdistill.steps.evaluate import evaluate_run as function
    elif step == "sweep":
        from recdistill.steps.sweep import sweep as function
    elif step == "recommend":
        from recdistill.steps.recommend import recommend as function
    elif step == "export":
        from recdistill.steps.export import export as function
    else:
        from recdistill.steps.compare import compare as function
    return function


def main(arguments: list[str] | None = None) -> int:
    """Run a step in an MLflow run. Returns the exit status: 1 after bad input, said in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n\nsteps:")
        for name, options in STEPS.items():
            # Each docstring begins with "Options of ``step``: ".
            print(f"  {name:10}{(options.__doc__ or '').splitlines()[0].partition(': ')[2]}")
        return 0 if arguments else 1
    name, *rest = arguments
    if name not in STEPS:
        print(f"recdistill: {name}: no such step; choose one of {', '.join(STEPS)}", file=sys.stderr)
        return 1
    if "--help" in rest or "-h" in rest:
        parse(STEPS[name], name, ["--help"])
        return 0
    from recdistill.runs.step_runs import entry_run

    # After mlflow's import, which sets up loggers of its own.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # As after Ctrl-C, the run is closed and says why.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    several, main_process = int(os.environ.get("WORLD_SIZE", "1")) > 1, os.environ.get("RANK", "0") == "0"
    try:
        if several and name not in LAUNCHED:
            raise InputError(f"runs in one process; launch {', '.join(LAUNCHED)} alone, and start {name} by itself")
        with entry_run(name) if main_process else nullcontext():
            function_of(name)(parse(STEPS[name], name, rest))
    except InputError as error:
        if not main_process:
            # The main process meets the same mistake, says it and ends all of them; where it does not, this one does.
            time.sleep(GRACE_SECONDS)
        print(f"recdistill {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
