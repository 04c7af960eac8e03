"""Random numbers of a training in several processes: shared negatives alike in all, dropout by each process.

All processes have torch's global generator in one state, and draw from it what one process would: numbers of a whole
batch. A mask of dropout belongs to rows that other processes do not have: each draws its own, from a seed of its own.
Without dropout a training in several processes so sees the random numbers of one; with it masks have the same
distribution.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from recdistill.training.distributed import ALONE, Processes

STEPS = "dropout_steps"


class ProcessRandom:
    """Gives each forward pass of a training its random numbers.

    Args:
        processes: of the training.
        seed: of the training.
        memory: tensors of the checkpoint; where there are several processes, the number of passes is kept there.
    """

    def __init__(self, processes: Processes, seed: int = 0, memory: dict[str, Tensor] | None = None) -> None:
        self.processes, self.seed = processes, seed
        self.memory = {} if memory is None else memory
        if processes.count > 1:
            self.memory.setdefault(STEPS, torch.zeros((), dtype=torch.int64))

    def of_dropout(self) -> AbstractContextManager[None]:
        """The context of a forward pass, whose dropout is of this process."""
        number = 0
        if self.processes.count > 1:
            number = int(self.memory[STEPS])
            self.memory[STEPS] = self.memory[STEPS] + 1
        return self.processes.random_apart(self.seed, number)


ALONE_RANDOM = ProcessRandom(ALONE)
