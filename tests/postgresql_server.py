"""A PostgreSQL server of the tests' own, on a socket in a temporary folder."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def programs() -> Path | None:
    """Folder of initdb and pg_ctl; Debian does not put it on the path."""
    found = shutil.which("initdb")
    if found and Path(found).resolve().with_name("pg_ctl").is_file():
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


def account() -> dict[str, Any]:
    """The server refuses to run as root: it runs as the package's own user then."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def why_not() -> str:
    """Why there is no server; empty where there can be one."""
    if programs() is None:
        return "no PostgreSQL server here: apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "no driver for PostgreSQL here: pip install 'psycopg[binary]'"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "the server does not run as root, and there is no user postgres"
    return ""


@contextmanager
def server() -> Iterator[str]:
    """A running server. Yields its SQLAlchemy URL."""
    binaries = programs()
    assert binaries is not None
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder, as_whom = Path(name), account()
        if as_whom:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"

        def call(program: str, *arguments: str) -> None:
            command = [str(binaries / program), "-D", str(data), *arguments]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **as_whom)

        call("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")
        settings = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        call("pg_ctl", "--wait", "--log", str(folder / "log"), "-o", settings, "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            call("pg_ctl", "--wait", "--mode=immediate", "stop")
