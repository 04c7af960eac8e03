"""Lay out what the documentation site is built of, and where it stands, under build/site: ``make docs``.

The documents stay where a reader of the repository looks for them. Here they are copied side by side, their links
follow, files that they name come along, and the notebooks with their outputs are pages.
"""

import re
import shutil
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
#: In the order that a newcomer needs; what is not named here comes last.
CHAPTERS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Two commands", (("English", "README.md"), ("日本語", "README.ja.md"))),
    ("Your own data", (("Data", "docs/DATA.md"), ("A notebook", "notebooks/04_bring_your_own_data.ipynb"))),
    ("Your own LLM", (("Teachers", "docs/TEACHERS.md"), ("Losses", "docs/DISTILLATION.md"))),
    (
        "New items",
        (
            ("New items", "docs/NEW_ITEMS.md"),
            ("A notebook", "notebooks/05_from_a_cold_item_to_a_recommendation.ipynb"),
            ("Is the LLM worth it", "docs/STUDY.md"),
            ("What it found", "docs/RESULTS.md"),
            ("What answers buy", "docs/QUERIES.md"),
            ("Its files", "docs/results/README.md"),
        ),
    ),
    (
        "Sweeps",
        (
            ("Sweeps", "docs/SWEEPS.md"),
            ("Reading one", "notebooks/03_reading_a_sweep.ipynb"),
            ("Comparing runs", "notebooks/01_compare_runs.ipynb"),
            ("Which run won", "docs/REPORTS.md"),
        ),
    ),
    ("Serving", (("Serving", "docs/SERVING.md"), ("When something fails", "docs/RELIABILITY.md"))),
    ("Scale", (("Scale", "docs/SCALE.md"),)),
    (
        "Extending",
        (
            ("Adding a part", "CONTRIBUTING.md"),
            ("Python", "docs/PYTHON.md"),
            ("API", "website/api.md"),
            ("Architecture", "docs/ARCHITECTURE.md"),
            ("The in-house system", "docs/IN_HOUSE.md"),
            ("What the gate learned", "notebooks/02_what_the_gate_learned.ipynb"),
        ),
    ),
    ("What is in a run", (("Names", "docs/TRACKING.md"), ("Glossary", "docs/GLOSSARY.md"))),
    ("How it is tested", (("Tests", "website/testing.md"), ("Changes", "CHANGELOG.md"))),
)
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
PAGES = ("*.md", "docs/*.md", "docs/results/*.md", "notebooks/*.ipynb", "website/*.md")


def pages() -> list[Path]:
    """Every document, relative to the project."""
    return sorted(path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern))


def place(path: Path) -> Path:
    """Where a file of the project stands on the site."""
    if path == Path("README.md"):
        return Path("index.md")
    parts = path.parts[1:] if path.parts[0] in ("docs", "website") else path.parts
    return Path(*parts)


def chapters() -> list[dict[str, object]]:
    """The navigation: chapters whose pages are there, then the other pages."""
    there = {path.as_posix() for path in pages()}
    found: list[dict[str, object]] = []
    for title, listed in CHAPTERS:
        entries = [{name: place(Path(path)).as_posix()} for name, path in listed if path in there]
        if entries:
            found.append({title: entries})
    named = {path for _, listed in CHAPTERS for _, path in listed}
    rest = [place(Path(path)).as_posix() for path in sorted(there - named)]
    return found + ([{"More": rest}] if rest else [])


def with_links(text: str, page: Path) -> tuple[str, list[Path]]:
    """A page's text with its links as they are on the site, and the files that it names.

    Args:
        text: Markdown.
        page: relative to the project.
    """
    files: list[Path] = []

    def moved(found: re.Match[str]) -> str:
        address = found[2]
        if re.match(r"[a-z]+:", address) or address.startswith("/"):
            return found[0]
        target = (ROOT / page.parent / address).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return found[0]  # the strict build says that it is broken
        relative = target.relative_to(ROOT)
        if target.is_dir():
            inside = sorted(path for path in pages() if path.parent == relative)
            relative = inside[0] if inside else relative
        else:
            files.append(relative)
        up = "../" * (len(place(page).parts) - 1)
        return f"{found[1]}{up}{place(relative).as_posix()}{found[3]}"

    return LINK.sub(moved, text), files


def lay_out(target: Path) -> None:
    """Write pages, files that they name, and the settings of mkdocs into a folder, which is emptied before."""
    shutil.rmtree(target, ignore_errors=True)
    source = target / "pages"
    for page in pages():
        written = source / place(page)
        written.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".md":
            text, files = with_links((ROOT / page).read_text(encoding="utf-8"), page)
            written.write_text(text, encoding="utf-8")
            for file in set(files) - set(pages()):
                copy = source / place(file)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, copy)
        else:
            shutil.copy(ROOT / page, written)
    settings = yaml.safe_load((ROOT / "website" / "mkdocs.yml").read_text(encoding="utf-8"))
    places = {"docs_dir": str(source), "site_dir": str(target / "html"), "nav": chapters()}
    (target / "mkdocs.yml").write_text(yaml.safe_dump(settings | places, allow_unicode=True), encoding="utf-8")


if __name__ == "__main__":
    lay_out(ROOT / "build" / "site")
