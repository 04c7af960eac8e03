"""The sentence that says whether the LLM is worth its price, and for which targets."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from recdistill.study.comparisons import Difference, Interval
from recdistill.study.worth import (
    BOTH,
    CHEAP,
    CONTROL_IS,
    FINAL,
    FINAL_TEXTS,
    FROZEN,
    IDS,
    NO_LLM,
    TRAINED,
    UNSET_IS,
    UNTAUGHT,
    UNTAUGHT_FINAL,
    Asked,
    Price,
    ask,
    explained,
    report,
    sentence,
    verdict,
)


def ranks(seed: int, *, warm: float = 1.0, new: float = 1.0) -> pd.DataFrame:
    """Ranks of 900 targets, a third of them new; those divided by ``warm`` and ``new``."""
    drawn = np.random.default_rng(seed).integers(1, 80, size=900)
    is_new = np.arange(900) % 3 == 0
    divided = np.maximum(1, drawn / np.where(is_new, new, warm)).astype(int)
    return pd.DataFrame(
        {
            "user": [f"u{n % 150}" for n in range(900)],
            "item": [f"i{n % 90}" for n in range(900)],
            "rank": divided,
            "rank_among_new": np.where(is_new, divided, 0),
            "item_count": np.where(is_new, 0, np.arange(900) % 40 + 1),
        }
    )


def rows(**changes: dict[str, float]) -> dict[str, list[pd.DataFrame]]:
    names = {"ids": IDS, "both": BOTH, "cheap": CHEAP, "frozen": FROZEN, "trained": TRAINED, "final": FINAL}
    return {names[name]: [ranks(seed, **change) for seed in (1, 2)] for name, change in changes.items()}


def test_it_is_worth_it_where_new_items_gain_over_cheap_text():
    found = rows(ids={}, both={}, cheap={"new": 2.0}, frozen={"new": 2.0}, trained={"new": 6.0})
    asked = ask(found, 0.01)
    said = sentence(asked)
    assert said.startswith("The LLM is worth it for new items (+")
    assert "not for items with clicks and items with few clicks, where noise hides" in said
    verdicts = ["not below", "not below", "not below", "better", "not below", "better"]
    assert [one.difference.verdict for one in asked] == verdicts


def test_cheap_text_alone_makes_no_llm_worth_it():
    said = sentence(ask(rows(ids={}, cheap={"new": 4.0}, frozen={"new": 4.0}, trained={"new": 4.0}), 0.01))
    assert said == ("The LLM is not shown to be worth it: not for new items, where noise hides whatever it adds.")


def test_of_two_ways_to_use_an_llm_one_that_helps_is_named_though_the_other_harms():
    asked = ask(rows(ids={}, cheap={"new": 3.0}, frozen={}, trained={"new": 6.0}), 0.01)
    told = {one.row: one.difference for one in asked if one.of_llm}
    assert (told[FROZEN].verdict, told[TRAINED].verdict) == ("worse", "better")
    assert sentence(asked).startswith("The LLM is worth it for new items (+")
    assert verdict(asked) == "better"


def test_the_verdict_is_on_the_llm_alone():
    asked = ask(rows(ids={}, cheap={"new": 4.0}, frozen={"new": 4.0}, trained={"new": 4.0}), 0.01)
    assert "better" in {one.difference.verdict for one in asked}
    assert verdict(asked) == verdict([]) == "unclear"
    assert verdict(ask(rows(ids={"warm": 4.0}, both={}), 0.01)) == "worse"


def test_one_new_item_has_the_interval_of_its_users():
    found = rows(ids={}, cheap={}, trained={"new": 6.0})
    for tables in found.values():
        for table in tables:
            table.loc[table["rank_among_new"] > 0, "item"] = "the only one"
    (line,) = {one.line for one in ask(found, 0.01) if one.row == TRAINED}
    assert "nan" not in line
    assert "95 % interval +0." in line


def test_harm_is_said():
    said = sentence(ask(rows(ids={"warm": 4.0}, both={}), 0.01))
    assert said.startswith("The LLM is not shown to be worth it: harmful for items with clicks (-")


def test_what_new_items_take_from_others_is_not_the_llms():
    found = rows(ids={"warm": 4.0}, both={}, cheap={"warm": 3.5}, final={"warm": 6.0})
    asked = ask(found, 0.01)
    assert sentence(asked).startswith("The LLM is worth it for items with clicks (+")
    told = {(one.row, one.target): one for one in asked}
    assert told[BOTH, "items with clicks"].difference.verdict == "worse"
    assert not told[BOTH, "items with clicks"].of_llm
    assert told[FINAL, "items with clicks"].of_llm
    assert not told[FINAL, "all targets"].of_llm


def test_an_llm_is_ahead_of_every_student_without_it_or_not_worth_it():
    # The control was stopped early: the LLM's student is ahead of it, and no better than cheap text or ids.
    found = rows(ids={"warm": 4.0}, both={"warm": 4.0}, cheap={"warm": 4.0}, final={"warm": 4.0})
    found |= {UNTAUGHT: [ranks(seed) for seed in (1, 2)], UNTAUGHT_FINAL: [ranks(seed) for seed in (1, 2)]}
    asked = ask(found, 0.01)
    told = {(one.row, one.against): one.difference.verdict for one in asked if one.target == "items with clicks"}
    assert told[FINAL, UNTAUGHT_FINAL] == "better"
    assert told[FINAL, CHEAP] != "better"
    assert verdict(asked) == "unclear"
    assert sentence(asked).startswith("The LLM is not shown to be worth it")
    both = {name: tables for name, tables in found.items() if name in (IDS, BOTH, UNTAUGHT)}
    assert verdict(ask(both, 0.01)) == "unclear"
    # Ahead of both it is.
    better = found | {FINAL: [ranks(seed, warm=12.0) for seed in (1, 2)]}
    assert verdict(ask(better, 0.01)) == "better"


def test_a_report_says_what_its_rows_are_where_it_names_them():
    plain = rows(ids={}, both={})
    taught = plain | {UNTAUGHT: plain[IDS]}
    whole = rows(ids={}, both={}, cheap={}, final={})
    said = [explained(ask(found, 0.01)) for found in (plain, taught, whole)]
    assert said == [[], [CONTROL_IS], [UNSET_IS]]
    assert f"\n{UNSET_IS}\n" in report(ask(whole, 0.01), None, 2)


def test_a_gain_over_nothing_is_told_as_it_is():
    found = rows(ids={}, both={})
    found[IDS] = [table.assign(rank=10**6) for table in found[IDS]]
    said = sentence(ask(found, 0.01))
    assert "worth it for items with clicks and items with few clicks" not in said
    assert "nan" not in said
    assert "items with clicks (+0." in said


def test_a_teacher_that_ranks_nothing_has_no_speed():
    line = Price(tokens=0, seconds=12.0, teacher_ms=None, student_ms=150.0, counted=True).line
    assert line == "price: 12 s once; per 1,000 recommendations the student takes 0.15 s"


def test_without_rows_nothing_is_said_of_it():
    assert "cannot be said" in sentence(ask({}, 0.01))


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_report_has_the_price_and_says_what_one_seed_hides(seeds):
    price = Price(tokens=200_000, seconds=700.0, teacher_ms=90_000.0, student_ms=150.0)
    text = report(ask(rows(ids={}, both={"warm": 2.0}), 0.01), price, seeds)
    assert "budgets of 200,000 LLM tokens and 700 s once" in text
    assert "price: 200,000 LLM tokens and 700 s once;" in dataclasses.replace(price, counted=True).line
    assert "600 times less" in text
    assert ("One seed" in text) == (seeds == 1)
    assert "items with clicks: distilled" in text


def test_the_price_says_what_it_includes():
    price = Price(tokens=200_000, seconds=700.0, teacher_ms=None, student_ms=150.0, text_tokens=137_744)
    includes = "once (to train, score training samples and read the items' texts, not to rank validation and test)"
    assert f"200,000 LLM tokens, 137,744 to read the items' texts and 700 s {includes};" in price.line
    unbounded = dataclasses.replace(price, tokens=0)
    assert f"price: 137,744 LLM tokens to read the items' texts and 700 s {includes};" in unbounded.line
    # A teacher of a version that did not count them.
    uncounted = dataclasses.replace(price, text_tokens=None).line
    assert "budgets of 200,000 LLM tokens and 700 s once" in uncounted
    assert "no tokens of the items' texts, which the teacher's run did not count" in uncounted
    assert price.lines == [price.line]
    text = report(ask(rows(ids={}, both={}), 0.01), dataclasses.replace(price, frozen=(68_872, 90.0)), 1)
    assert "\n- price of cheap text + frozen LLM: 68,872 LLM tokens and 90 s once, no teacher\n" in text


def judged(low: float, high: float, adjusted: float, *, p_below: float = 1.0, agree: bool = True) -> Asked:
    """An answer for new items with this interval and corrected p-value."""
    by = Interval(90, 0.1, low, high, 0.02, p_below)
    one = Difference("new", 0.5, 0.3, 900, 2, by, by, by, 0.02, p_below, agree, adjusted, adjusted_below=p_below)
    return Asked(TRAINED, CHEAP, "new items", True, one, questions=8)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (judged(0.06, 0.36, 0.01), "p 0.010: better"),
        (judged(0.06, 0.36, 0.07), "p 0.070: clear of 0 alone, not after the correction for 8 comparisons"),
        (judged(-0.06, 0.36, 0.3), "p 0.300: no difference that noise does not explain"),
        (judged(-0.06, 0.36, 0.3, p_below=0.01), "p 0.300: no difference to be seen, and not below"),
        (
            judged(0.06, 0.36, 0.07, p_below=0.01),
            "p 0.070: clear of 0 alone, not after the correction for 8 comparisons, and not below",
        ),
        (judged(0.06, 0.36, 0.01, agree=False), "p 0.010: clear of 0, but the seeds do not agree"),
    ],
)
def test_a_verdict_is_worded_by_interval_and_corrected_p_together(asked, said):
    assert asked.line.endswith(said)
    hidden = "where noise hides" in sentence([asked])
    assert hidden == ("no difference" in said)
    if asked.doubt:
        assert sentence([asked]).endswith(f"not for new items (+67%), {asked.doubt}.")


def test_a_row_is_named_by_what_its_new_items_are_made_of():
    found = rows(ids={}, both={}, cheap={}) | {FINAL_TEXTS: [ranks(seed, warm=6.0) for seed in (1, 2)]}
    asked = ask(found, 0.01)
    assert {one.row for one in asked} == {BOTH, CHEAP, FINAL_TEXTS}
    assert sentence(asked).startswith("The LLM is worth it for items with clicks (+")
    assert explained(asked) == [UNSET_IS]


def test_of_a_teacher_without_an_llm_its_own_sentence_is_said():
    asked = [dataclasses.replace(one, of_llm=False, has_llm=False) for one in ask(rows(ids={}, both={}), 0.01)]
    assert sentence(asked) == NO_LLM
    assert verdict(asked) == "unclear"
