"""Worker processes on this machine: started, watched, and replaced when killed."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from recdistill.errors import InputError
from recdistill.runs.interruption import interrupt, stop_on_signals
from recdistill.sweep.progress import Lines, Progress, Watch
from recdistill.sweep.space import Space
from recdistill.sweep.study import OnStale, StudyPlace, open_study
from recdistill.sweep.totals import finished
from recdistill.sweep.trials import Training, run_trials

WATCH_SECONDS = 0.2
STOP_SECONDS = 30
#: Workers ended one after another without a finished trial between: the next would end too.
MOST_DEATHS = 10
#: Tries at tasks whose process was killed.
TRIES = 3

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """The work of a worker, as it is handed to its process.

    Attributes:
        place, space, seed, epochs: the study; see `open_study`.
        total: trials in all.
        training: trains a trial.
        on_stale: told of each stale trial.
        prepare: called first in a new process: it has nothing that this one has set up, plugins for one.
    """

    place: StudyPlace
    space: Space
    seed: int
    epochs: int
    total: int
    training: Training
    on_stale: OnStale | None = None
    prepare: Callable[[], None] | None = None


def work_on(work: Work, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False) -> None:
    """Run trials in this process until the total is reached, or ``stop()``; ``say`` takes a line of each."""
    opened = open_study(work.place, work.space, work.seed, work.epochs, on_stale=work.on_stale)
    grace = work.place.grace_seconds
    trials = (opened.study, opened.storage, work.space, work.total, work.training)
    run_trials(*trials, grace_seconds=grace, stop=stop, say=say)


def run_workers(work: Work, jobs: int, progress: Progress | None = None) -> None:
    """Run trials until the total is reached, in ``jobs`` processes; in this one where that is 1.

    This process alone prints. Raises InputError where a worker does, or where workers are killed again and again.
    """
    study = open_study(work.place, work.space, work.seed, work.epochs, on_stale=work.on_stale).study
    watch = Watch(progress or Lines(), study, work.space, work.total)
    if jobs == 1:
        with bars_on_terminals():
            work_on(work, watch.said)
        return
    workers = [start_worker(work, jobs) for _ in range(jobs)]
    deaths, before = 0, finished(study)
    try:
        while workers:
            time.sleep(WATCH_SECONDS)
            watch.look_again()
            ended = [worker for worker in workers if not worker[0].is_alive()]
            # Behind the look at who has ended: what one said before its end is in the pipe by then.
            reasons = [reason for _, pipe in workers for reason in sent(pipe, watch.said)]
            if reasons:
                raise InputError(reasons[0])
            for process, pipe in ended:
                workers.remove((process, pipe))
                now = finished(study)
                if process.exitcode == 0 or now >= work.total:
                    continue
                deaths, before = (deaths + 1, before) if now == before else (1, now)
                if deaths >= MOST_DEATHS:
                    raise InputError(
                        f"study={work.place.name}: {deaths} workers ended (exit status {process.exitcode}) without a "
                        f"finished trial; give fewer jobs where memory is short"
                    )
                watch.said(f"a worker ended (exit status {process.exitcode}); starting another")
                workers.append(start_worker(work, jobs))
    finally:
        stop_workers([process for process, _ in workers])
        for _, pipe in workers:
            sent(pipe, watch.progress.say)


def quiet_context() -> SpawnContext:
    """For processes without progress bars, which would write over each other."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    return multiprocessing.get_context("spawn")


@contextmanager
def bars_on_terminals() -> Iterator[None]:
    """While it lasts, trainings of this process show progress bars on a terminal alone: a log has a line a trial."""
    before = os.environ.get("TQDM_DISABLE")
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TQDM_DISABLE", None)


