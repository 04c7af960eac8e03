from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.report.examples import Example, examples_markdown, examples_page, plain

NAMES = ("popularity", "sasrec, distilled")
EXAMPLE = Example(
    user="u1",
    history=("Alien (1979)", "Aliens (1986)"),
    earlier=3,
    following="Blade Runner (1982)",
    recommended=(
        (("Star Wars (1977)", False), ("Fargo (1996)", False)),
        (("Blade Runner (1982)", True), ("Brazil (1985)", False), ("Akira (1988)", False)),
    ),
)
NASTY = "<script>alert(1)</script> | *a* _b_ `c` [d](e) \\ &amp; ~~f~~\n# g $h$"


class Cells(HTMLParser):
    """Texts of a page's table cells, and the classes of each; open elements must be closed."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "td" and "tbody" in self.open:
            self.cells.append([dict(attrs).get("class", ""), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "tbody"} <= set(self.open):
            self.cells[-1][1] += data


def read(page):
    found = Cells()
    found.feed(page)
    assert found.open == []
    return found


def test_markdown_by_hand():
    assert examples_markdown(NAMES, [EXAMPLE], "Drawn at random.") == (
        "# Recommendations, side by side\n\nDrawn at random.\n\n## User u1\n\n"
        "History: (3 before) → Alien (1979) → Aliens (1986)\n\nNext: **Blade Runner (1982)**\n\n"
        "| | popularity | sasrec, distilled |\n| ---: | --- | --- |\n"
        "| 1 | Star Wars (1977) | **Blade Runner (1982)** ✓ |\n"
        "| 2 | Fargo (1996) | Brazil (1985) |\n"
        "| 3 |  | Akira (1988) |\n"
    )


def test_the_page_has_a_line_a_place_and_marks_the_hit():
    found = read(examples_page(NAMES, [EXAMPLE, EXAMPLE], "Drawn at random."))
    one = [["number", "1"], ["", "Star Wars (1977)"], ["hit", "✓ Blade Runner (1982)"]]
    one += [["number", "2"], ["", "Fargo (1996)"], ["", "Brazil (1985)"]]
    one += [["number", "3"], ["", ""], ["", "Akira (1988)"]]
    assert found.cells == one * 2


def test_the_page_needs_no_other_file():
    page = examples_page(NAMES, [EXAMPLE], "note")
    assert not {tag for tag, _ in read(page).tags} & {"script", "link", "img", "iframe"}
    assert "url(" not in page
    assert "@import" not in page


def test_titles_cannot_bring_markup():
    example = Example(NASTY, (NASTY,), 0, NASTY, (((NASTY, True),), ((NASTY, False),)))
    found = read(examples_page((NASTY, "b"), [example], NASTY))
    assert "script" not in {tag for tag, _ in found.tags}
    assert [text for _, text in found.cells] == ["1", f"✓ {NASTY}", NASTY]
    lines = examples_markdown((NASTY, "b"), [example], NASTY).splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# Recommendations, side by side",
        f"## User {plain(NASTY)}",
    ]
    assert not any("<script" in line.replace("\\<", "") for line in lines)


@settings(deadline=None)
@given(st.text())
def test_escaped_text_is_one_line_without_bare_markup(text):
    line = plain(text)
    assert len(line.splitlines()) <= 1
    bare = line.replace("\\\\", "")
    for character in "`*_[]<>|~#&$":
        assert bare.count(character) == bare.count(f"\\{character}")
    if not set(text) & set("\\"):
        assert line.replace("\\", "").split() == text.split()
