"""``doctor``: versions, devices, tracking store, cache, disk and LLM of this machine, each problem with its cure."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from recdistill.config import DoctorConfig
from recdistill.data.downloads import cache_dir
from recdistill.errors import InputError, one_line
from recdistill.runs.outbox import outbox_folder, send_left_behind
from recdistill.runs.provenance import code_at_hand
from recdistill.runs.tracking_store import num_experiments, tracking_address
from recdistill.teachers.ilora.llm_source import check_llm_name, load_llm, local_configuration

GIB = 1 << 30
#: Free disk that a first run wants: data and LLM in the cache, checkpoints, artifacts.
WANTED_GIB = 5


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        subject: what was looked at.
        found: what it is like.
        cure: what to do where it is a problem; empty where it is none.
    """

    subject: str
    found: str
    cure: str = ""


def doctor(config: DoctorConfig) -> None:
    """Print what each check finds. Raises InputError, with the number of problems, where there is one."""
    findings = []
    for check in (versions, devices, store, unsent, cache, lambda: llm(config.llm)):
        for finding in check():
            print(described(finding), flush=True)
            findings.append(finding)
    problems = [finding.subject for finding in findings if finding.cure]
    if problems:
        raise InputError(f"{len(problems)} to mend: {', '.join(problems)}")
    print("all is well", flush=True)


def described(finding: Finding) -> str:
    """A finding in a line, two where there is something to do."""
    mark = "PROBLEM" if finding.cure else "ok"
    line = f"{mark:8}{finding.subject:10}{finding.found}"
    return f"{line}\n{'':18}{finding.cure}" if finding.cure else line


def versions() -> Iterator[Finding]:
    """Python and the packages that results depend on."""
    code = code_at_hand()
    listed = ", ".join(f"{name} {version}" for name, version in code.versions.items())
    yield Finding("versions", listed)
    missing = [name for name in ("torch", "transformers", "peft", "mlflow", "optuna") if name not in code.versions]
    if missing:
        yield Finding("packages", f"without {', '.join(missing)}", "pip install recdistill in this environment")


def devices() -> Iterator[Finding]:
    """Processors, threads and graphics cards."""
    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cards = ", ".join(cuda) if cuda else "no graphics card that torch can use: teachers take minutes, not seconds"
    yield Finding("devices", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; {cards}")


def store() -> Iterator[Finding]:
    """Whether the tracking store answers."""
    try:
        experiments = num_experiments()
    except InputError as error:
        yield Finding("store", "cannot be used", str(error))
    else:
        yield Finding("store", f"{tracking_address()}, {experiments} experiments")


def unsent() -> Iterator[Finding]:
    """Whether something waits for a store that was lost."""
    waiting = send_left_behind()
    if waiting:
        writes = sum(one.writes for one in waiting)
        yield Finding("unsent", f"{writes} writes wait in {outbox_folder()}", "recdistill sync says what to do")


def cache() -> Iterator[Finding]:
    """Whether the cache can be written, and whether its disk has room."""
    folder = cache_dir()
    with problem("cache", f"{folder}: cannot be written", "set RECDISTILL_CACHE to a folder that can") as failed:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free / GIB
    if failed:
        yield failed[0]
        return
    cure = "" if free >= WANTED_GIB else f"free some, or set RECDISTILL_CACHE to a disk with {WANTED_GIB} GiB"
    yield Finding("cache", f"{folder}, {free:,.1f} GiB free", cure)


@contextmanager
def problem(subject: str, found: str, cure: str) -> Iterator[list[Finding]]:
    """Collects a finding where the file system refuses."""
    failed: list[Finding] = []
    try:
        yield failed
    except OSError as error:
        failed.append(Finding(subject, f"{found} ({one_line(error)})", cure))


def llm(name: str) -> Iterator[Finding]:
    """Whether the LLM is on this machine, and loads; nothing is downloaded."""
    try:
        check_llm_name(name)
        cached = local_configuration(name) is not None
        if not cached:
            yield Finding("llm", f"{name} is not on this machine; the first step that reads it fetches it")
            return
        loaded = load_llm(name, torch.device("cpu"))
    except InputError as error:
        yield Finding("llm", f"{name} does not load", str(error))
    else:
        size = sum(parameter.numel() for parameter in loaded.model.parameters())
        yield Finding("llm", f"{name} loads, {size / 1e6:,.0f} million parameters")
