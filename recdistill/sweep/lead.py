"""Which of the commands that work on a study leads it: owns the trials' MLflow runs, and writes the answer.

Each command says every few seconds in the study's attributes that it is alive. The first one leads, and so does
whichever finds a study without a leader. The others watch: when the leader has been silent for the grace period, by
the watcher's own clock, or its run is over, one of them takes the lead. The leader ends the runs of commands that fell
silent.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from optuna.study import Study

from recdistill.errors import one_line

LEADER, ANSWERED, MEMBER = "leader", "answered", "member:"
#: A command that is ANSWERING waits for the others and is not waited for.
HERE, ANSWERING, LEFT = "here", "answering", "left"


class Lead:
    """This command's part in a study; a context manager for the time that it works on it.

    Args:
        study: the study.
        run_id: this command's MLflow run.
        key: of the answer that this command is to end with.
        over: whether the run of a command has ended.
        there: whether the run of a command, and so its answer, can be read.
        taken: called, with the run of the leader before (or an empty string), when this command takes the lead.
        lost: called by the leader with the run of a command that fell silent.
        beat_seconds: between signs of life.
        grace_seconds: of silence before a command counts as dead.
    """

    def __init__(
        self,
        study: Study,
        run_id: str,
        key: str,
        *,
        over: Callable[[str], bool],
        there: Callable[[str], bool],
        taken: Callable[[str], None],
        lost: Callable[[str], None],
        beat_seconds: float,
        grace_seconds: float,
    ) -> None:
        self.study, self.run_id, self.key = study, run_id, key
        self.over, self.there, self.taken, self.lost = over, there, taken, lost
        self.state = HERE
        self.beat_seconds, self.grace_seconds = beat_seconds, grace_seconds
        self.heard: dict[str, tuple[Any, float]] = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "Lead":
        if self.answered and not self.there(self.leader):
            # As where the tracking store was begun anew and the study was kept.
            self.study.set_user_attr(ANSWERED, "")
        self.look()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        self.thread.join()
        self.say(LEFT)

    @property
    def leader(self) -> str:
        """The leader's run."""
        return str(self.study.user_attrs.get(LEADER, ""))

    @property
    def leads(self) -> bool:
        """Whether it is this command."""
        return self.leader == self.run_id

    @property
    def answered(self) -> bool:
        """Whether the answer has been written."""
        return bool(self.study.user_attrs.get(ANSWERED) == self.key)

    def answer(self) -> None:
        """Tell the others that the answer has been written, and wait until they have left or fallen silent.

        Those that want another answer (a larger total, say) are not waited for: one of them leads next.
        """
        self.state = ANSWERING
        self.say(ANSWERING)
        self.study.set_user_attr(ANSWERED, self.key)
        while waiting := [run_id for run_id in self.listen() if run_id != self.run_id]:
            for run_id in waiting:
                if self.silent(run_id):
                    self.lost(run_id)
                    self.study.set_user_attr(MEMBER + run_id, [LEFT, 0.0, ""])
            time.sleep(min(0.5, self.beat_seconds))

    def watch(self) -> None:
        """Look every ``beat_seconds``."""
        while not self.stopped.wait(self.beat_seconds):
            try:
                self.look()
            except Exception as error:
                # The storage may be busy; the next sign of life follows soon.
                print(f"sweep: {one_line(error)}", flush=True)

    def look(self) -> None:
        """Give a sign of life, and take the lead where there is no leader or it is dead."""
        self.say(self.state)
        self.listen()
        attributes = self.study.user_attrs
        leader = str(attributes.get(LEADER, ""))
        if leader == self.run_id or attributes.get(ANSWERED) == self.key:
            return
        # Without a leader: the command that made the study was killed before it led, or is about to; both may lead.
        if not leader or self.over(leader) or self.silent(leader):
            self.take(leader)

    def say(self, what: str) -> None:
        """Write that this command is here, or has left."""
        self.study.set_user_attr(MEMBER + self.run_id, [what, time.time(), self.key])

    def listen(self) -> list[str]:
        """The runs of the commands that work for the same answer; notes when each command was last heard."""
        attributes, now = self.study.user_attrs, time.monotonic()
        here = {n.removeprefix(MEMBER): v for n, v in attributes.items() if n.startswith(MEMBER) and v[0] != LEFT}
        # A leader that has said nothing yet counts as heard now.
        for run_id in [*here, str(attributes.get(LEADER, ""))]:
            said = here.get(run_id)
            if run_id not in self.heard or self.heard[run_id][0] != said:
                self.heard[run_id] = (said, now)
        return [run_id for run_id, (what, _, key) in here.items() if what == HERE and key == self.key]

    def silent(self, run_id: str) -> bool:
        """Whether a command has said nothing for the grace period."""
        # One that took the lead since the last look has just been heard.
        return run_id in self.heard and time.monotonic() - self.heard[run_id][1] > self.grace_seconds

    def take(self, before: str = "") -> None:
        """Lead from now on."""
        self.study.set_user_attr(LEADER, self.run_id)
        self.say(self.state)
        self.taken(before)
