import pytest
import torch

from recdistill.distillation.policies.custom import CustomOptions, check_policy_file, policy_of_file
from recdistill.distillation.selection import query, select
from recdistill.errors import InputError


def test_is_the_function_policy_of_the_file(tmp_path, signals):
    file = tmp_path / "mine.py"
    file.write_text("def policy(signals):\n    return signals.distance[:, -1]\n")
    found = policy_of_file(str(file))
    assert torch.equal(found(signals), signals.distance[:, -1])
    assert int(select(found, signals, 0.5).sum()) == round(0.5 * int(signals.eligible.sum()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other = 1\n", "defines no function policy"),
        ("policy = 3\n", "defines no function policy"),
        ("raise RuntimeError('two\\nlines')\n", "cannot be run .RuntimeError two lines"),
        ("def policy(:\n", "cannot be run .SyntaxError"),
    ],
)
def test_a_file_without_it_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        policy_of_file(str(file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused():
    with pytest.raises(InputError, match=r"policy_file=nowhere\.py"):
        policy_of_file("nowhere.py")


def test_the_name_alone_asks_for_the_file(signals):
    with pytest.raises(InputError, match="give policy_file"):
        select("custom", signals, 0.5)
    with pytest.raises(InputError, match="give policy_file"):
        query("custom", signals, 3)


def test_its_option_names_the_file(tmp_path, signals):
    file = tmp_path / "mine.py"
    file.write_text("def policy(signals):\n    return signals.student_loss\n")
    chosen = select("custom", signals, 0.5, options=CustomOptions(policy_file=str(file)))
    assert torch.equal(chosen, select("ground_truth_error", signals, 0.5))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("signals.student_loss + signals.confidence", r"policy\(signals\) fails \(AttributeError"),
        ("3", "gave scores int"),
        ("signals.student_loss / 0 * 0", "not a number"),
    ],
)
def test_a_policy_that_fails_is_told_in_one_line_before_any_work(tmp_path, signals, body, said):
    file = tmp_path / "mine.py"
    file.write_text(f"def policy(signals):\n    return {body}\n")
    for candidates in (None, 4):
        with pytest.raises(InputError, match=f"^policy_file={file}: .*{said}.*; it was tried on 64 made-up samples"):
            check_policy_file(str(file), 5, candidates)
    with pytest.raises(InputError, match=said) as caught:
        select("custom", signals, 0.5, options=CustomOptions(policy_file=str(file)))
    assert "\n" not in str(caught.value)


def test_what_a_policy_is_tried_on_is_what_it_will_see(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def policy(signals):\n    return signals.student_loss + signals.distance[:, 0]\n")
    check_policy_file(str(file), 1000, 10)
    with pytest.raises(InputError, match=r"fails .AttributeError"):
        check_policy_file(str(file))
