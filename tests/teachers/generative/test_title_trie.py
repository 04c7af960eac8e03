import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.teachers.generative.title_trie import TitleTrie

CLOSING, PADDING = 99, 0
ANSWERS = [[5, 6, 7, CLOSING], [5, 6, CLOSING], [8, CLOSING], [5, 6, 7, CLOSING]]


@pytest.mark.parametrize(
    ("begun", "next_tokens"),
    [
        ([], {5, 8}),
        ([5], {6}),
        ([5, 6], {7, CLOSING}),
        ([5, 6, 7], {CLOSING}),
        ([8, CLOSING], {PADDING}),
        ([8, CLOSING, PADDING], {PADDING}),
    ],
)
def test_what_may_follow_by_hand(begun, next_tokens):
    assert set(TitleTrie(ANSWERS, PADDING).allowed(begun)) == next_tokens


def test_an_answer_leads_back_to_its_candidate_and_the_first_of_equals():
    trie = TitleTrie(ANSWERS, PADDING)
    assert [trie.place(answer) for answer in ANSWERS] == [0, 1, 2, 0]
    with pytest.raises(KeyError):
        trie.place([5, 6])


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=8), st.randoms())
def test_every_walk_ends_at_a_candidate(titles, drawn):
    answers = [[*title, CLOSING] for title in titles]
    trie, walked = TitleTrie(answers, PADDING), []
    while not walked or walked[-1] != CLOSING:
        walked.append(drawn.choice(trie.allowed(walked)))
    assert answers[trie.place(walked)] == walked
