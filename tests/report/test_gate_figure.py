"""The heat map of gate weights."""

import io

import pandas as pd
import pytest
from matplotlib.image import imread

from recdistill.report.gate_figure import gate_figure


def clusters(weights: list[list[float]], title: str = "A film (1999); Another") -> pd.DataFrame:
    table = pd.DataFrame(weights, columns=[f"expert_{expert}" for expert in range(len(weights[0]))])
    return table.assign(cluster=range(len(weights)), users=range(1000, 1000 + len(weights)), titles=title)


@pytest.mark.parametrize(
    "weights", [[[0.25] * 4] * 3, [[1.0, 0.0], [0.0, 1.0]], [[1.0]], [[0.2, 0.3, 0.5]] * 8], ids=len
)
def test_it_is_a_picture_the_same_for_the_same_numbers(weights: list[list[float]]) -> None:
    drawn = gate_figure(clusters(weights), "Gate")
    assert drawn == gate_figure(clusters(weights), "Gate")
    height, width, _ = imread(io.BytesIO(drawn), format="png").shape
    assert 100 < height < 1000
    assert 400 < width < 1500


def test_weights_and_titles_change_it() -> None:
    drawn = gate_figure(clusters([[0.6, 0.4]]), "Gate")
    assert drawn != gate_figure(clusters([[0.4, 0.6]]), "Gate")
    assert drawn != gate_figure(clusters([[0.6, 0.4]], "$Another$ _film_"), "Gate")
