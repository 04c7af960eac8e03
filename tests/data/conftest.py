"""What reading data says, line by line."""

from collections.abc import Callable

import pytest

from recdistill.data import notices


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines said since the last call, without what each begins with."""
    monkeypatch.setattr(notices, "_said", set())

    def lines() -> list[str]:
        printed = capsys.readouterr().out.splitlines()
        assert all(line.startswith("data: ") for line in printed)
        return [line.removeprefix("data: ") for line in printed]

    lines()
    return lines
