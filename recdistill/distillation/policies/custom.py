"""The policy ``custom`` prefers what a user's function says: ``policy(signals)`` in the Python file ``policy_file``."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from recdistill.config.option import option
from recdistill.distillation.selection import StudentSignals
from recdistill.errors import InputError, one_line
from recdistill.registry import POLICIES


@dataclass(frozen=True, kw_only=True)
class CustomOptions:
    """Own options of the policy."""

    policy_file: str = option(
        "", "Python file with the function policy(signals) that the policy is",
        role="place", content=True, path="read",
    )  # fmt: skip


@POLICIES.register("custom", options=CustomOptions, queries=True)
def custom(signals: StudentSignals, options: CustomOptions) -> Tensor:
    """Prefer what the function of ``policy_file`` scores highest; see `policy_of_file`."""
    return policy_of_file(options.policy_file)(signals)


def policy_of_file(file: str) -> Callable[..., Tensor]:
    """The function ``policy`` that a Python file defines. Raises InputError where there is none."""
    if not file:
        raise InputError("selection policy custom: give policy_file, a Python file with the function policy(signals)")
    try:
        found = runpy.run_path(str(Path(file).expanduser())).get("policy")
    except Exception as error:  # whatever the user's code raises
        said = one_line(f"{type(error).__name__} {error}")
        raise InputError(f"policy_file={file}: cannot be run ({said})") from None
    if not callable(found):
        raise InputError(f"policy_file={file}: defines no function policy(signals), see docs/DISTILLATION.md")
    return found  # type: ignore[no-any-return]
