"""What may follow on a command line, for the shell: steps, their options, and the values that have names.

``eval "$(_RECDISTILL_COMPLETE=bash_source recdistill)"`` (or ``zsh_source``, ``fish_source``) turns it on; click does
the shells' parts.
"""

import click
from click.shell_completion import shell_complete

from recdistill.config.base import Config, option_table
from recdistill.config.option import Option
from recdistill.config.steps import ALIASES, STEPS


def complete(variable: str, instruction: str) -> int:
    """Print what the shell asks for: its script, or what may follow. Returns the exit status."""
    return int(shell_complete(commands(), {}, "recdistill", variable, instruction))


def commands() -> click.Group:
    """The steps as click's commands, which are never run."""
    kinds = STEPS | {alias: STEPS[step] for alias, step in ALIASES.items()}
    return click.Group("recdistill", commands={name: command(name, kind) for name, kind in kinds.items()})


def command(name: str, kind: type[Config]) -> click.Command:
    """A step's options."""
    parameters: list[click.Parameter] = [
        click.Option([f"--{one.name}"], type=values_of(one), help=one.help) for one in option_table(kind).values()
    ]
    return click.Command(name, params=parameters, help=(kind.__doc__ or "").partition(": ")[2])


def values_of(one: Option) -> click.ParamType:
    """What an option takes, as far as its values have names."""
    if one.type is bool:
        return click.Choice(["true", "false"])
    if one.choices and not one.metadata["several"]:
        return click.Choice(one.choices)
    return click.Path() if one.metadata["path"] else click.STRING
