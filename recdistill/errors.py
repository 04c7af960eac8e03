"""The one error that users see: bad input, said in one line."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do, in one line."""

    def __init__(self, message: str = "") -> None:
        # What the user gave, which the message repeats, may hold line breaks.
        super().__init__(" ".join(message.splitlines()))


class Pruned(Exception):  # noqa: N818
    """A trial of a sweep is given up: its run ends early, and is no failure."""


def one_line(message: object, most: int = 200) -> str:
    """The message on one line, at most ``most`` characters."""
    return " ".join(str(message).split())[:most]
