"""Run notebooks and keep their outputs, as they are committed: ``make notebooks``, after ``make store``.

What only says when and where a notebook was run is left out: times, versions, progress bars, folders and ids of runs.
"""

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
SECONDS = 900
#: What differs from one run to the next, and what stands for it.
VARYING = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "…"),
    (re.compile(r"(?<![\w.:/}<])/(?:[\w.-]+/)+"), "…/"),
)


def execute(path: Path) -> float:
    """Run a notebook from its folder and write it with its outputs. Returns seconds; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    seconds = time.perf_counter() - started
    path.write_text(nbformat.writes(cleaned(notebook)) + "\n", encoding="utf-8")
    return seconds


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what only says when and where it was run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(without_varying, cell.outputs) if output is not None]
    return notebook


def without_varying(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output as it is kept; None for progress bars."""
    if output.output_type == "stream":
        if output.name == "stderr":
            return None
        output.text = replaced(output.text)
    for kind, text in output.get("data", {}).items():
        if kind in ("text/plain", "text/html", "text/markdown"):
            output.data[kind] = replaced(text)
    return output


def replaced(text: str) -> str:
    """A text without folders and ids."""
    for pattern, stand_in in VARYING:
        text = pattern.sub(stand_in, text)
    return text


if __name__ == "__main__":
    for one in map(Path, sys.argv[1:] or sorted(map(str, FOLDER.glob("*.ipynb")))):
        print(f"{one.name}: {execute(one):.0f} s", flush=True)
