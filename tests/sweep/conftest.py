"""A space and its study, without any training."""

from pathlib import Path

import pytest
from small_sweep import EPOCHS, make_space, place_in

from recdistill.sweep.space import Space
from recdistill.sweep.study import OpenStudy, open_study


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return make_space(tmp_path)


@pytest.fixture
def opened(tmp_path: Path, space: Space) -> OpenStudy:
    return open_study(place_in(tmp_path), space, 1, EPOCHS, create=True)
