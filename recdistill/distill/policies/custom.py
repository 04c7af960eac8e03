"""The policy ``custom``: a function of a user's file (``policy_file``)."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from recdistill.distill.selection import StudentSignals
from recdistill.errors import InputError
from recdistill.registry import POLICIES


@POLICIES.register("custom", queries=True)
def custom(signals: StudentSignals) -> NoReturn:
    """Stands for the function of ``policy_file``; see `policy_of_file`."""
    raise InputError("selection policy custom: give policy_file, a Python file with the function policy(signals)")


def policy_of_file(file: str) -> Callable[..., Tensor]:
    """The function ``policy`` that a Python file defines. Raises InputError where there is none."""
    try:
        found = runpy.run_path(str(Path(file).expanduser())).get("policy")
    except Exception as error:  # whatever the user's code raises
        said = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(f"policy_file={file}: cannot be run ({said})") from None
    if not callable(found):
        raise InputError(f"policy_file={file}: defines no function policy(signals), see docs/DISTILLATION.md")
    return found  # type: ignore[no-any-return]
