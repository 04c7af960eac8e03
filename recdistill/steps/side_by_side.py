"""Two students that do not wait for each other, side by side: their small steps gain little from more threads.

`benchmarks/seeds.py` measures what processes of fewer threads gain. On a GPU, in a launch of several processes, with
one thread, and where memory is short, one is trained after the other.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import torch

from recdistill.config import BaselineConfig, DistillConfig, MapItemsConfig, StudentConfig, changed
from recdistill.errors import InputError
from recdistill.runs.run import StepRun
from recdistill.runs.sweep_runs import tracking_place
from recdistill.steps.backbone import backbone, finished_baseline
from recdistill.steps.distill import distill
from recdistill.steps.map_items import map_items
from recdistill.sweep.final_jobs import free_memory, jobs_that_fit
from recdistill.sweep.trainings import Preparation
from recdistill.sweep.workers import beside
from recdistill.training.device import device_of
from recdistill.training.distributed import join

Options = TypeVar("Options", bound=StudentConfig)


def trained_side_by_side(
    here: Callable[[], StepRun], other: Options, run_id: str, maps: Sequence[MapItemsConfig] = ()
) -> tuple[StepRun, Options, bool]:
    """Train a student by ``here``, and meanwhile, in a process that has half of the threads, the other one.

    That process then makes the maps of finished students, too: whoever asks for one finds it, or makes it. Returns the
    first one's run, the options by which `trained` gives the other one's, and whether it is there. Where the other
    process failed, or there was none, `trained` trains it. Its runs are nested in ``run_id``.
    """
    threads = torch.get_num_threads()
    if not has_room(other, threads) or (isinstance(other, BaselineConfig) and finished_baseline(other)):
        return here(), other, False
    prepare = Preparation(tracking_place(), other.plugin, run_id)
    with beside(train, (other, tuple(maps)), threads // 2, prepare) as result:
        torch.set_num_threads(threads - threads // 2)
        try:
            first = here()
        finally:
            torch.set_num_threads(threads)
    made = not result.cancelled() and result.exception() is None and not result.result()
    # What ``force`` asked for is done.
    return first, changed(other, force=other.force and not made), made


def has_room(config: StudentConfig, threads: int) -> bool:
    """Whether two processes of fewer threads are of use here, and fit."""
    device = device_of(config)
    alone = device.type != "cpu" or join(device).count > 1 or threads < 2
    return not alone and jobs_that_fit(2, free_memory()) == 2


def trained(config: StudentConfig) -> StepRun:
    """The run of a student, trained or found, distilled where its options are those of `distill`."""
    if isinstance(config, DistillConfig):
        return distill(config)
    assert isinstance(config, BaselineConfig)
    return backbone(config)


def train(wanted: tuple[StudentConfig, tuple[MapItemsConfig, ...]]) -> bool:
    """Train a student, make maps of others, and say whether its run was found: what a process can send."""
    student, maps = wanted
    reused = trained(student).reused
    for one in maps:
        # Raised where the map is asked for.
        with suppress(InputError):
            map_items(one)
    return reused
