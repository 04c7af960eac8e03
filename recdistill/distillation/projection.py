"""A linear layer between the embedding spaces of student and teacher, and a wide table as a product of narrow ones."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Directions that are looked for beside those that are kept, and passes over the table (Halko et al., 2011).
MORE, PASSES = 32, 4


@dataclass(frozen=True, eq=False)
class FactoredTable:
    """A table [V, E] as ``codes @ basis``, near it or equal to it.

    Attributes:
        codes: [V, R].
        basis: orthonormal rows [R, E].
        error: length of what is left out, as a share of the table's (Frobenius norms).
    """

    codes: Tensor
    basis: Tensor
    error: float

    @property
    def shape(self) -> torch.Size:
        """[V, E]."""
        return torch.Size((self.codes.shape[0], self.basis.shape[1]))


def factored(table: Tensor, rank: int) -> FactoredTable:
    """The table [V, E] in so many of its own directions, about those that leave out least, in float32.

    A randomised singular value decomposition finds them, by random numbers of its own. ``rank`` is at least 1, and
    below V and E.
    """
    table = table.detach().float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        directions = torch.svd_lowrank(table, q=min(rank + MORE, *table.shape), niter=PASSES)[2]
    basis = directions[:, :rank].T.contiguous()
    codes = table @ basis.T
    whole, kept = (float(one.double().square().sum()) for one in (table, codes))
    return FactoredTable(codes, basis, math.sqrt(max(0.0, 1 - kept / whole)) if whole else 0.0)


def projection_layer(inputs: int, outputs: int) -> nn.Linear:
    """A Linear with torch's default initialisation, drawn without advancing the global random state.

    A student with the layer then starts from, and goes on with, the random numbers of the student without it.
    """
    generator = generator_apart()
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)
    return linear


def generator_apart() -> torch.Generator:
    """A generator that follows from the global random state and does not advance it."""
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    # Reseeded by a draw, so that it does not repeat the numbers of the parameters drawn next.
    generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return generator
