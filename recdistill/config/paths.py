"""Relative paths, looked for where the user stands: ``mlflow run`` changes into the project's folder.

There the folder that the user typed the command in is known only as that of the process ``mlflow run``, from which this
one descends.
"""

import errno
import functools
import os
from pathlib import Path

from recdistill.config.base import Config, option_table
from recdistill.config.option import WRITTEN, Option
from recdistill.errors import InputError, one_line


def user_folder() -> Path:
    """The folder in which the user gave the command: that of ``mlflow run``, where this process descends from one."""
    return folder_of_mlflow_run() or Path.cwd()


@functools.cache
def folder_of_mlflow_run() -> Path | None:
    """The folder that the user gave ``mlflow run`` in; None where this process was started otherwise.

    To be asked before the run is opened: MLflow then takes ``MLFLOW_RUN_ID`` out of the environment.
    """
    if not os.environ.get("MLFLOW_RUN_ID"):
        return None
    import psutil

    try:
        for process in psutil.Process().parents():
            words = [Path(word).name for word in process.cmdline()[:4]]
            if "mlflow" in words and "run" in words:
                return Path(process.cwd())
    except (psutil.Error, OSError):  # a process of another user, or one that has just ended
        pass
    return None


def located(one: Option, value: str) -> str:
    """The value of an option that names a file or folder, as a path that this process finds.

    A relative path is looked for where the user stands, then in the working folder. One that is nowhere becomes the
    absolute path that was looked for first, so that messages name it, unless it may be a name (of an LLM, of a plan).
    Raises InputError where no file system takes the name, or nothing can be written there.
    """
    found = _located(one, value)
    if value and one.metadata["path"] in WRITTEN:
        check_written(one, found)
    return found


def _located(one: Option, value: str) -> str:
    path = one.metadata["path"]
    try:
        possible = not path or not value or is_possible(Path(value).expanduser())
    except RuntimeError:
        raise InputError(f"{one.name}={one_line(value, 60)}: ~ names no user of this machine; give a path") from None
    if not possible:
        raise InputError(f"{one.name}={one_line(value, 60)}: no file can have this name; give the path of one")
    if not path or not value or value.startswith("~") or Path(value).is_absolute():
        return value
    there, here = user_folder(), Path.cwd()
    # A folder is no plan, though one may have a plan's name, as that of its results.
    found = is_file if path == "file-or-name" else is_there
    if there != here and found(there / value):
        if found(here / value):
            print(f"{one.name}={value}: taken from {there}; {here} has one, too", flush=True)
        return str(there / value)
    if found(here / value):
        return value
    if path in ("read-or-name", "file-or-name") and not value.startswith("."):
        return value
    # A file to write goes where the user stands.
    return value if path in WRITTEN and there == here else str(there / value)


def place_to_write(config: Config, name: str) -> Path:
    """The file or folder that a step writes to, by the option that names it.

    Raises InputError as `check_written` does: before any work, where a step begins with it.
    """
    one, value = option_table(type(config))[name], str(config.value(name))
    check_written(one, value)
    return Path(value).expanduser()


def check_written(one: Option, value: str) -> None:
    """Raise InputError where a folder stands in the way of a file to write, or a file in that of a folder.

    Folders that are missing may be made; where the nearest one that is there cannot be written to, that is said, too.
    """
    path = Path(value).expanduser()
    is_folder = one.metadata["path"] == "written-folder"
    if is_there(path) and path.is_dir() != is_folder:
        there, wanted = ("a file", "a folder") if is_folder else ("a folder", "a file")
        raise InputError(f"{one.name}={value}: is {there}; give the path of {wanted} to write")
    inside = path if is_folder else path.parent
    nearest = next((folder for folder in (inside, *inside.parents) if is_there(folder)), Path())
    if not nearest.is_dir():
        raise InputError(f"{one.name}={value}: {nearest} is no folder; give another path")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{one.name}={value}: {nearest} cannot be written to; give another path")


def is_possible(path: Path) -> bool:
    """Whether a file could be at a path: False of too long a name, and of a zero byte in it."""
    try:
        path.exists()
    except ValueError:
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def is_there(path: Path) -> bool:
    """Whether something is at a path; nothing is at one that no file system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a zero byte
        return False


def is_file(path: Path) -> bool:
    """Whether a file is at a path."""
    return is_there(path) and path.is_file()


def located_plugins(value: str) -> str:
    """The plugins named, those that are files as absolute paths where they lie where the user stands."""
    there, here = user_folder(), Path.cwd()
    names = [name.strip() for name in value.split(",")]
    if there == here:
        return value
    return ",".join(str(there / one) if one.endswith(".py") and is_there(there / one) else one for one in names)
