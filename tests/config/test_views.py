"""Options of views: several parts at once, one spelling, and what validation chooses."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.config import changed, option_table
from recdistill.config.command_line import help_text, parse
from recdistill.config.data import DataConfig
from recdistill.config.lineage import run_key
from recdistill.config.views import ViewsConfig
from recdistill.errors import InputError
from recdistill.registry import VIEWS

NAMES = VIEWS.names()


@dataclass(frozen=True, kw_only=True)
class Some(DataConfig, ViewsConfig):
    """Options of ``a step`` that has views: and other parts."""

    section: ClassVar[str] = "some"


def key(config: ViewsConfig) -> str:
    return run_key("prepare", config, "data")


@given(st.permutations(NAMES).flatmap(lambda names: st.integers(1, len(names)).map(lambda n: names[:n])), st.data())
def test_every_spelling_of_the_same_views_is_the_same(names: list[str], data: st.DataObject) -> None:
    joiners = [data.draw(st.sampled_from(["+", ",", " + ", ", "])) for _ in names[1:]] + [""]
    spelled = "".join(name + joiner for name, joiner in zip(names, joiners, strict=True))
    config = Some(views=spelled)
    assert config == Some(views="+".join(sorted(names)))
    assert key(config) == key(Some(views="+".join(sorted(names))))
    assert config.view_names == tuple(sorted(names))
    assert [config] == config.alternatives()


def test_options_of_each_view_join_and_those_of_others_are_refused() -> None:
    config = Some(views="tfidf,llm", tfidf_words=1, llm_reading="mean")
    assert config.of_part(VIEWS, "tfidf").tfidf_words == 1
    assert config.of_part(VIEWS, "llm").llm_reading == "mean"
    assert config.parts_in_use_of(VIEWS) == ["llm", "tfidf"]
    assert "sentence_model" not in config.values()
    with pytest.raises(InputError, match=r"^tfidf_words=1: is of views=tfidf; set that, or leave tfidf_words out"):
        Some(views="sentence", tfidf_words=1)
    # Two views share an option.
    assert Some(views="sentence", text_tokens=9).of_part(VIEWS, "sentence").text_tokens == 9
    assert changed(config, views="tfidf").values().get("llm_reading") is None
    assert key(config) != key(changed(config, tfidf_words=2)) != key(changed(config, views="llm"))


def test_what_is_left_open_for_validation() -> None:
    config = Some(views="tfidf / llm+tfidf", llm_reading="mean,echo", tfidf_words=1)
    assert config.views == "tfidf/llm+tfidf"
    assert config.value("llm_reading") == "mean/echo"
    found = config.alternatives()
    assert [(one.views, one.values().get("llm_reading")) for one in found] == [
        ("tfidf", None),
        ("llm+tfidf", "mean"),
        ("llm+tfidf", "echo"),
    ]
    assert all(one.value("tfidf_words") == 1 for one in found)
    assert len({key(one) for one in [config, *found]}) == 4


def test_no_views() -> None:
    config = Some(views="")
    assert (config.view_names, config.parts_in_use_of(VIEWS), config.alternatives()) == ((), [], [config])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"views": "tfidf+sentense"}, r"^views=sentense\+tfidf: 'sentense' must be one of .* \(nearest: sentence\)$"),
        ({"views": "sentense"}, r"^views=sentense: must be one of .* \(nearest: sentence\)$"),
        ({"views": "tfidf+tfidf"}, r"^views=tfidf\+tfidf: tfidf\+tfidf stands twice; name it once"),
        ({"views": "tfidf/tfidf"}, r"stands twice"),
        ({"views": "tfidf/"}, r"a choice before or after / is empty"),
        ({"views": "llm", "llm_reading": "mean/eco"}, r"^llm_reading=mean/eco: 'eco' must be one of .*nearest: echo"),
        ({"views": "llm", "llm_reading": ""}, r"^llm_reading=: "),
        (
            {"item_text": "title", "text_template": "{title}"},
            r"^text_template=\{title\}: item_text=title is given, too",
        ),
        ({"view_whitening": 1.5}, r"^view_whitening=1.5: must be at most 1"),
        ({"view_directions": 0}, r"^view_directions=0: must be at least 1"),
    ],
)
def test_mistakes_are_one_line(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Some(**options)


def test_the_command_line_lists_views_and_their_options() -> None:
    printed = help_text(Some, "prepare", [])
    assert "--views NAME" in printed
    assert "(with views=tfidf)" in printed
    assert "(with views=llm or views=sentence)" in " ".join(printed.split())
    config = parse(Some, "prepare", ["--views", "tfidf", "--tfidf_words=1"])
    assert config == Some(views="tfidf", tfidf_words=1)
    assert set(option_table(Some)) >= {"item_text", "text_template", "view_directions", "view_whitening"}
