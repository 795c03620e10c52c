"""Names in the order of the numbers in them: 9 before 10, t0.25 before t0.5, -1 before 0."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

# 7, 0.25; of 2024.01.15 each number by itself.
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
# A minus that is a sign whatever the other names are: t_-1, x=-1.5.
_SIGNS = ("_-", "=-")


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Files by their names without suffix; where those are equal, by the whole names."""
    files = list(paths)
    keys = natural_keys([path.stem for path in files])
    placed = sorted(zip(keys, files, strict=True), key=lambda one: (one[0], one[1].name))
    return [path for _, path in placed]


def names_in_order(names: Iterable[str]) -> list[str]:
    """Names by their numbers; where those are equal (1, 01), as text."""
    given = list(names)
    return [name for _, name in sorted(zip(natural_keys(given), given, strict=True))]


def natural_keys(names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Keys to sort names by, which depend on what else is there.

    A key is text and numbers in turns, and compares with every other one. Numbers have decimals
    (0.25 < 0.5 < 10), unless the names count behind the point: where both 1.9 and 1.10 are there,
    1.10 comes later. A minus is a sign at the start of a name, behind _ or =, or where another name
    has the same text with no minus (t-1 beside t0); elsewhere it separates (frame-1, 2024-01-15).
    """
    parts = [_parts(name) for name in names]
    counted = _counts_behind_the_point(parts)
    texts = {tuple(one[:at:2]) for one in parts for at in range(1, len(one), 2)}
    return [_key(one, counted, texts) for one in parts]


def _parts(name: str) -> list[str]:
    """Text, number, text, ...: text at even places."""
    parts, end = [], 0
    for found in _NUMBERS.finditer(name):
        number = found.group()
        pieces = [number] if number.count(".") < 2 else number.split(".")
        parts += [name[end : found.start()], pieces[0]]
        for piece in pieces[1:]:
            parts += [".", piece]
        end = found.end()
    return [*parts, name[end:]]


def _counts_behind_the_point(parts: list[list[str]]) -> bool:
    """Whether a number such as 1.9 is followed by 1.10, as counting gives and decimals do not."""
    pointed = {
        (tuple(one[:at]), *one[at].split("."))
        for one in parts
        for at in range(1, len(one), 2)
        if "." in one[at]
    }
    return any(
        set(behind) == {"9"} and (before, whole, "1" + "0" * len(behind)) in pointed
        for before, whole, behind in pointed
    )


def _key(parts: list[str], counted: bool, texts: set[tuple[str, ...]]) -> tuple[Any, ...]:
    key: list[Any] = []
    for at, part in enumerate(parts):
        if at % 2:
            whole, _, behind = part.partition(".")
            value = Decimal(whole if counted else part)
            negative = _is_sign(parts, at, texts)
            if negative:
                key[-1] = key[-1][:-1]
            key.append((-value if negative else value, Decimal(behind or 0) if counted else 0))
        else:
            key.append(part)
    return tuple(key)


def _is_sign(parts: list[str], at: int, texts: set[tuple[str, ...]]) -> bool:
    text = parts[at - 1]
    if at > 1 and text == "-":  # between two numbers, as in a date
        return False
    if text.endswith(_SIGNS) or (at == 1 and text == "-"):
        return True
    return text.endswith("-") and (*parts[: at - 1 : 2], text[:-1]) in texts
