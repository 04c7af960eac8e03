"""Every report through axe in headless Chromium: no serious finding, nothing beyond the screen's width, no network.

Skipped, and says so, where Chromium, node, axe-core or puppeteer-core is not there (``make browser`` installs them).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from sample_reports import write_reports

SCRIPT = Path(__file__).with_name("accessible.cjs")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE = shutil.which("node")
MODULES = Path(os.environ.get("NODE_PATH") or Path(__file__).parents[2] / ".node" / "node_modules")
MISSING = [
    name
    for name, there in {
        "chromium": CHROMIUM,
        "node": NODE,
        "axe-core": (MODULES / "axe-core").is_dir(),
        "puppeteer-core": (MODULES / "puppeteer-core").is_dir(),
    }.items()
    if not there
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; make browser"),
]
SECONDS = 600


def looked_at(files: Sequence[Path]) -> list[dict]:
    """What axe finds on each page, light and dark, wide and narrow."""
    command = [str(NODE), str(SCRIPT), str(CHROMIUM), "-", *map(str, files)]
    environment = os.environ | {"NODE_PATH": str(MODULES)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=True)
    return json.loads(said.stdout)


def test_no_report_has_a_serious_finding(tmp_path: Path):
    files = write_reports(tmp_path)
    found = looked_at(files)
    assert len(found) == 4 * len(files)
    for page in found:
        where = page["file"], page["width"], page["theme"]
        assert page["serious"] == [], where
        assert page["asked"] == [], where
        assert page["overflow"] <= 0, where


def test_a_page_that_is_hard_to_read_is_found(tmp_path: Path):
    """The check can fail: grey on white, an image without words, a picture from elsewhere, too wide a line."""
    file = tmp_path / "bad.html"
    file.write_text(
        '<!doctype html><html lang="en"><title>bad</title><p style="color: #ccc; background: #fff">pale</p>'
        '<img src="http://127.0.0.1:9/a.png"><div style="width: 3000px">wide</div>'
    )
    found = looked_at([file])
    for page in found:
        assert {one.partition(":")[0] for one in page["serious"]} >= {"color-contrast", "image-alt"}
        assert page["asked"] == ["http://127.0.0.1:9/a.png"]
        assert page["overflow"] > 0
