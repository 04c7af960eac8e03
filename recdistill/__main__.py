"""``python -m recdistill STEP --name value``: from a step's name to its options and function."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

from recdistill.command_line import parse
from recdistill.config import BackboneConfig, Config, DataConfig
from recdistill.errors import InputError

USAGE = "usage: recdistill STEP --name value ...; STEP --help lists a step's options"


def steps() -> dict[str, tuple[type[Config], Callable[[Any], object]]]:
    """Options and function of every step."""
    from recdistill.steps.backbone import backbone
    from recdistill.steps.prepare import prepare

    return {
        "prepare": (DataConfig, prepare),
        "backbone": (BackboneConfig, backbone),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run a step in an MLflow run. Returns the exit status: 1 after bad input, said in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    known = steps()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\nsteps: {', '.join(known)}")
        return 0 if arguments else 1
    name, *rest = arguments
    if name not in known:
        print(f"recdistill: {name}: no such step; choose one of {', '.join(known)}", file=sys.stderr)
        return 1
    options, function = known[name]
    if "--help" in rest or "-h" in rest:
        parse(options, name, ["--help"])
        return 0
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from recdistill.tracking.runs import entry_run

    try:
        with entry_run(name):
            function(parse(options, name, rest))
    except InputError as error:
        print(f"recdistill {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
