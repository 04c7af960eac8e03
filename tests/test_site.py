"""The documentation site: every document is a page once, links follow their pages, and nothing comes from elsewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
FROM_ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href|srcset)=[\"']?(?:https?:)?//[^\"' >]+"
)


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "website" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def laid_out(site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    site.lay_out(target)
    return target / "pages"


def test_every_document_is_a_page_once(site: ModuleType, laid_out: Path):
    listed = [place for chapter in site.chapters() for place in places_of(chapter)]
    assert len(listed) == len(set(listed)) == len(site.pages())
    for place in listed:
        assert (laid_out / place).is_file(), place


def places_of(entry: object) -> list[str]:
    """Pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [place for part in parts for place in places_of(part)]


def test_chapters_come_in_the_order_that_a_newcomer_needs(site: ModuleType):
    titles = [title for chapter in site.chapters() for title in chapter]
    assert titles[:10] == [
        "Two commands",
        "Your own data",
        "Your own LLM",
        "New items",
        "Sweeps",
        "Serving",
        "Scale",
        "Extending",
        "What is in a run",
        "How it is tested",
    ]


def test_every_link_leads_to_a_page_or_a_file(laid_out: Path):
    seen = 0
    for page in laid_out.rglob("*.md"):
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for address in ADDRESS.findall(text):
            if not re.match(r"[a-z]+:", address):
                assert (page.parent / address).exists(), f"{page.name}: {address}"
                seen += 1
    assert seen > 60


@pytest.mark.parametrize(
    ("page", "text", "moved"),
    [
        ("README.md", "[a](docs/DATA.md) [b](CONTRIBUTING.md)", "[a](DATA.md) [b](CONTRIBUTING.md)"),
        ("docs/STUDY.md", "[a](../sweeps/study.yaml)", "[a](sweeps/study.yaml)"),
        ("docs/PYTHON.md", "[a](../CONTRIBUTING.md#x) [b](../README.md)", "[a](CONTRIBUTING.md#x) [b](index.md)"),
        ("README.md", "[a](https://a.example/b) [b](docs/none.md)", "[a](https://a.example/b) [b](docs/none.md)"),
        ("docs/PYTHON.md", "[a](/etc/passwd) [b](../../x.md)", "[a](/etc/passwd) [b](../../x.md)"),
    ],
)
def test_links_follow(site: ModuleType, page: str, text: str, moved: str):
    assert site.with_links(text, Path(page))[0] == moved


@pytest.mark.slow
def test_the_built_site_asks_nothing_of_elsewhere(site: ModuleType, tmp_path: Path):
    pytest.importorskip("mkdocs", reason="make docs installs it")
    site.lay_out(tmp_path)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "mkdocs.yml"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not FROM_ELSEWHERE.findall(page.read_text(encoding="utf-8")), page.name
    for sheet in (tmp_path / "html").rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    # The strict build can fail: a link that leads nowhere. With --quiet it cannot, for warnings are then not counted.
    (tmp_path / "pages" / "DATA.md").write_text("[nowhere](nowhere.md)", encoding="utf-8")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0
