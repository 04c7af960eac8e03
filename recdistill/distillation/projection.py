"""A linear layer between the embedding spaces of student and teacher."""

import math

import torch
from torch import nn


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
