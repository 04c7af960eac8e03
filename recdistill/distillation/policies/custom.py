"""The policy ``custom`` prefers what a user's function says: ``policy(signals)`` in the Python file ``policy_file``."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recdistill.config.option import option
from recdistill.distillation.selection import SelectionSignals, StudentSignals, scores_of
from recdistill.errors import InputError, one_line
from recdistill.registry import POLICIES

#: Samples that a policy is tried on before any work.
TRIED_ON = 64


@dataclass(frozen=True, kw_only=True)
class CustomOptions:
    """Own options of the policy."""

    policy_file: str = option(
        "", "Python file with the function policy(signals) that the policy is",
        role="place", content=True, path="read",
    )  # fmt: skip


@POLICIES.register("custom", options=CustomOptions, queries=True)
def custom(signals: StudentSignals, options: CustomOptions) -> Tensor:
    """Prefer what the function of ``policy_file`` scores highest; see `policy_of_file`.

    Raises InputError, one line, where the function raises anything.
    """
    function = policy_of_file(options.policy_file)
    try:
        return function(signals)
    except Exception as error:  # whatever the user's code raises
        said = one_line(f"{type(error).__name__} {error}")
        raise InputError(
            f"policy_file={options.policy_file}: policy(signals) fails ({said}), see docs/DISTILLATION.md"
        ) from error


def check_policy_file(file: str, num_items: int = TRIED_ON, candidates: int | None = None) -> None:
    """Try the policy of a file on made-up signals of a few samples, before any work.

    Args:
        file: with the function ``policy``.
        num_items: V; by default that of a small catalogue.
        candidates: of a teacher, for each sample; None for what a query policy sees, which knows no teacher.

    Raises:
        InputError: it fails, or gives something else than a score a sample. One line.
    """
    try:
        scores_of("custom", made_up_signals(num_items, candidates), CustomOptions(policy_file=file))
    except InputError as error:
        said = str(error) if str(error).startswith("policy_file=") else f"policy_file={file}: {error}"
        raise InputError(f"{said}; it was tried on {TRIED_ON} made-up samples") from error


def made_up_signals(num_items: int, candidates: int | None) -> StudentSignals:
    """Signals of a few samples, all eligible; arguments as of `check_policy_file`."""
    draw = torch.Generator().manual_seed(0)
    offered = min(candidates or 0, num_items)
    log_probs = torch.log_softmax(torch.randn(TRIED_ON, offered + 2, generator=draw), dim=1)
    known = StudentSignals(
        student_loss=-log_probs[:, -1],
        student_entropy=-(log_probs.exp() * log_probs).sum(dim=1),
        target=torch.randint(num_items, (TRIED_ON,), generator=draw),
        item_count=torch.randint(1, 100, (num_items,), generator=draw),
        eligible=torch.ones(TRIED_ON, dtype=torch.bool),
    )
    if candidates is None:
        return known
    return SelectionSignals(
        **vars(known),
        candidates=(torch.randint(num_items, (TRIED_ON, 1), generator=draw) + torch.arange(offered)) % num_items,
        distance=3 * torch.rand(TRIED_ON, offered, generator=draw).sort(dim=1).values,
        candidate_log_probs=log_probs[:, :offered],
    )


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
