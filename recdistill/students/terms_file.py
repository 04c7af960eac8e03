"""The terms of the language models that a student was made with, in its folder."""

from pathlib import Path

TERMS_FILE = "terms.txt"


def write_terms(folder: str | Path, terms: str) -> None:
    """Keep the terms of a student's language models in its folder, where there are any."""
    if terms:
        (Path(folder) / TERMS_FILE).write_text(f"{terms}\n", encoding="utf-8")


def terms_of_student(folder: str | Path) -> str:
    """The terms that `write_terms` kept; '' where there are none."""
    path = Path(folder) / TERMS_FILE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
