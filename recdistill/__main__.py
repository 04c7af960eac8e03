"""``python -m recdistill STEP --name value``: from a step's name to its options and function."""

import difflib
import importlib
import importlib.metadata
import itertools
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from recdistill.config.command_line import help_text, parse
from recdistill.config.paths import folder_of_mlflow_run
from recdistill.config.steps import ALIASES, STEPS, WITHOUT_RUN
from recdistill.errors import InputError, one_line

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# `runs.outbox` asks a server that does not answer again: MLflow's own tries take minutes, and the training waits.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

if os.environ.get("WORLD_SIZE", "1") != "1":
    # DDP, which allows for parameters that a loss leaves unused, warns in each process where there are none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

# The steps that ``accelerate launch`` and torchrun may start in several processes.
LAUNCHED = ("main", "backbone", "teacher", "distill")
#: Steps that make one run and say nothing of it themselves.
TOLD = ("prepare", "backbone", "teacher", "distill", "map_items")
GRACE_SECONDS = 60.0
USAGE = "usage: recdistill STEP --name value ...; recdistill STEP --help lists a step's options; recdistill --version"
#: Set by the shell where it asks what may follow: see `config.completion`.
COMPLETE = "_RECDISTILL_COMPLETE"


def function_of(step: str) -> Callable[[Any], object]:
    """The function of a step, which its module is named after; only its own imports are made."""
    function: Callable[[Any], object] = getattr(importlib.import_module(f"recdistill.steps.{step}"), step)
    return function


def version() -> str:
    """The installed version; that code is run without being installed is said."""
    try:
        return importlib.metadata.version("recdistill")
    except importlib.metadata.PackageNotFoundError:
        return "of a folder that is not installed"


def asks_estimate(arguments: list[str]) -> bool:
    """Whether the option ``estimate`` is given as true; MLproject gives it always."""
    words = " ".join(arguments).replace("=", " ").split()
    return any(pair == ("--estimate", "true") for pair in itertools.pairwise(map(str.lower, words)))


def usage() -> str:
    """The steps, a line each."""
    # Each docstring begins with "Options of ``step``: ".
    wide = 1 + max(map(len, STEPS))
    lines = [
        f"  {name:{wide}}{(kind.__doc__ or '').splitlines()[0].partition(': ')[2]}" for name, kind in STEPS.items()
    ]
    lines += [f"  {alias:{wide}}the same as {step}" for alias, step in ALIASES.items()]
    return "\n".join([USAGE, "", "steps:", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run a step in an MLflow run. Returns the exit status: 1 after bad input, said in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if COMPLETE in os.environ:
        return importlib.import_module("recdistill.config.completion").complete(COMPLETE, os.environ[COMPLETE])
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 1
    if arguments[0] in ("-V", "--version"):
        print(f"recdistill {version()}")
        return 0
    given, *rest = arguments
    name = ALIASES.get(given, given)
    if name not in STEPS:
        shown = one_line(given, 60).encode(errors="backslashreplace").decode()
        near = difflib.get_close_matches(given, [*STEPS, *ALIASES], n=1)
        hint = f" (nearest: {near[0]})" if near else ""
        print(
            f"recdistill: {shown}: no such step; choose one of {', '.join([*STEPS, *ALIASES])}{hint}", file=sys.stderr
        )
        return 1
    try:
        if "--help" in rest or "-h" in rest:
            print(help_text(STEPS[name], name, rest), end="")
            return 0
        return run(name, rest)
    except InputError as error:
        print(f"recdistill {name}: {error}", file=sys.stderr)
        return 1


def run(name: str, arguments: list[str]) -> int:
    """Run a step, in the processes of its launch."""
    folder_of_mlflow_run()
    try:
        from recdistill.registry import part_errors
        from recdistill.runs.interruption import stop_on_signals
        from recdistill.runs.step_runs import entry_run
    except ModuleNotFoundError as error:
        # `mlflow run --env-manager local` takes the first python on the PATH.
        where = "activate the environment it is installed in, as .venv"
        sys.exit(f"recdistill: {sys.executable} has no {error.name}; {where}")
    # After mlflow's import, which sets up loggers of its own.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # As after Ctrl-C, the run is closed and says why.
    stop_on_signals(lambda: sys.exit("ended by SIGTERM; the same command goes on from what is finished"))
    several, main_process = int(os.environ.get("WORLD_SIZE", "1")) > 1, os.environ.get("RANK", "0") == "0"
    try:
        if several and name not in LAUNCHED:
            raise InputError(f"runs in one process; launch {', '.join(LAUNCHED)} alone, and start {name} by itself")
        if asks_estimate(arguments):
            # Nothing is made: there is no run.
            config = parse(STEPS[name], name, arguments)
            if main_process:
                with part_errors():
                    importlib.import_module("recdistill.steps.estimate").estimate_alone(name, config)
            return 0
        with entry_run(name) if main_process and name not in WITHOUT_RUN else nullcontext(), part_errors():
            made = function_of(name)(parse(STEPS[name], name, arguments))
            if main_process and name in TOLD:
                print(importlib.import_module("recdistill.runs.outcome").outcome(name, made), flush=True)
    except InputError:
        if not main_process:
            # The main process meets the same mistake, says it and ends all of them; where it does not, this one does.
            time.sleep(GRACE_SECONDS)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
