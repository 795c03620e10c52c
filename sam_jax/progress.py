"""How long work says how far it is, and what a person should know of it.

Functions take these as arguments; the command line shows bars and lines, a server what it likes.
"""

from collections.abc import Callable

# What is being done, such as "encoding"; how much of it is done; how much there is, where that is
# known. It is called once with 0 before anything is done.
Progress = Callable[[str, int, int | None], None]
# One line of text.
Tell = Callable[[str], None]


def silent(*_: object) -> None:
    """Shows nothing."""
