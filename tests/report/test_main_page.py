"""The reports of main and of a study: the answer first, every number that they were given, no other file."""

import re
from html.parser import HTMLParser

import pytest
import sample_reports
from sample_reports import FINDINGS, NAMES

from recdistill.report.finding import Finding, findings_in_words
from recdistill.report.main_page import verdict_of
from recdistill.report.study_page import MOST_DRAWN, said, strongest

VOID = {"meta", "img", "source"}


class Balance(HTMLParser):
    """Open elements."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def main_page() -> str:
    return sample_reports.main()


@pytest.fixture(scope="module")
def study_page() -> str:
    return sample_reports.study()


def test_the_pages_are_whole_and_need_no_other_file(main_page, study_page):
    for text in (main_page, study_page):
        read = Balance()
        read.feed(text)
        assert read.open == []
        assert "<script" not in text
        addresses = re.findall(r'(?:src|href|srcset)="([^"]{0,30})', text)
        assert addresses
        assert all(address.startswith("data:image/svg+xml;base64,") for address in addresses)


def test_the_answer_stands_before_the_charts_and_these_before_the_numbers(main_page, study_page):
    places = [main_page.index(part) for part in ("The LLM is worth it", "<picture>", "<table>", "<details>")]
    assert places == sorted(places)
    places = [study_page.index(part) for part in ("Of 10 comparisons", "<picture>", "<table>", "<details>")]
    assert places == sorted(places)


def test_every_picture_has_its_numbers_in_words(main_page):
    words = re.findall(r'<img alt="([^"]+)"', main_page)
    assert len(words) == 3
    for one in FINDINGS:
        assert f"{one.difference:+.4f}" in words[0]
    for name in NAMES:
        assert name in words[1]
        assert name in words[2]


def test_a_finding_without_an_interval_says_none():
    text = findings_in_words(FINDINGS, "NDCG@20")
    assert "nan" not in text
    assert "one user: +0.0010, not below" in text


def test_the_verdict_is_the_best_that_any_finding_has():
    assert verdict_of(FINDINGS) == "better"
    assert verdict_of([FINDINGS[1], FINDINGS[3]]) == "worse"
    assert verdict_of([FINDINGS[1]]) == verdict_of([]) == "unclear"


def test_a_study_says_how_much_is_beyond_luck():
    assert said(FINDINGS)[0].startswith("Of 5 comparisons 2 are better and 1 worse beyond luck; the largest: cheap")
    assert said([FINDINGS[1]])[0].endswith("noise may explain every difference.")
    assert said([]) == ["No comparison of the plan can be made yet."]


def test_the_plot_of_a_study_keeps_what_is_beyond_luck():
    many = [Finding("a", "b", str(n), 1.0 + n, 0, 1, 0.1, "unclear") for n in range(40)]
    sure = Finding("a", "b", "sure", 0.001, 0, 1, 0.1, "worse")
    kept = strongest([*many, sure])
    assert len(kept) == MOST_DRAWN
    assert kept[-1] is sure
    assert [one.difference for one in kept[:-1]] == [1.0 + n for n in range(40 - MOST_DRAWN + 1, 40)]
