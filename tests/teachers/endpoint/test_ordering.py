"""Orders read from what LLMs write."""

import pytest

from recdistill.teachers.endpoint.ordering import order_named, question

TITLES = ["Heat", "Heat of the Night", "Seven 7", "12 Monkeys", ""]


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("[2] > [1] > [3]", [1, 0, 2]),
        (" [2]>[ 4 ] ", [1, 3]),
        ("The order is [3], then [1].", [2, 0]),
        ("2, 1, 3", [1, 0, 2]),
        ("2 > 1", [1, 0]),
        ("2\n1\n4.", [1, 0, 3]),
        ("[2] > [2] > [9] > [0] > [1]", [1, 0]),
        ("1. 12 Monkeys\n2. heat of the night\n3. Heat", [3, 1, 0]),
        ("Heat of the Night", [1]),
        ("I like Seven 7 most", [2]),
        ("Reheated", []),
        ("", []),
        ("I cannot help with that.", []),
        ("[9] > [17]", []),
        (f"[{'1' * 5000}] > [2]", [1]),
    ],
)
def test_an_order_is_read(answer, places):
    assert order_named(answer, TITLES) == places


def test_a_question_holds_history_and_numbered_candidates():
    text = question(["Old", "Newer"], ["A", "B", "C"])
    assert text.index("- Old\n- Newer") < text.index("[1] A\n[2] B\n[3] C")
    assert "all 3 candidates" in text
    assert order_named("[1] > [2] > [3]", ["A", "B", "C"]) == [0, 1, 2]
