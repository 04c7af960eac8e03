"""The report of a sweep: whole without a network, the answer first, and no trial within the noise looks better."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy.stats import t as student_t
from small_sweep import EPOCHS, TEXT, make_space, place_in, run

from recdistill.sweep import answer
from recdistill.sweep import page as page_module
from recdistill.sweep.final_comparison import Gain, Row
from recdistill.sweep.page import (
    BEST,
    SCALE,
    TRIAL,
    Noise,
    Trials,
    gain_sentence,
    log_ticks,
    near_sentence,
    noise_of,
    sweep_page,
)
from recdistill.sweep.space import Objective, Parameter, Space
from recdistill.sweep.study import OpenStudy, open_study
from recdistill.sweep.trainings import Trained

SPACE = TEXT.replace("parameters:\n", "parameters:\n  ed_weight: {low: 0, high: 1}\n")
NUMBERS = {"test/ndcg_at_20": 0.1, "test/hr_at_10": 0.2, "test/ndcg_at_10": 0.1, "test/hr_at_20": 0.3}


def row(name: str, values: list[float]) -> Row:
    results = [Trained(f"{name}{place}", NUMBERS | {"val/ndcg_at_20": one}) for place, one in enumerate(values)]
    return Row(name, results)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenStudy, Space]:
    folder = tmp_path_factory.mktemp("sweep")
    space = make_space(folder, SPACE)
    opened = open_study(place_in(folder), space, 1, EPOCHS, create=True)
    run(opened, space, 9)
    return opened, space


@pytest.fixture(scope="module")
def page(swept: tuple[OpenStudy, Space]) -> str:
    opened, space = swept
    rows = [row("best", [0.5, 0.6, 0.7]), row("default", [0.4, 0.5, 0.6])]
    gained = {"default": Gain(0.004, -0.002, 0.01, 0.2)}
    return sweep_page(opened.study, space, rows, gained, "mlflow run . -P lam=0.5 <&>", noise_of(rows, space))


def test_the_page_is_whole_and_works_offline(page: str):
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert page.count("plotly.js v") == 1
    assert page.count("Plotly.newPlot(") == 5 + 5  # a slice an option, then the other figures
    assert 1e6 < len(page) < 8e6
    assert "mlflow run . -P lam=0.5 &lt;&amp;&gt;" in page


def test_the_answer_stands_first_and_says_that_it_may_be_luck(page: str):
    words = page[page.index("<body>") :]
    said = "the best one is 0.0040 above the default one on test, which may be luck"
    assert 0 < words.index(said) < words.index("Plotly.newPlot(")
    assert '<section class="answer unclear">' in words


def test_axes_of_slices_are_read_at_a_glance(page: str):
    assert '"ticktext":["all","random","coverage"]' in page
    assert "\"'all'\"" not in re.search(r'"ticktext":\["all".*?\]', page)[0]
    assert log_ticks([2e-3, 0.9]) == [0.01, 0.1]  # eight steps of 1, 2 and 5 are too many
    assert log_ticks([0.02, 0.9]) == [0.02, 0.05, 0.1, 0.2, 0.5]
    assert log_ticks([1e-9, 1e3]) == [10.0**power for power in range(-9, 4)]
    assert log_ticks([]) == [1.0]


def test_a_best_one_that_is_the_default_is_called_the_same(swept: tuple[OpenStudy, Space]):
    opened, space = swept
    rows = [row("best", [0.5, 0.6]), row("default", [0.5, 0.6])]
    gained = {"default": Gain(0.0, 0.0, 0.0, 1.0, same=True)}
    made = sweep_page(opened.study, space, rows, gained, "a command", None)
    assert "The best configuration is the default one." in made
    assert "<td>the same</td>" in made
    assert "+0.0000" not in made


@pytest.mark.parametrize(
    ("near", "said"),
    [
        (0, "No other trial lies within the noise between seeds (0.1000) of the best one."),
        (1, "1 of the 8 other trials lies within the noise between seeds (0.1000) of the best one: this sweep does"),
        (3, "3 of the 8 other trials lie within the noise between seeds (0.1000) of the best one: this sweep does"),
    ],
)
def test_the_best_one_is_not_counted_among_those_that_are_near_it(near: int, said: str):
    noise = Noise(0.1 / (student_t.ppf(0.975, 4) * math.sqrt(2)), 4, 1)
    assert near_sentence(near, 8, noise).startswith(said)


def test_each_slice_has_the_band_and_says_in_words_what_is_within_it(page: str, swept: tuple[OpenStudy, Space]):
    opened, space = swept
    trials = Trials.of(opened.study, space, Noise(0.1, 4, 1))
    for name in ("lam", "alpha", "ed_weight", "selection_policy", "selection_fraction"):
        (label,) = re.findall(rf'aria-label="(val/ndcg_at_20 along {name}:[^"]+)"', page)
        assert f"best {trials.top:.4f}" in label
        assert "within the noise between seeds" in label
    assert page.count('"type":"rect"') == 5


def test_options_come_in_the_order_of_the_five_then_the_others(page: str):
    headings = re.findall(r"<h2>([a-z_]+)</h2>", page)
    assert headings == ["lam", "alpha", "ed_weight", "selection_policy", "selection_fraction"]


def test_the_noise_is_the_pooled_deviation_over_seeds(swept: tuple[OpenStudy, Space]):
    _, space = swept
    best, default = [0.5, 0.6, 0.7], [0.4, 0.41]
    noise = noise_of([row("best", best), row("default", default)], space)
    assert noise is not None
    pooled = (2 * np.var(best, ddof=1) + np.var(default, ddof=1)) / 3
    assert noise == Noise(pytest.approx(math.sqrt(pooled)), 3, 1)
    # The same runs under two names count once.
    same = row("best", best)
    assert noise_of([same, Row("default", same.results)], space).degrees == 2
    assert noise_of([row("best", [0.5])], space) is None
    assert noise_of([], space) is None


def test_the_band_holds_95_of_100_pairs_of_seeds():
    """Pairs of means of two seeds, drawn with a deviation that eight others tell: simulated."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(4000):
        known = generator.normal(0, 0.3, 9)
        width = Noise(float(known.std(ddof=1)), 8, 2).width
        one, other = generator.normal(0, 0.3, (2, 2)).mean(axis=1)
        inside.append(abs(one - other) <= width)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    assert Noise(1.0, 8, 2).width == pytest.approx(student_t.ppf(0.975, 8))


