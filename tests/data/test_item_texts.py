"""An item's text has what the user names, and nothing that hangs."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data import item_texts as module
from recdistill.data.item_texts import item_texts, texts_digest
from recdistill.errors import InputError

TITLES = ("Toy Story", "Heat (1995)", "Fargo")
COLUMNS = {"year": ("1995", "1995", ""), "genres": ("Animation|Comedy", "", "Crime Drama"), "by": ("", "M. Mann", "")}


def test_all_columns_in_the_files_order_by_default() -> None:
    assert item_texts(TITLES, COLUMNS) == (
        "Toy Story, 1995, Animation, Comedy",
        "Heat (1995), M. Mann",
        "Fargo, Crime Drama",
    )


def test_columns_by_name_in_the_order_asked() -> None:
    found = ("Animation, Comedy, Toy Story", "Heat (1995)", "Crime Drama, Fargo")
    assert item_texts(TITLES, COLUMNS, " genres , title") == found
    assert item_texts(TITLES, COLUMNS, "title") == TITLES
    assert item_texts(TITLES, {}) == TITLES


def test_what_is_part_of_a_word_is_said() -> None:
    assert item_texts(["Heat 19955"], {"year": ["1995"]}) == ("Heat 19955, 1995",)


def test_a_template_with_empty_values() -> None:
    template = "{title} ({year}): {genres} [by {by}]"
    assert item_texts(TITLES, COLUMNS, text_template=template) == (
        "Toy Story (1995): Animation, Comedy [by ]",
        "Heat (1995) (1995): [by M. Mann]",
        "Fargo : Crime Drama [by ]",
    )
    assert item_texts(TITLES, COLUMNS, text_template="{title} ({year}): {genres}") == (
        "Toy Story (1995): Animation, Comedy",
        "Heat (1995) (1995)",
        "Fargo : Crime Drama",
    )
    assert item_texts(["Heat"], {}, text_template="{{{title}}}") == ("{Heat}",)
    assert item_texts(["Heat"], {"first name": ["x"]}, text_template="{first name}!") == ("x!",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"item_text": "title,genre"},
            r"^item_text=title,genre: the items have no column 'genre' \(nearest: genres\); ",
        ),
        ({"item_text": "zzz"}, r"choose of title, year, genres, by$"),
        ({"item_text": " ,"}, r"names no column"),
        ({"item_text": "title,title"}, r"title stands twice"),
        (
            {"item_text": "title", "text_template": "{title}"},
            r"^text_template=\{title\}: item_text=title is given, too",
        ),
        ({"text_template": "{titel}"}, r"no column 'titel' \(nearest: title\)"),
        ({"text_template": "{title.__class__}"}, r"no column 'title\.__class__'"),
        ({"text_template": "{title[0]}"}, r"no column 'title\[0\]'"),
        ({"text_template": "{title!r}"}, r"write names of columns alone in braces"),
        ({"text_template": "{title:>9999999}"}, r"write names of columns alone in braces"),
        ({"text_template": "{}"}, r"write names of columns alone in braces"),
        ({"text_template": "{0}"}, r"no column '0'"),
        ({"text_template": "{title"}, r"write a brace that is part of the text twice"),
        ({"text_template": "title}"}, r"write a brace that is part of the text twice"),
        ({"text_template": "a film"}, r"names no column"),
    ],
)
def test_mistakes_are_one_line(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        item_texts(TITLES, COLUMNS, **options)
    assert "\n" not in str(caught.value)


def test_a_column_of_another_length() -> None:
    with pytest.raises(InputError, match=r"^items: column 'year' has 1 values for 3 items"):
        item_texts(TITLES, {"year": ("1995",)})


WORDS = st.text(alphabet=string.ascii_letters + " |,", max_size=12)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_no_separator_dangles_and_no_word_is_lost(rows: list[tuple[str, str, str]]) -> None:
    titles, years, genres = zip(*rows, strict=True)
    for text, row in zip(item_texts(titles, {"year": years, "genres": genres}), rows, strict=True):
        words = [value for value in map(module.plain, row) if value]
        assert set(" ".join(words).replace(",", " ").split()) == set(text.replace(",", " ").split())
        assert text == " ".join(text.split())
        if not any("," in value for value in row):
            assert not text.startswith(",")
            assert not text.endswith(",")
            assert ", ," not in text


CLOSE = st.text(alphabet="a1_é日 ,.-²", max_size=8)


@given(CLOSE.map(module.plain).filter(bool), CLOSE)
def test_a_value_is_said_already_where_an_expression_of_whole_words_finds_it(value: str, text: str) -> None:
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text)
    assert module._stands_in(value, text) == (found is not None)


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=5))
def test_the_digest_is_of_texts_and_their_order(one: list[str], other: list[str]) -> None:
    assert (texts_digest(one) == texts_digest(other)) == (one == other)
    assert texts_digest(["a", "b"]) != texts_digest(["ab"]) != texts_digest(["b", "a"])
