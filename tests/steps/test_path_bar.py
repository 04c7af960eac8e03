"""The bars of a path and of a sweep's trials."""

import sys

import pytest

from recdistill.steps.path_bar import TrialBar


def test_the_bar_of_trials_tells_time_left_and_the_best_value():
    with TrialBar("sweep quick", 20).shown() as bar:
        assert bar.postfix() == ""
        bar.at(3, "best val/ndcg_at_20 0.0812", 600)
        # An epoch of a trial is no result of the sweep.
        bar.heard({"val/ndcg_at_10": 0.5})
        assert bar.postfix() == "about 10 min left, best val/ndcg_at_20 0.0812"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_drawn_on_a_terminal_alone(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with TrialBar("sweep quick", 20).shown() as bar:
        bar.at(3, "best val/ndcg_at_20 0.0812", 600)
        bar.say("trial 2: val/ndcg_at_20 0.0812, 1.0 s")
    printed = capsys.readouterr()
    assert printed.out.split("\n") == ["trial 2: val/ndcg_at_20 0.0812, 1.0 s", ""]
    assert ("3/20 trials, about 10 min left, best val/ndcg_at_20 0.0812" in printed.err) == terminal
    assert terminal or printed.err == ""
