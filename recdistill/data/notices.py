"""What is said of data while they are read: one line on standard output, each once."""

import multiprocessing
import os

from recdistill.errors import one_line

MOST = 500  # characters of a line
_said: set[str] = set()


def notice(text: str) -> None:
    """Print ``data: <text>`` on one line, once a process; a command's further processes say nothing."""
    line = f"data: {one_line(text, MOST)}"
    is_first = os.environ.get("RANK", "0") == "0" and multiprocessing.parent_process() is None
    if is_first and line not in _said:
        _said.add(line)
        print(line, flush=True)
