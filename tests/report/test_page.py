import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np

from recdistill.report.compared import EvaluatedSamples, groups_of
from recdistill.report.page import page
from recdistill.report.results import MetricName, compare_groups

VOID = {"meta", "img", "source"}


class Balance(HTMLParser):
    """Open elements, and every address that the page refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def plots(text):
    return [base64.b64decode(data).decode() for data in re.findall(r"image/svg\+xml;base64,([^\"]+)", text)]


def test_the_page_is_whole_and_needs_no_other_file(results):
    text = page(results)
    read = Balance()
    read.feed(text)
    assert read.open == []
    assert all(address.startswith("data:image/svg+xml;base64,") for address in read.addresses)
    assert "<script" not in text
    assert "@import" not in text


def test_the_answer_stands_before_the_plots_and_these_before_the_table(results):
    text = page(results)
    places = [text.index(part) for part in ("has the highest NDCG@10", "<img", "<table>")]
    assert places == sorted(places)


def test_the_plots_show_each_recommender_and_subgroup(results):
    drawn = plots(page(results))
    # Each in two themes and two widths.
    assert len(drawn) == len(set(drawn)) == 8
    for one in drawn:
        ElementTree.fromstring(one)
    assert all("distill lam=0.7" in gains for gains in drawn[:4])
    assert all("popularity: cold (0)" in subgroups for subgroups in drawn[4:])


def test_a_plot_says_in_words_what_it_shows(results):
    gains, subgroups = re.findall(r'<img alt="([^"]+)"', page(results))
    best = results.row_of(results.best)
    assert f"distill lam=0.7 {best.difference:+.4f}" in gains
    assert "popularity cold (0)" in subgroups


def test_the_same_comparison_gives_the_same_page(results):
    assert page(results) == page(results)


def test_names_cannot_bring_markup_or_formulas_into_the_page(make_run, samples):
    name = "<script>alert(1)</script> $\\frac{"
    runs = [make_run("good", name=name), make_run("plain", settings={}, name="</table>")]
    text = page(compare_groups(groups_of(runs), samples, MetricName("test", "hr", 10), resamples=100))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    read = Balance()
    read.feed(text)
    assert read.open == []


def test_many_recommenders_keep_the_page_small(make_run):
    generator = np.random.default_rng(0)
    runs = [make_run(f"r{number}", settings={"lam": float(number)}) for number in range(300)]
    ranks = {run.run_id: generator.integers(1, 50, 40) for run in runs}
    samples = EvaluatedSamples(ranks, np.arange(40), np.arange(40), np.arange(40))
    text = page(compare_groups(groups_of(runs), samples, MetricName("test", "hr", 10), resamples=100))
    assert len(text) < 600_000
    assert "and 292 more" in text