def sent(pipe: Connection, say: Callable[[str], None]) -> list[str]:
    """Pass on the lines that a worker has sent. Returns the reason of its failure, where it has sent one."""
    reasons = []
    try:
        while pipe.poll():
            is_reason, text = pipe.recv()
            if is_reason:
                reasons.append(text)
            else:
                say(text)
    except (EOFError, OSError):
        # It has ended.
        pass
    return reasons


def start_worker(work: Work, jobs: int) -> tuple[SpawnProcess, Connection]:
    """A new process, and the pipe that it sends lines, and the reason of a failure, through."""
    context = quiet_context()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=worker_process, args=(work, threads_each(jobs), there))
    process.start()
    there.close()
    return process, here


def worker_process(work: Work, threads: int, pipe: Connection) -> None:
    """Main function of a worker."""
    begin_process(threads, work.prepare)
    parent = multiprocessing.parent_process()
    try:
        work_on(work, partial(send, pipe, False), stop=lambda: parent is not None and not parent.is_alive())
    except InputError as error:
        send(pipe, True, str(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def send(pipe: Connection, is_reason: bool, text: str) -> None:
    """Send a line, or the reason of a failure, to the process that started this one; it may be killed by now."""
    with suppress(OSError):
        pipe.send((is_reason, text))


def begin_process(threads: int, prepare: Callable[[], None] | None) -> None:
    """A process of its own: its share of the threads, and an orderly end when it is told to stop."""
    stop_on_signals(interrupt)
    torch.set_num_threads(threads)
    if prepare is not None:
        prepare()


def stop_workers(processes: Iterable[BaseProcess]) -> None:
    """Have the processes end their runs; kill those that do not within `STOP_SECONDS`."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def threads_each(jobs: int) -> int:
    """A worker's share of this process's threads."""
    return max(1, torch.get_num_threads() // jobs)


def map_tasks(
    function: Callable[[Task], Result], tasks: list[Task], jobs: int, prepare: Callable[[], None] | None = None
) -> list[Result]:
    """``function`` of every task, in order, in ``jobs`` processes; in this one where that is 1.

    A task whose process was killed is done again. Raises InputError where that happens `TRIES` times. What a task
    raises, and an interrupt, is raised at once: other tasks are ended as by a signal, or not begun.
    """
    if jobs == 1:
        with bars_on_terminals():
            return [function(task) for task in tasks]
    results: dict[int, Any] = {}
    for _ in range(TRIES):
        left = [position for position in range(len(tasks)) if position not in results]
        before = set(multiprocessing.active_children())
        with ProcessPoolExecutor(
            min(jobs, len(left)) or 1,
            mp_context=quiet_context(),
            initializer=begin_process,
            initargs=(threads_each(jobs), prepare),
        ) as pool:
            places = {pool.submit(function, tasks[position]): position for position in left}
            try:
                for future in as_completed(places):
                    results[places[future]] = future.result()
            except BrokenProcessPool:
                continue
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                stop_workers(set(multiprocessing.active_children()) - before)
                raise
            return [results[position] for position in range(len(tasks))]
    raise InputError(f"{len(tasks) - len(results)} trainings were killed {TRIES} times; give fewer jobs")


@contextmanager
def beside(
    function: Callable[[Task], Result], task: Task, threads: int, prepare: Callable[[], None]
) -> Iterator["Future[Result]"]:
    """While it lasts, another process of so many threads does ``function`` of a task: gives its future result.

    In the end it is waited for. What the task raises is not raised here, nor that its process was killed: the result
    has it. What is raised here ends the process, as by a signal.
    """
    before, bars = set(multiprocessing.active_children()), os.environ.get("TQDM_DISABLE")
    pool = ProcessPoolExecutor(1, mp_context=quiet_context(), initializer=begin_process, initargs=(threads, prepare))
    with pool:
        try:
            result = pool.submit(function, task)
            if bars is None:
                # This process shows its own.
                os.environ.pop("TQDM_DISABLE", None)
            yield result
            wait([result])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_workers(set(multiprocessing.active_children()) - before)
            raise
