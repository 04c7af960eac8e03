"""A zip archive unpacked into a folder: nothing outside the folder is written, and its size is bounded."""

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from recdistill.errors import InputError, one_line
from recdistill.whole_files import whole_folder

MOST_FILES = 1000
CHUNK = 1 << 20


def unpacked(archive: Path, folder: Path, most_bytes: int) -> Path:
    """Unpack a zip archive once, and return its folder, which appears under its name only when complete.

    A folder that is there is returned as it is, and the archive need not be.

    Args:
        archive: the file.
        folder: where its files shall lie; its parent is made.
        most_bytes: that all its files may have together, counted while they are written.

    Raises:
        InputError: it is no zip archive, a name leads out of the folder, it holds a link, or it is too large. One
            line; nothing is left behind.
    """
    if folder.is_dir():
        return folder
    try:
        with whole_folder(folder, replace=False) as complete, zipfile.ZipFile(archive) as files:
            unpack_members(files, archive, complete, most_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive}: is no archive that can be read ({one_line(error, 300)}); delete it") from None
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked to {folder} ({one_line(error, 300)})") from None
    return folder


def unpack_members(files: zipfile.ZipFile, archive: Path, folder: Path, most_bytes: int) -> None:
    """Write each file of an open archive below ``folder``. Raises InputError as `unpacked`."""
    members = files.infolist()
    if len(members) > MOST_FILES:
        raise InputError(f"{archive}: holds {len(members):,} files, more than {MOST_FILES:,}; delete it")
    left = most_bytes
    for one in members:
        path = safe_path(one, archive)
        if one.is_dir():
            continue
        target = folder.joinpath(*path.parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.open(one) as source, target.open("xb") as copy:
                while chunk := source.read(min(CHUNK, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise InputError(f"{archive}: unpacks to more than {most_bytes:,} bytes; delete it")
                    copy.write(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise InputError(
                f"{archive}: holds {one_line(one.filename, 100)!r} twice; it is no archive of ours"
            ) from None


def safe_path(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """The path of a member below the folder. Raises InputError where it leads elsewhere, or the member is a link."""
    name = member.filename
    parts = name.removesuffix("/").split("/")
    # A colon is a drive or a stream on Windows, where a backslash separates, too.
    if any(part in ("", ".", "..") for part in parts) or any(mark in name for mark in "\\:\0"):
        raise InputError(f"{archive}: holds the path {one_line(name, 100)!r}, which leads out of it; delete it")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{archive}: {one_line(name, 100)!r} is no plain file; delete it")
    return PurePosixPath(*parts)