def test_trials_within_the_noise(swept: tuple[OpenStudy, Space]):
    opened, space = swept
    values = sorted((t.value for t in opened.study.get_trials() if t.value is not None), reverse=True)
    for wide in (0.0, 0.1, 5.0):
        trials = Trials.of(opened.study, space, Noise(wide / math.sqrt(2) / student_t.ppf(0.975, 4), 4, 1))
        assert trials.top == values[0]
        assert len(trials.within) == sum(value >= values[0] - wide - 1e-12 for value in values)


def test_without_final_seeds_there_is_no_band_and_the_page_says_so(swept: tuple[OpenStudy, Space]):
    opened, space = swept
    text = sweep_page(opened.study, space, [], {}, "command", None)
    assert '"type":"rect"' not in text
    assert "How much of it is luck is not known" in text


def test_several_objectives_have_a_front(tmp_path: Path):
    space = make_space(tmp_path, TEXT.replace("objective: val/ndcg_at_20", "objectives: [latency_ms, val/ndcg_at_20]"))
    opened = open_study(place_in(tmp_path), space, 1, EPOCHS, create=True)
    run(opened, space, 5)
    text = sweep_page(opened.study, space, [], {}, "command", None)
    assert "<h2>Pareto front</h2>" in text
    complete = [trial for trial in opened.study.get_trials() if trial.values]
    assert f"latency_ms {min(trial.values[0] for trial in complete):.4f}" in text


def pareto_study() -> tuple[optuna.Study, Space]:
    """Trial 0 is dominated by trial 1, which is as good by the first objective; trial 2 is the quickest."""
    objectives = (Objective("val/ndcg_at_20", "maximize"), Objective("latency_ms", "minimize"))
    space = Space("space.yaml", (Parameter("lam", float, 0.0, 9.0),), objectives)
    study = optuna.create_study(directions=["maximize", "minimize"])
    distributions = {"lam": optuna.distributions.FloatDistribution(0, 9)}
    for lam, values in enumerate([(0.3, 9.0), (0.3, 5.0), (0.1, 2.0)]):
        study.add_trial(optuna.create_trial(params={"lam": float(lam)}, distributions=distributions, values=values))
    return study, space


def test_the_page_of_a_front_is_about_the_trial_of_the_answer():
    study, space = pareto_study()
    assert Trials.of(study, space, None).best.number == answer.best_trials(study, space)[0].number == 1
    assert "number 1, val/ndcg_at_20 0.3000" in sweep_page(study, space, [], {}, "command", None)


def test_each_figure_is_in_the_colours_and_words_of_its_own_objective(monkeypatch: pytest.MonkeyPatch):
    study, space = pareto_study()
    signs: list[float] = []
    monkeypatch.setattr(page_module, "colour_lines", lambda figure, sign: signs.append(sign))
    text = sweep_page(study, space, [], {}, "command", None)
    assert signs == [1.0, -1.0]
    assert 'aria-label="latency_ms of each trial: 3 complete trials, the best is number 2, 2.0000"' in text
    assert 'aria-label="val/ndcg_at_20 of each trial: 3 complete trials, the best is number 1, 0.3000"' in text
    assert 'aria-label="How much each option matters for latency_ms: lam 1.00"' in text


def test_colours_are_seen_on_white_and_on_black_and_told_apart():
    def luminance(colour: str) -> float:
        value = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    colours = {TRIAL, BEST, *(colour for _, colour in SCALE)}
    for colour in colours:
        # On the cards of the light and of the dark theme.
        assert 1.05 / (luminance(colour) + 0.05) >= 2.7, colour
        assert (luminance(colour) + 0.05) / (luminance("#1D2126") + 0.05) >= 3, colour
    for one, other in itertools.combinations(colours, 2):
        blue, brown = int(one[5:], 16), int(other[5:], 16)
        assert abs(blue - brown) > 40, "told apart by blue and yellow, which the colour-blind see"


def test_the_default_that_won_is_no_gain():
    same = Gain(0.0, 0.0, 0.0, 1.0, same=True)
    assert gain_sentence("default", same, 3) == "The best configuration is the default one."
    # Others may be as good to the last digit, as where nobody hits anything.
    assert "0.0000 above the default one" in gain_sentence("default", Gain(0.0, 0.0, 0.0, 1.0), 3)
    assert "which is not luck" in gain_sentence("default", Gain(0.02, 0.01, 0.03, 0.0001), 3)
    assert "p < 0.001" in gain_sentence("default", Gain(0.02, 0.01, 0.03, 0.0001), 3)


def test_one_training_each_proves_no_configuration(swept: tuple[OpenStudy, Space]):
    opened, space = swept
    rows = [row("best", [0.5]), row("default", [0.4])]
    made = sweep_page(opened.study, space, rows, {"default": Gain(0.02, 0.01, 0.03, 0.0001)}, "a command", None)
    assert "which does not tell the configuration from the seed" in made
    assert '<section class="answer unclear">' in made
    assert "<td>one training each</td>" in made
    assert "not luck" not in made[made.index("<body>") : made.index("Plotly.newPlot(")]
