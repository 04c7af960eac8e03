"""One command leads; another takes over when it is gone."""

import threading
import time
from collections.abc import Callable

from recdistill.sweep.lead import Lead
from recdistill.sweep.study import OpenStudy

BEAT, GRACE = 0.1, 1.0


class Command:
    """A command's lead, and what it was told."""

    def __init__(
        self, opened: OpenStudy, run_id: str, ended: set[str], key: str = "answer", there: bool = True
    ) -> None:
        self.taken: list[str] = []
        self.lost: list[str] = []
        self.lead = Lead(
            opened.study,
            run_id,
            key,
            over=ended.__contains__,
            there=lambda run_id: there,
            taken=self.taken.append,
            lost=self.lost.append,
            beat_seconds=BEAT,
            grace_seconds=GRACE,
        )


def wait_until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 20
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_living_leader_keeps_the_lead(opened: OpenStudy) -> None:
    first, second = Command(opened, "one", set()), Command(opened, "two", set())
    first.lead.take()
    with first.lead, second.lead:
        time.sleep(2.5 * GRACE)
        assert first.lead.leads
        assert not second.lead.leads
    assert (first.taken, second.taken) == ([""], [])


def test_a_silent_leader_is_followed(opened: OpenStudy) -> None:
    first, second = Command(opened, "one", set()), Command(opened, "two", set())
    first.lead.take()
    with second.lead:
        assert wait_until(lambda: second.lead.leads) >= GRACE * 0.9
    assert second.taken == ["one"]
    assert not first.lead.leads


def test_a_leader_whose_run_is_over_is_followed_at_once(opened: OpenStudy) -> None:
    ended: set[str] = set()
    first, second = Command(opened, "one", ended), Command(opened, "two", ended)
    first.lead.take()
    ended.add("one")
    with second.lead:
        assert second.lead.leads
    assert second.taken == ["one"]


def test_the_lead_of_an_answered_sweep_is_not_taken(opened: OpenStudy) -> None:
    ended: set[str] = set()
    first, second = Command(opened, "one", ended), Command(opened, "two", ended)
    first.lead.take()
    first.lead.answer()
    ended.add("one")
    with second.lead:
        assert second.lead.answered
        assert not second.lead.leads
    # One that is to end with another answer, as with more trials, goes on.
    with Command(opened, "three", ended, key="larger").lead as third:
        assert third.leads
        assert not third.answered


def test_an_answer_whose_run_is_gone_is_given_again(opened: OpenStudy) -> None:
    first = Command(opened, "one", set())
    first.lead.take()
    first.lead.answer()
    with Command(opened, "two", {"one"}, there=False).lead as second:
        assert second.leads
        assert not second.answered


def test_commands_that_want_different_answers_do_not_wait_for_each_other(opened: OpenStudy) -> None:
    ended: set[str] = set()
    first, larger = Command(opened, "one", ended), Command(opened, "two", ended, key="larger")
    first.lead.take()
    with larger.lead:
        with first.lead:
            began = time.monotonic()
            first.lead.answer()
            assert time.monotonic() - began < GRACE
        ended.add("one")
        wait_until(lambda: larger.lead.leads)


def test_two_that_both_answered_do_not_wait_for_each_other(opened: OpenStudy) -> None:
    first, second = Command(opened, "one", set()), Command(opened, "two", set())
    with first.lead, second.lead:
        first.lead.take()
        waiting = threading.Thread(target=first.lead.answer)
        waiting.start()
        second.lead.take()
        second.lead.answer()
        waiting.join(timeout=5)
        assert not waiting.is_alive()
    assert (first.lost, second.lost) == ([], [])


def test_a_study_without_leader_gets_one_at_once(opened: OpenStudy) -> None:
    only = Command(opened, "one", set())
    with only.lead:
        assert only.lead.leads
    assert only.taken == [""]


def test_two_that_find_no_leader_agree_on_one(opened: OpenStudy) -> None:
    commands = [Command(opened, name, set()) for name in ("one", "two", "three")]
    start = threading.Barrier(len(commands))

    def enter(command: Command) -> None:
        start.wait()
        command.lead.__enter__()

    threads = [threading.Thread(target=enter, args=(command,)) for command in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(2 * BEAT)
    leaders = [command.lead.leads for command in commands]
    time.sleep(GRACE)
    assert [command.lead.leads for command in commands] == leaders
    assert sum(leaders) == 1
    for command in commands:
        command.lead.__exit__()


def test_the_leader_sees_to_a_command_that_fell_silent(opened: OpenStudy) -> None:
    first, second, third = (Command(opened, name, set()) for name in ("one", "two", "three"))
    first.lead.take()
    second.lead.look()
    with first.lead, third.lead:
        began = time.monotonic()
        leaving = threading.Timer(0.3, lambda: third.lead.__exit__())
        leaving.start()
        first.lead.answer()
        leaving.join()
        assert GRACE * 0.9 < time.monotonic() - began < 10
    assert first.lost == ["two"]
