"""Colours that can be read, and told apart, by readers who see no red, no green or no blue."""

import itertools

import numpy as np
import pytest

from recdistill.report.theme import DARK, LIGHT, MARKERS, Theme

# Machado, Oliveira and Fernandes (2009), severity 1: what a dichromat sees, in linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3).tolist(),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def linear(colour: str) -> np.ndarray:
    """``#RRGGBB`` as linear RGB in [0, 1]."""
    value = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    low, high = sorted(float(linear(colour) @ TO_XYZ[1]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, blindness: str) -> np.ndarray:
    """CIE L*a*b* of a colour as such a reader sees it."""
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear(colour), 0, 1)
    ratio = TO_XYZ @ seen / WHITE
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def test_contrast_and_lab_by_known_values():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert lab("#FF0000", "none") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    # Red and green of one lightness are one colour to a reader without green.
    red, green = lab("#C04000", "deuteranopia"), lab("#6A7000", "deuteranopia")
    assert np.linalg.norm(red - green) < 20 < np.linalg.norm(lab("#C04000", "none") - lab("#6A7000", "none"))


@THEMES
def test_text_can_be_read(theme: Theme):
    for text in (theme.ink, theme.quiet, theme.better, theme.worse, theme.unclear):
        for behind in (theme.card, theme.page):
            assert contrast(text, behind) >= 4.5 or (text == theme.unclear and behind == theme.page), (text, behind)


@THEMES
def test_lines_and_dots_can_be_seen(theme: Theme):
    for colour in (*theme.series, theme.better, theme.worse, theme.unclear):
        assert contrast(colour, theme.card) >= 3, colour


@THEMES
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_of_one_plot_are_told_apart(theme: Theme, blindness: str):
    for colours in (theme.series, (theme.better, theme.worse, theme.unclear)):
        for one, other in itertools.combinations(colours, 2):
            distance = float(np.linalg.norm(lab(one, blindness) - lab(other, blindness)))
            assert distance >= 14, f"{one} and {other} in {blindness}: {distance:.1f}"


def test_each_colour_of_a_series_has_a_shape_of_its_own():
    assert len(set(MARKERS)) == len(MARKERS) == len(LIGHT.series) == len(DARK.series)
